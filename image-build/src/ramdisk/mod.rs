//! The ramdisk: [`tree`] holds its files, [`layout`] decides what they are, [`cpio`] gives them the kernel's archive form,
//! [`compress`] makes that small. [`certificates`] and [`requirements`] look at what users put in.

pub mod add;
pub mod certificates;
pub mod compress;
pub mod cpio;
pub mod layout;
pub mod requirements;
pub mod tree;

#[cfg(test)]
pub(crate) mod sample {
    //! Files that users put in.

    /// A CA certificate: `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 36500`.
    pub(crate) const CERTIFICATE: &str = include_str!("../../tests/authority.pem");
}
