//! The bench that Ferric's end-to-end tests and its demo stand on.
//!
//! Everything here treats Ferric as a user would: the programs in `dist/`, virtual machines, loop devices, an HTTP server
//! that misbehaves on purpose. Nothing here links to Ferric's own crates. The tests are in `tests/`, the images in `images/`,
//! and `docs/testing.md` says how to run them and how to read a failure.

// Processes are what a test bench is made of; `sys` is the product's seam, not the tests'.
#![allow(clippy::disallowed_methods)]

mod bench;
mod cgroup;
mod controller;
mod guest;
mod httpd;
mod loopdev;
mod noise;
mod patience;
mod qmp;
mod serial;
mod vm;
mod workspace;
mod write;

pub use bench::{Bench, Node, Shape, head_is_zero, same_content};
pub use cgroup::MemoryLimit;
pub use controller::{Controller, Outcome, switch_off_leftovers};
pub use guest::Guest;
pub use httpd::{Fault, FileServer};
pub use loopdev::LoopDevice;
pub use noise::noise_file;
pub use patience::{patient, until};
pub use qmp::Qmp;
pub use serial::{Line, Serial};
pub use vm::{Boot, Bus, Disk, Firmware, Nic, Vm, VmConfig};
pub use workspace::{DebianImage, Scratch, debian_image, dist, root, skip_vm, skipped};
pub use write::{WriteBench, words};
