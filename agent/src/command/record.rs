//! The history of commands: in order, from first to last, for the life of the process.
//!
//! A conductor looks at the last entry, and takes an empty list for a fresh boot; so nothing is preloaded, and the last entry is
//! always whole (agent protocol page, 1.10). Results are kept as the JSON text that replies are made of: an echoed step may hold
//! a config drive, and is in memory once. Earlier entries are bounded together: their long results go first, then the oldest of
//! them.

use serde_json::{Value, json};
use uuid::Uuid;
use wire::{CommandError, CommandResult, CommandStatus, StepKind};

use super::error::Failure;
use super::parse::Mode;
use crate::json::{Assembly, Pieces};

/// What a command that succeeded yields.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Nothing.
    Nothing,
    /// A text: wrapped in an object on the wire.
    Text(String),
    /// JSON.
    Json(Value),
    /// What a step yields, with the whole step as it was received: without that echo a conductor waits for ever.
    Step {
        /// Of which kind.
        kind: StepKind,
        /// What it yielded.
        result: Value,
        /// The step, as JSON text.
        step: Pieces,
    },
}

/// Bytes that all records but the last may take together.
const EARLIER: usize = 16 << 20;
/// A result of more bytes goes before any record does.
const LONG: usize = 64 << 10;

/// One command of the history.
#[derive(Clone, Debug)]
pub struct Record {
    /// Made here, one a command.
    pub id: Uuid,
    /// The short name; the full one where a synchronous command failed.
    pub name: String,
    /// Where it stands.
    pub status: CommandStatus,
    /// Why it failed.
    pub error: Option<CommandError>,
    /// The object on the wire: a [`CommandResult`].
    json: Pieces,
}

impl Record {
    /// A command that has begun.
    pub fn begun(name: &str) -> Self {
        Self::new(Uuid::new_v4(), name, CommandStatus::Running, None, None)
    }

    /// A command that has ended.
    pub fn ended(id: Uuid, name: &str, mode: Mode, outcome: Result<Outcome, Failure>) -> Self {
        match outcome {
            Ok(outcome) => {
                Self::new(id, name, CommandStatus::Succeeded, None, result_text(outcome, name, mode))
            }
            Err(failure) => Self::new(id, name, failure.status(), Some(failure.to_wire()), None),
        }
    }

    fn new(
        id: Uuid,
        name: &str,
        status: CommandStatus,
        error: Option<CommandError>,
        result: Option<Pieces>,
    ) -> Self {
        let without_result = CommandResult {
            id,
            command_name: name.into(),
            command_status: status,
            command_error: error.clone(),
            command_result: None,
        };
        let mut json = Pieces::of(&without_result);
        // `command_result` is the last key: whatever it holds takes the place of the null.
        if let (Some(result), Some(head)) = (result, json.to_vec().strip_suffix(b"null}")) {
            let mut assembly = Assembly::default();
            assembly.text(head);
            assembly.pieces(&result);
            assembly.text(b"}");
            json = assembly.finish();
        }
        Self { id, name: name.into(), status, error, json }
    }

    /// The object on the wire: a [`CommandResult`].
    pub fn json(&self) -> &Pieces {
        &self.json
    }

    /// The same without its result.
    fn without_result(&self) -> Self {
        Self::new(self.id, &self.name, self.status, self.error.clone(), None)
    }
}

/// Every command so far.
#[derive(Debug, Default)]
pub struct History {
    records: Vec<Record>,
}

