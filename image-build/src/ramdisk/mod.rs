//! The ramdisk: [`tree`] holds its files, [`layout`] decides what they are, [`cpio`] gives them the kernel's archive form,
//! [`compress`] makes that small.

pub mod add;
pub mod compress;
pub mod cpio;
pub mod layout;
pub mod tree;
