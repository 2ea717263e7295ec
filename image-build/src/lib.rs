//! `ferric-image`: makes the deploy ramdisk (`kernel` and `initramfs`) from a Debian kernel package and the agent.
//!
//! The story of a build is [`story::build`], from top to bottom. The rest are its parts:
//!
//! - [`kernel`]: what a Debian kernel package holds, and which modules a profile takes from it.
//! - [`ramdisk`]: the file tree of the ramdisk, its cpio form, and its compression.
//! - [`apt`]: where the packages come from when none is given.
//! - [`elf`]: the little of ELF that modules and the agent's check need.
//! - [`tools`]: programs of the distribution, with their libraries.
//! - [`inspect`]: reads an initramfs back, for people.
//!
//! It needs no root, changes nothing outside its output and cache folders, and gives the same bytes for the same input.

pub mod apt;
pub mod elf;
pub mod error;
pub mod inspect;
pub mod kernel;
pub mod output;
pub mod progress;
pub mod ramdisk;
pub mod report;
pub mod story;
pub mod tools;

pub use error::{Error, Result};
