//! The exit codes of every subcommand: part of the interface, for scripts.

use std::process::ExitCode;

/// How a subcommand ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success,
    /// Failed in a way that has no code of its own.
    Failure,
    /// The arguments make no sense.
    Usage,
    /// Refused for safety, or there is no such disk; nothing was touched.
    Refused,
    /// The image could not be fetched.
    Download,
    /// The image does not have the expected digest, or is not what was signed.
    Checksum,
    /// The disk could not be written.
    Write,
    /// The image is damaged, not what it is declared to be, or of a kind that is refused.
    InvalidImage,
    /// Stopped by a signal.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::Download => 4,
            Exit::Checksum => 5,
            Exit::Write => 6,
            Exit::InvalidImage => 7,
            Exit::Interrupted => 130,
        }
    }
}

impl From<&hwm::Error> for Exit {
    fn from(error: &hwm::Error) -> Self {
        match error {
            hwm::Error::InvalidParameters { .. }
            | hwm::Error::Arguments { .. }
            | hwm::Error::Configuration { .. } => Exit::Usage,
            hwm::Error::ProtectedDevice { .. }
            | hwm::Error::DeviceNotFound { .. }
            | hwm::Error::ContainerNotPermitted { .. } => Exit::Refused,
            hwm::Error::ImageDownload { .. } | hwm::Error::ImageDownloadTimeout { .. } => Exit::Download,
            hwm::Error::ImageChecksum { .. } => Exit::Checksum,
            hwm::Error::ImageWrite { .. }
            | hwm::Error::BlockDevice { .. }
            | hwm::Error::SoftwareRaid { .. }
            | hwm::Error::BlockDeviceErase { .. } => Exit::Write,
            hwm::Error::InvalidImage { .. } => Exit::InvalidImage,
            hwm::Error::NoManager { .. }
            | hwm::Error::Execution { .. }
            | hwm::Error::Deployment { .. }
            | hwm::Error::Other { .. }
            | hwm::Error::Failed { .. } => Exit::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