impl History {
    /// The object on the wire: a [`wire::CommandList`].
    pub fn to_json(&self) -> Pieces {
        let mut assembly = Assembly::default();
        assembly.text(br#"{"commands":["#);
        for (at, record) in self.records.iter().enumerate() {
            if at > 0 {
                assembly.text(b",");
            }
            assembly.pieces(&record.json);
        }
        assembly.text(b"]}");
        assembly.finish()
    }

    /// One command.
    pub fn find(&self, id: Uuid) -> Option<&Record> {
        self.records.iter().rev().find(|record| record.id == id)
    }

    /// The name of the last command, if it is not finished: the agent is busy with it.
    pub fn busy_with(&self) -> Option<&str> {
        let last = self.records.last().filter(|record| !record.status.is_finished())?;
        Some(&last.name)
    }

    /// Adds a command. Earlier ones may lose their results, or go, where they take too much memory.
    pub fn add(&mut self, record: Record) {
        self.bound();
        self.records.push(record);
    }

    /// Holds what is there to [`EARLIER`] bytes.
    fn bound(&mut self) {
        let mut total: usize = self.records.iter().map(|record| record.json.len()).sum();
        while total > EARLIER {
            let Some(record) = self.records.iter_mut().find(|record| record.json.len() > LONG) else { break };
            let bare = record.without_result();
            tracing::debug!(
                command = record.name,
                bytes = record.json.len(),
                "an earlier result is forgotten"
            );
            total = total.saturating_sub(record.json.len()).saturating_add(bare.json.len());
            *record = bare;
        }
        let mut gone = 0;
        for record in &self.records {
            if total <= EARLIER {
                break;
            }
            total = total.saturating_sub(record.json.len());
            gone += 1;
        }
        self.records.drain(..gone);
    }

    /// Ends a running command.
    pub fn finish(&mut self, ended: Record) {
        if let Some(record) = self.records.iter_mut().rev().find(|record| record.id == ended.id) {
            *record = ended;
        }
    }
}

/// `command_result`: null, an object or a list. A text of an async command carries the command's name.
fn result_text(outcome: Outcome, name: &str, mode: Mode) -> Option<Pieces> {
    let value = match outcome {
        Outcome::Nothing | Outcome::Json(Value::Null) => return None,
        Outcome::Text(text) | Outcome::Json(Value::String(text)) => match mode {
            Mode::Async => json!({ "result": format!("{name}: {text}") }),
            Mode::Sync => json!({ "result": text }),
        },
        Outcome::Json(value @ (Value::Object(_) | Value::Array(_))) => value,
        Outcome::Json(scalar @ (Value::Bool(_) | Value::Number(_))) => json!({ "result": scalar }),
        Outcome::Step { kind, result, step } => {
            let mut assembly = Assembly::default();
            assembly.text(format!(r#"{{"{}_result":"#, kind.name()).as_bytes());
            assembly.pieces(&Pieces::of(&result));
            assembly.text(format!(r#","{}_step":"#, kind.name()).as_bytes());
            assembly.pieces(&step);
            assembly.text(b"}");
            return Some(assembly.finish());
        }
    };
    Some(Pieces::of(&value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::error::ErrorClass;

    fn text(pieces: &Pieces) -> String {
        String::from_utf8(pieces.to_vec()).unwrap()
    }

    #[test]
    fn results_have_exactly_five_keys_in_the_order_of_the_protocol() {
        let id = Uuid::nil();
        let golden = |mode, outcome| text(Record::ended(id, "prepare_image", mode, outcome).json());
        let head = r#"{"id":"00000000-0000-0000-0000-000000000000","command_name":"prepare_image","command_status":"#;
        let succeeded =
            |result: &str| format!(r#"{head}"SUCCEEDED","command_error":null,"command_result":{result}}}"#);
        assert_eq!(
            golden(Mode::Async, Ok(Outcome::Text("done".into()))),
            succeeded(r#"{"result":"prepare_image: done"}"#)
        );
        assert_eq!(golden(Mode::Sync, Ok(Outcome::Text("done".into()))), succeeded(r#"{"result":"done"}"#));
        assert_eq!(golden(Mode::Sync, Ok(Outcome::Nothing)), succeeded("null"));
        assert_eq!(golden(Mode::Sync, Ok(Outcome::Json(json!(7)))), succeeded(r#"{"result":7}"#));
        assert_eq!(
            golden(Mode::Async, Err(Failure::new(ErrorClass::VersionMismatch, "d"))),
            format!(
                r#"{head}"CLEAN_VERSION_MISMATCH","command_error":{{"type":"VersionMismatch","code":409,"message":"Hardware managers version mismatch, reload agent with correct version","details":"d"}},"command_result":null}}"#
            )
        );
    }

    #[test]
    fn a_step_is_echoed_and_its_text_is_shared_by_every_reply() {
        let step =
            Pieces::of(&json!({"step": "write_image", "args": {"configdrive": "H4sI".repeat(20_000)}}));
        let outcome = Outcome::Step { kind: StepKind::Deploy, result: Value::Null, step: step.clone() };
        let mut history = History::default();
        history.add(Record::ended(Uuid::nil(), "execute_deploy_step", Mode::Async, Ok(outcome)));
        let pointer = step.into_inner().first().unwrap().as_ptr();
        for reply in [history.to_json(), history.find(Uuid::nil()).unwrap().json().clone()] {
            let value: Value = serde_json::from_slice(&reply.to_vec()).unwrap();
            let result = value.pointer("/commands/0").unwrap_or(&value);
            assert_eq!(result["command_result"]["deploy_result"], Value::Null);
            assert_eq!(result["command_result"]["deploy_step"]["step"], "write_image");
            assert!(reply.into_inner().iter().any(|piece| piece.as_ptr() == pointer));
        }
    }

    #[test]
    fn earlier_results_give_their_memory_back_and_the_last_is_whole() {
        let drive = "H4sI".repeat(6 << 20);
        let step = Pieces::of(&json!({"step": "write_image", "args": {"configdrive": drive}}));
        let outcome = Outcome::Step { kind: StepKind::Deploy, result: Value::Null, step };
        let mut history = History::default();
        history.add(Record::ended(Uuid::nil(), "execute_deploy_step", Mode::Async, Ok(outcome)));
        assert!(history.to_json().len() > 24 << 20);
        history.add(Record::begun("install_bootloader"));
        let list: Value = serde_json::from_slice(&history.to_json().to_vec()).unwrap();
        assert_eq!(list["commands"][0]["command_status"], "SUCCEEDED");
        assert_eq!(list["commands"][0]["command_name"], "execute_deploy_step");
        assert_eq!(list["commands"][0]["command_result"], Value::Null);
        assert_eq!(list["commands"][1]["command_status"], "RUNNING");
    }

    #[test]
    fn refused_commands_are_not_kept_whole_and_the_history_is_bounded() {
        let mut history = History::default();
        let refused = || {
            let text = format!("unexpected parameter '{}'", "x".repeat(1 << 20));
            let failure = Failure::new(ErrorClass::TypeError, text);
            Record::ended(Uuid::new_v4(), "standby.sync", Mode::Sync, Err(failure))
        };
        let first = refused();
        assert!(first.json().len() < 20 << 10, "{}", first.json().len());
        let newest = (0..4000).fold(first, |_, _| {
            let record = refused();
            history.add(record.clone());
            record
        });
        assert!(history.to_json().len() < EARLIER + (64 << 10), "{}", history.to_json().len());
        assert!(history.find(newest.id).is_some());
    }

    #[test]
    fn only_an_unfinished_last_entry_makes_the_agent_busy() {
        let mut history = History::default();
        assert_eq!(text(&history.to_json()), r#"{"commands":[]}"#);
        assert_eq!(history.busy_with(), None);
        let running = Record::begun("execute_clean_step");
        history.add(running.clone());
        assert_eq!(history.busy_with(), Some("execute_clean_step"));
        history.finish(Record::ended(running.id, "execute_clean_step", Mode::Async, Ok(Outcome::Nothing)));
        assert_eq!(history.busy_with(), None);
        assert_eq!(history.find(running.id).unwrap().status, CommandStatus::Succeeded);
        assert!(history.find(Uuid::nil()).is_none());
    }
}
