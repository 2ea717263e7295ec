//! The maker of qcow2 files that the tests of `imaging` use, here for the fuzz targets and for `tests/oracles`.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)] // test code, whose input is ours

#[path = "../../../crates/imaging/tests/support/qcow2.rs"]
mod maker;

pub use maker::{Options, Order, build, random};
