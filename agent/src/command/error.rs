//! THE table from what went wrong to what the wire says: class name, code and fixed text.
//!
//! Errors beneath know nothing of HTTP; everything a command can fail with passes through here. Source:
//! ironic-python-agent `errors.py` (agent protocol page, appendix A). A conductor shows `details` to the operator.

use wire::{CommandError, CommandStatus, StepKind};

/// Declares the classes and their rows in one place.
macro_rules! classes {
    ($( $name:ident $code:literal $message:literal; )*) => {
        /// The error classes that commands of this agent can end with.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // the variants are the class names of the wire
        pub enum ErrorClass {
            $( $name, )*
            /// Makes a conductor believe the agent is too old for these parameters.
            TypeError,
        }

        impl ErrorClass {
            /// Every class.
            pub const ALL: &[Self] = &[$( Self::$name, )* Self::TypeError];

            /// Name, code and message. The message of `ProtectedDeviceError` is its details.
            pub fn row(self) -> (&'static str, u16, &'static str) {
                match self {
                    $( Self::$name => (stringify!($name), $code, $message), )*
                    Self::TypeError => ("TypeError", 500, "Command execution failed"),
                }
            }
        }
    };
}

classes! {
    RESTError 500 "An error occurred";
    InvalidContentError 400 "Invalid request body";
    InvalidCommandError 400 "Invalid command";
    InvalidCommandParamsError 400 "Invalid command parameters";
    RequestedObjectNotFoundError 404 "Not found";
    DeviceNotFound 404 "Error finding the disk or partition device to deploy the image onto";
    CommandExecutionError 500 "Command execution failed";
    AgentIsBusy 409 "Agent is busy";
    ContainerNotPermittedError 500 "Container image not permitted";
    ImageDownloadError 500 "Error downloading image";
    ImageDownloadOutofSpaceError 500 "Error downloading image";
    ImageDownloadFatalError 500 "Error downloading image";
    ImageDownloadTimeoutError 408 "Image download timeout";
    ImageChecksumError 500 "Error verifying image checksum";
    ImageWriteError 500 "Error writing image to device";
    SystemRebootError 500 "Error rebooting system";
    BlockDeviceEraseError 500 "Error erasing block device";
    BlockDeviceError 500 "Block device caused unknown error";
    SoftwareRAIDError 500 "Software RAID caused unknown error";
    VirtualMediaBootError 500 "Configuring agent from virtual media failed";
    ExtensionError 500 "An error occurred";
    UnknownNodeError 500 "Agent is not associated with an Ironic node";
    HardwareManagerNotFound 500 "No valid HardwareManager found";
    HardwareManagerMethodNotFound 500 "No HardwareManager found to handle method";
    HardwareManagerConfigurationError 500 "Hardware manager configuration error";
    IncompatibleHardwareMethodError 500 "HardwareManager method is not compatible with hardware";
    VersionMismatch 409 "Hardware managers version mismatch, reload agent with correct version";
    CleaningError 500 "Clean step failed";
    DeploymentError 500 "Deploy step failed";
    ServicingError 500 "Service step failed";
    ProtectedDeviceError 500 "";
    InvalidImage 500 "The provided image is not valid for use";
    IncompatibleNumaFormatError 500 "Error in NUMA node data format";
    ClockSyncError 500 "Error syncing system clock";
}

impl ErrorClass {
    /// Whether a synchronous command that fails so is answered with 400 and leaves no trace in the history.
    pub fn is_invalid_content(self) -> bool {
        matches!(
            self,
            ErrorClass::InvalidContentError
                | ErrorClass::InvalidCommandError
                | ErrorClass::InvalidCommandParamsError
        )
    }
}

/// Longest `details`, in bytes: what a log line and an operator can use. Each failed command is kept for the life of the process.
const DETAILS: usize = 8 << 10;

/// A text of at most [`DETAILS`] bytes: its start and its end, between which the cause of a failure is found least often.
fn bounded(text: String) -> String {
    if text.len() <= DETAILS {
        return text;
    }
    let left_out = text.len() - DETAILS;
    let head = text.get(..text.floor_char_boundary(DETAILS / 2)).unwrap_or_default();
    let tail = text.get(text.ceil_char_boundary(text.len() - DETAILS / 2)..).unwrap_or_default();
    format!("{head} ... ({left_out} bytes left out) ... {tail}")
}

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{details}")]
pub struct Failure {
    /// Its class on the wire.
    pub class: ErrorClass,
    /// What happened, for the operator.
    pub details: String,
}

impl Failure {
    /// A failure of a class. Details above 8 KiB lose their middle.
    pub fn new(class: ErrorClass, details: impl Into<String>) -> Self {
        Self { class, details: bounded(details.into()) }
    }

    /// The status of a command that ended so.
    pub fn status(&self) -> CommandStatus {
        if self.class == ErrorClass::VersionMismatch {
            CommandStatus::VersionMismatch
        } else {
            CommandStatus::Failed
        }
    }

    /// `command_error`.
    pub fn to_wire(&self) -> CommandError {
        let (kind, code, message) = self.class.row();
        let message = if message.is_empty() { &self.details } else { message };
        CommandError { kind: kind.into(), code, message: message.into(), details: self.details.clone() }
    }

    /// `<message>: <details>`, as it stands in a `faultstring`.
    pub fn fault_text(&self) -> String {
        let (_, _, message) = self.class.row();
        if message.is_empty() { self.details.clone() } else { format!("{message}: {}", self.details) }
    }

