//! The history of commands: in order, from first to last, for the life of the process.
//!
//! A conductor looks at the last entry, and takes an empty list for a fresh boot; so nothing is preloaded and nothing is ever
//! dropped (agent protocol page, 1.10).

use uuid::Uuid;
use wire::{CommandError, CommandList, CommandResult, CommandStatus};

use super::error::Failure;
use super::parse::Mode;

/// What a command that succeeded yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing.
    Nothing,
    /// A text: wrapped in an object on the wire.
    Text(String),
    /// JSON.
    Json(serde_json::Value),
}

/// Every command so far.
#[derive(Debug, Default)]
pub struct History {
    list: CommandList,
}

impl History {
    /// The whole list.
    pub fn list(&self) -> &CommandList {
        &self.list
    }

    /// One entry.
    pub fn find(&self, id: &str) -> Option<&CommandResult> {
        self.list.commands.iter().rev().find(|entry| entry.id.to_string() == id)
    }

    /// The name of the last command, if it is not finished: the agent is busy with it.
    pub fn busy_with(&self) -> Option<&str> {
        let last = self.list.commands.last().filter(|entry| !entry.command_status.is_finished())?;
        Some(&last.command_name)
    }

    /// Adds a command that has begun.
    pub fn begin(&mut self, name: &str) -> CommandResult {
        let entry = CommandResult {
            id: Uuid::new_v4(),
            command_name: name.into(),
            command_status: CommandStatus::Running,
            command_error: None,
            command_result: None,
        };
        self.list.commands.push(entry.clone());
        entry
    }

    /// Adds a finished command.
    pub fn add(&mut self, entry: CommandResult) {
        self.list.commands.push(entry);
    }

    /// Ends a running command.
    pub fn finish(&mut self, ended: CommandResult) {
        if let Some(entry) = self.list.commands.iter_mut().rev().find(|entry| entry.id == ended.id) {
            *entry = ended;
        }
    }
}

/// The result object of a command that has ended.
pub fn ended(id: Uuid, name: &str, mode: Mode, outcome: Result<Outcome, Failure>) -> CommandResult {
    let (status, error, result): (_, Option<CommandError>, _) = match outcome {
        Ok(outcome) => (CommandStatus::Succeeded, None, to_wire(outcome, name, mode)),
        Err(failure) => (failure.status(), Some(failure.to_wire()), None),
    };
    CommandResult {
        id,
        command_name: name.into(),
        command_status: status,
        command_error: error,
        command_result: result,
    }
}

/// `command_result`: null, an object or a list. A text of an async command carries the command's name.
fn to_wire(outcome: Outcome, name: &str, mode: Mode) -> Option<serde_json::Value> {
    use serde_json::{Value, json};
    match (outcome, mode) {
        (Outcome::Nothing | Outcome::Json(Value::Null), _) => None,
        (Outcome::Text(text) | Outcome::Json(Value::String(text)), Mode::Async) => {
            Some(json!({ "result": format!("{name}: {text}") }))
        }
        (Outcome::Text(text) | Outcome::Json(Value::String(text)), Mode::Sync) => {
            Some(json!({ "result": text }))
        }
        (Outcome::Json(value @ (Value::Object(_) | Value::Array(_))), _) => Some(value),
        (Outcome::Json(scalar @ (Value::Bool(_) | Value::Number(_))), _) => Some(json!({ "result": scalar })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::error::ErrorClass;
    use serde_json::json;

    #[test]
    fn results_have_exactly_five_keys_in_the_order_of_the_protocol() {
        let id = Uuid::nil();
        let golden =
            |mode, outcome| serde_json::to_string(&ended(id, "prepare_image", mode, outcome)).unwrap();
        let head = r#"{"id":"00000000-0000-0000-0000-000000000000","command_name":"prepare_image","command_status":"#;
        assert_eq!(
            golden(Mode::Async, Ok(Outcome::Text("done".into()))),
            format!(
                r#"{head}"SUCCEEDED","command_error":null,"command_result":{{"result":"prepare_image: done"}}}}"#
            )
        );
        assert_eq!(
            golden(Mode::Sync, Ok(Outcome::Text("done".into()))),
            format!(r#"{head}"SUCCEEDED","command_error":null,"command_result":{{"result":"done"}}}}"#)
        );
        assert_eq!(
            golden(Mode::Sync, Ok(Outcome::Nothing)),
            format!(r#"{head}"SUCCEEDED","command_error":null,"command_result":null}}"#)
        );
        assert_eq!(
            golden(Mode::Async, Err(Failure::new(ErrorClass::VersionMismatch, "d"))),
            format!(
                r#"{head}"CLEAN_VERSION_MISMATCH","command_error":{{"type":"VersionMismatch","code":409,"message":"Hardware managers version mismatch, reload agent with correct version","details":"d"}},"command_result":null}}"#
            )
        );
        assert_eq!(to_wire(Outcome::Json(json!(7)), "x", Mode::Sync), Some(json!({"result": 7})));
    }

    #[test]
    fn only_an_unfinished_last_entry_makes_the_agent_busy() {
        let mut history = History::default();
        assert_eq!(history.busy_with(), None);
        let running = history.begin("execute_clean_step");
        assert_eq!(history.busy_with(), Some("execute_clean_step"));
        history.finish(ended(running.id, "execute_clean_step", Mode::Async, Ok(Outcome::Nothing)));
        assert_eq!(history.busy_with(), None);
        assert_eq!(history.find(&running.id.to_string()).unwrap().command_status, CommandStatus::Succeeded);
        assert!(history.find("nosuch").is_none());
    }
}
