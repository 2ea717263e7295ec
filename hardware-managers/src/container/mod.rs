//! The manager of container steps: it runs images of the operator's choice, where the ramdisk has podman or docker.
//!
//! [`manager`] says which steps there are, [`steps_file`] reads those that the ramdisk brings along, [`policy`] decides what may
//! run with which options, [`runner`] runs it. Source: data plane page, 6.6.

mod manager;
mod policy;
mod runner;
mod steps_file;

pub use manager::ContainerHardwareManager;