    /// A step that failed: the classes that have a name on the wire pass through, everything else takes the name of the
    /// step's kind.
    pub fn of_step(kind: StepKind, step: &str, error: &hwm::Error) -> Self {
        let failure = Self::from(error);
        let cause = match error {
            hwm::Error::Other { .. } | hwm::Error::Failed { .. } => failure.details,
            hwm::Error::Arguments { .. } => format!("TypeError: {}", failure.details),
            _ => return failure,
        };
        let (class, word) = match kind {
            StepKind::Clean => (ErrorClass::CleaningError, "clean"),
            StepKind::Deploy => (ErrorClass::DeploymentError, "deploy"),
            StepKind::Service => (ErrorClass::ServicingError, "service"),
        };
        Self::new(class, format!("Unexpected exception performing {word} step {step}. {cause}"))
    }
}

impl From<&hwm::Error> for Failure {
    fn from(error: &hwm::Error) -> Self {
        let class = match error {
            hwm::Error::NoManager { .. } => ErrorClass::HardwareManagerMethodNotFound,
            hwm::Error::InvalidParameters { .. } => ErrorClass::InvalidCommandParamsError,
            hwm::Error::DeviceNotFound { .. } => ErrorClass::DeviceNotFound,
            hwm::Error::ImageDownload { .. } => ErrorClass::ImageDownloadError,
            hwm::Error::ImageDownloadTimeout { .. } => ErrorClass::ImageDownloadTimeoutError,
            hwm::Error::ImageChecksum { .. } => ErrorClass::ImageChecksumError,
            hwm::Error::ImageWrite { .. } => ErrorClass::ImageWriteError,
            hwm::Error::InvalidImage { .. } => ErrorClass::InvalidImage,
            hwm::Error::Deployment { .. } => ErrorClass::DeploymentError,
            hwm::Error::BlockDevice { .. } => ErrorClass::BlockDeviceError,
            hwm::Error::ProtectedDevice { .. } => ErrorClass::ProtectedDeviceError,
            hwm::Error::SoftwareRaid { .. } => ErrorClass::SoftwareRAIDError,
            hwm::Error::BlockDeviceErase { .. } => ErrorClass::BlockDeviceEraseError,
            hwm::Error::Arguments { .. } => ErrorClass::TypeError,
            hwm::Error::Configuration { .. } => ErrorClass::HardwareManagerConfigurationError,
            hwm::Error::ContainerNotPermitted { .. } => ErrorClass::ContainerNotPermittedError,
            hwm::Error::Execution { .. } | hwm::Error::Other { .. } | hwm::Error::Failed { .. } => {
                ErrorClass::CommandExecutionError
            }
        };
        Self::new(class, hwm::chain(error))
    }
}

impl From<hwm::Error> for Failure {
    fn from(error: hwm::Error) -> Self {
        Self::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failure_reads_on_the_wire_as_ironic_python_agent_writes_it() {
        let error = hwm::Error::ImageChecksum { message: "sha256 of image disk.qcow2 is x, not y".into() };
        assert_eq!(
            serde_json::to_value(Failure::from(error).to_wire()).unwrap(),
            json!({"type": "ImageChecksumError", "code": 500, "message": "Error verifying image checksum",
                   "details": "sha256 of image disk.qcow2 is x, not y"})
        );
        let error = hwm::Error::ImageDownloadTimeout { message: "not done after 5 seconds".into() };
        assert_eq!(
            serde_json::to_value(Failure::from(error).to_wire()).unwrap(),
            json!({"type": "ImageDownloadTimeoutError", "code": 408, "message": "Image download timeout",
                   "details": "not done after 5 seconds"})
        );
        let protected = Failure::from(hwm::Error::ProtectedDevice { message: "/dev/sda is mounted".into() });
        assert_eq!(protected.to_wire().message, "/dev/sda is mounted");
        assert_eq!(protected.fault_text(), "/dev/sda is mounted");
    }

    #[test]
    fn only_nameless_errors_take_the_name_of_the_step_kind() {
        let known = hwm::Error::DeviceNotFound { message: "none".into() };
        assert_eq!(Failure::of_step(StepKind::Deploy, "s", &known).class, ErrorClass::DeviceNotFound);
        let unknown = hwm::Error::other("opening /dev/x", std::io::Error::other("broken"));
        let failure = Failure::of_step(StepKind::Clean, "erase", &unknown);
        assert_eq!(failure.class, ErrorClass::CleaningError);
        assert_eq!(
            failure.details,
            "Unexpected exception performing clean step erase. opening /dev/x: broken"
        );
        let arguments = hwm::Error::Arguments { message: "step erase takes no arguments".into() };
        let failure = Failure::of_step(StepKind::Service, "erase", &arguments);
        assert_eq!(failure.class, ErrorClass::ServicingError);
        assert_eq!(
            failure.details,
            "Unexpected exception performing service step erase. TypeError: step erase takes no arguments"
        );
        let drive = hwm::Error::Deployment { message: "config drive: it is empty".into() };
        let expected = Failure::new(ErrorClass::DeploymentError, "config drive: it is empty");
        assert_eq!(Failure::of_step(StepKind::Service, "write_image", &drive), expected);
        assert_eq!(Failure::from(drive), expected, "the command says the same as the step");
        let execution = hwm::Error::Execution { message: "file /etc/x".into() };
        assert_eq!(
            Failure::of_step(StepKind::Deploy, "inject_files", &execution),
            Failure::new(ErrorClass::CommandExecutionError, "file /etc/x")
        );
    }

    #[test]
    fn every_class_is_serialised_as_ironic_python_agent_does() {
        let golden: Vec<CommandError> =
            serde_json::from_str(include_str!("../../tests/golden/error_classes.json")).unwrap();
        let ours: Vec<_> =
            ErrorClass::ALL.iter().map(|class| Failure::new(*class, "what happened").to_wire()).collect();
        for class in &golden {
            assert!(ours.contains(class), "{class:?}");
        }
        assert_eq!(ours.len(), golden.len());
    }
}
