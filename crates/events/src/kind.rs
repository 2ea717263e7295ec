//! The event vocabulary, shared by the agent that makes events and the controller that shows them.

use serde::{Deserialize, Serialize};

/// One event, numbered and dated by the buffer that took it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the stream, from 1, without gaps. A reader that sees a gap has missed events.
    pub seq: u64,
    /// Unix time in seconds.
    pub at: f64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What the event endpoint answers: the events after a given number, and the number to ask for next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventPage {
    /// Events with `seq` greater than the one asked for, oldest first.
    pub events: Vec<Event>,
    /// Pass this as `after` in the next request.
    pub next: u64,
}

/// What happened. `Unknown` keeps an old reader working with a newer writer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The agent came up.
    AgentStarted {
        /// Version of the agent program.
        version: String,
    },
    /// Something an operator wants to read that is no failure.
    Notice {
        /// One line of text.
        message: String,
    },
    /// A command of the conductor was accepted and started.
    CommandStarted {
        /// Id of the command's result.
        id: String,
        /// Dotted command name, with the step where there is one (`deploy.execute_deploy_step write_image`).
        name: String,
    },
    /// A command ended.
    CommandFinished {
        /// Id of the command's result.
        id: String,
        /// As in `CommandStarted`.
        name: String,
        /// Whether it succeeded.
        succeeded: bool,
        /// The failure in words; absent on success.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A phase of a longer job began.
    PhaseStarted {
        /// Which one.
        phase: Phase,
        /// What it works on: a URL without credentials, a device.
        subject: String,
    },
    /// How far a phase has come. Emitted a few times a second at the most.
    Progress {
        /// Which phase.
        phase: Phase,
        /// Bytes done: published image bytes received for `Write`, bytes read back for `Verify`.
        done: u64,
        /// Bytes expected, where known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// Bytes of the disk covered so far (data and zeroes), where it differs in meaning from `done`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        written: Option<u64>,
    },
    /// A phase ended well.
    PhaseFinished {
        /// Which one.
        phase: Phase,
        /// How long it took, in seconds.
        seconds: f64,
        /// Bytes it moved, where that means something.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    /// Something failed and is tried again.
    Retrying {
        /// Which phase.
        phase: Phase,
        /// What failed.
        reason: String,
        /// The coming attempt, from 2.
        attempt: u32,
        /// Attempts in all; 0 where time is the limit.
        attempts: u32,
        /// Seconds until it starts.
        delay_seconds: f64,
        /// Byte from which it goes on; 0 is from the start.
        resume_at: u64,
    },
    /// A phase failed for good.
    Failed {
        /// Which phase.
        phase: Phase,
        /// The failure in words, with its causes and what to do.
        message: String,
    },
    /// A kind this reader does not know.
    #[serde(other)]
    Unknown,
}

/// Longest text in an event, in bytes. A stream keeps a number of events, and each of them may hold text from outside.
pub(crate) const TEXT_LIMIT: usize = 8 << 10;

impl EventKind {
    /// The same event with texts of at most [`TEXT_LIMIT`] bytes.
    pub(crate) fn bounded(mut self) -> Self {
        match &mut self {
            Self::AgentStarted { version: text }
            | Self::Notice { message: text }
            | Self::PhaseStarted { subject: text, .. }
            | Self::Retrying { reason: text, .. }
            | Self::Failed { message: text, .. } => cut(text),
            Self::CommandStarted { id, name } => {
                cut(id);
                cut(name);
            }
            Self::CommandFinished { id, name, message, .. } => {
                cut(id);
                cut(name);
                if let Some(message) = message {
                    cut(message);
                }
            }
            Self::Progress { .. } | Self::PhaseFinished { .. } | Self::Unknown => {}
        }
        self
    }
}

/// Leaves the start of a text that is too long, and says that there was more.
fn cut(text: &mut String) {
    if text.len() > TEXT_LIMIT {
        text.truncate(text.floor_char_boundary(TEXT_LIMIT - 3));
        text.push_str("...");
        text.shrink_to_fit();
    }
}

/// The phases of a deployment, in the order in which they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Bringing up the network.
    Network,
    /// Collecting what the machine is made of, and telling it.
    Inspection,
    /// Asking the controller who this machine is.
    Lookup,
    /// Opening the image source and learning its size and shape.
    Open,
    /// Streaming the image onto the disk (download, digest, decode and write overlap).
    Write,
    /// Comparing the digest, or reading back.
    Verify,
    /// Writing the held-back head: from here on the disk can boot.
    Commit,
    /// Writing the config drive.
    ConfigDrive,
    /// Making firmware boot entries.
    BootEntry,
    /// Erasing metadata or whole devices.
    Erase,
    /// Flushing, powering off or rebooting.
    Finish,
    /// A phase this reader does not know.
    #[serde(other)]
    Unknown,
}

impl Phase {
    /// The name as it stands on the wire and as a person reads it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Network => "network",
            Phase::Inspection => "inspection",
            Phase::Lookup => "lookup",
            Phase::Open => "open",
            Phase::Write => "write",
            Phase::Verify => "verify",
            Phase::Commit => "commit",
            Phase::ConfigDrive => "config_drive",
            Phase::BootEntry => "boot_entry",
            Phase::Erase => "erase",
            Phase::Finish => "finish",
            Phase::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name().replace('_', " "))
    }
}
