//! The command API: what a conductor posts to `/v1/commands/` and what it gets back.
//! Source: ironic-python-agent `extensions/base.py`, `api/app.py`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The body of `POST /v1/commands/`. Extra top-level keys are ignored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommandRequest {
    /// `<extension>.<command>`, split at the first dot.
    pub name: String,
    /// The command's parameters.
    pub params: Map<String, Value>,
}

/// One command's record. Exactly five keys, in this order: a conductor reads all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandResult {
    /// Made by the agent, one a command.
    pub id: Uuid,
    /// The name without its extension (`execute_deploy_step`).
    pub command_name: String,
    /// Where the command stands.
    pub command_status: CommandStatus,
    /// Null, or an object; never a string (the conductor calls `.get("type")` on it).
    pub command_error: Option<CommandError>,
    /// Null, an object or a list; never a bare string.
    pub command_result: Option<Value>,
}

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandStatus {
    /// Not finished.
    #[serde(rename = "RUNNING")]
    Running,
    /// Finished well.
    #[serde(rename = "SUCCEEDED")]
    Succeeded,
    /// Finished with an error.
    #[serde(rename = "FAILED")]
    Failed,
    /// Hardware managers changed between listing and executing steps. The text says "clean" for every kind of step.
    #[serde(rename = "CLEAN_VERSION_MISMATCH", alias = "VERSION_MISMATCH")]
    VersionMismatch,
}

impl CommandStatus {
    /// Whether the command has ended, in whatever way.
    pub fn is_finished(self) -> bool {
        match self {
            CommandStatus::Running => false,
            CommandStatus::Succeeded | CommandStatus::Failed | CommandStatus::VersionMismatch => true,
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandError {
    /// Class name of the error (`ImageChecksumError`). `TypeError` makes a conductor think the agent is too old.
    #[serde(rename = "type")]
    pub kind: String,
    /// An HTTP-like status.
    pub code: u16,
    /// The fixed text of the class.
    pub message: String,
    /// What happened: this is what the operator reads.
    pub details: String,
}

/// The body of `GET /v1/commands/`, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandList {
    /// Every command since the agent started.
    pub commands: Vec<CommandResult>,
}
