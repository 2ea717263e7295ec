//! What a kernel package holds, and which of its modules go into the ramdisk.
//!
//! [`package`] reads the `.deb` files, [`modinfo`] what each module says of itself, [`profile`] which modules are wanted,
//! [`closure`] what those need in turn, [`index`] the text files by which the agent finds and orders them.

pub mod ar;
pub mod closure;
pub mod deb;
pub mod firmware;
pub mod index;
pub mod modinfo;
pub mod package;
pub mod profile;
