//! What goes wrong in a hardware manager.
//!
//! Errors know nothing of HTTP. The agent's one table maps each kind to the class name and code of the wire.

/// A failure of a hardware manager, by kind. The text is what the operator reads.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // `message` is the text, `source` its cause
pub enum Error {
    /// No manager answers the question, or knows the step.
    #[error("no hardware manager found to handle `{method}`")]
    NoManager { method: String },
    /// The parameters of a command or step make no sense.
    #[error("{message}")]
    InvalidParameters { message: String },
    /// A step was given an argument that it does not have, or not one that it needs.
    #[error("{message}")]
    Arguments { message: String },
    /// What the operator configured for a manager can not be used.
    #[error("{message}")]
    Configuration { message: String },
    /// A container image that the operator does not permit.
    #[error("{message}")]
    ContainerNotPermitted { message: String },
    /// Work that was well asked for failed; conductors show it as a failed command, without naming the step again.
    #[error("{message}")]
    Execution { message: String },
    /// The disk or partition that was asked for is not there.
    #[error("{message}")]
    DeviceNotFound { message: String },
    /// The image could not be fetched.
    #[error("{message}")]
    ImageDownload { message: String },
    /// The image did not arrive in the time that it may take.
    #[error("{message}")]
    ImageDownloadTimeout { message: String },
    /// The image does not have the expected digest.
    #[error("{message}")]
    ImageChecksum { message: String },
    /// The image could not be written.
    #[error("{message}")]
    ImageWrite { message: String },
    /// The image is of a kind that is not accepted.
    #[error("{message}")]
    InvalidImage { message: String },
    /// Something that belongs to a deployment failed, other than its image: the config drive.
    #[error("{message}")]
    Deployment { message: String },
    /// A disk refused an operation.
    #[error("{message}")]
    BlockDevice { message: String },
    /// The data on a disk could not be erased.
    #[error("{message}")]
    BlockDeviceErase { message: String },
    /// Software RAID that can not be as it is asked for, or whose making or deletion failed.
    #[error("{message}")]
    SoftwareRaid { message: String },
    /// The disk is protected: outside the allow-list, mounted, in use.
    #[error("{message}")]
    ProtectedDevice { message: String },
    /// Something else failed.
    #[error("{context}")]
    Other {
        context: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something else failed, without a cause that could be named.
    #[error("{message}")]
    Failed { message: String },
}

impl Error {
    /// Wraps any error with what was being done (`reading /sys/class/net`).
    pub fn other(
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Other { context: context.into(), source: source.into() }
    }
}

/// The texts of an error and all its causes, joined by colons.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
