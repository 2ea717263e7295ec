//! Disks: which there are, which one is meant, whether it may be destroyed, and what its partition table says.
//!
//! - [`list`] reads the disks from sysfs; [`AllowList`], [`Hints`], [`SkipList`], what the [`Situation`] is (arrays, several
//!   paths to one disk) and [`select`] narrow them down, each verdict with its reason. Nothing of this opens a device, but
//!   where the skip list names arrays.
//! - [`Policy`] and [`Target`] are the gate: **every destructive function of Ferric takes a [`Target`]**, and only
//!   [`Target::claim`] makes one, after the safety checks that stand inside it.
//! - [`layout`] says where the partitions of a partition image go, [`format`] makes swap space and EFI system partitions.
//! - [`table`] reads GPT and MBR and makes new ones, [`fix_gpt`] moves the backup GPT to the end of the disk,
//!   [`config_drive`] puts a config drive onto a written disk, [`probe`] recognises file systems, [`fat`] and [`iso`] read
//!   files of an EFI system partition and of virtual media, [`Files`] those of either by path.
//! - [`md`] knows the software arrays that run, and what their members' superblocks say.
//! - [`erase`] makes data unreadable; [`wipe_metadata`] only makes a disk look empty.
//!
//! Streaming an image onto a disk is `imaging`; boot entries are `boot`.

mod allow;
mod bus_path;
pub mod config_drive;
mod contents;
pub mod erase;
mod error;
pub mod fat;
mod files;
pub mod format;
mod glob;
mod hints;
mod holder;
mod identity;
pub mod iso;
pub mod layout;
mod list;
pub mod md;
mod multipath;
mod nodes;
mod policy;
pub mod probe;
mod select;
mod signatures;
mod situation;
mod skip;
mod source;
pub mod table;
mod target;
mod usb_identity;
mod wipe;
mod world_wide_name;

pub use allow::AllowList;
pub use contents::{Contents, PartitionContents};
pub use error::Error;
pub use files::Files;
pub use hints::{HintVerdict, Hints};
pub use holder::Holder;
pub use list::{describe, list, partition_path};
pub use multipath::{Paths, paths};
pub use nodes::{Patience, show_partitions};
pub use policy::Policy;
pub use select::{DEFAULT_MINIMUM_BYTES, Rules, Selection, Verdict, select};
pub use situation::{Situation, kept};
pub use skip::SkipList;
pub use source::{Device, Region, Source, Store};
pub use table::{GptFix, fix_gpt};
pub use target::{Refusal, Target};
pub use wipe::{
    metadata_of_parts, metadata_ranges, old_metadata, wipe_metadata, wipe_metadata_within, wipe_parts,
};
