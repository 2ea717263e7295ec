//! QEMU's copy-on-write format, read in file order.

/// A rule that a qcow2 image breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Qcow2Error {
    /// The reader is not there yet.
    #[error("qcow2 images can not be written yet: publish the image as raw")]
    NotYet,
}
