//! Runs commands: one mutex, the busy rule, the history, and a panic that fails its command instead of the agent.
//!
//! Source: ironic-python-agent `extensions/base.py` (agent protocol page, 1.7 to 1.10).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::{EventKind, Events};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::task::JoinError;
use uuid::Uuid;
use wire::CommandRequest;

use super::error::{ErrorClass, Failure};
use super::parse::{Command, Mode, Refusal, short_name};
use super::record::{History, Outcome, Record};
use super::sanitize;
use crate::json::Pieces;

/// Does what a command asks. Blocks; runs on a thread of its own.
pub trait Handler: Send + Sync + 'static {
    /// Checks a command before it is accepted. Returns at once and changes nothing.
    fn validate(&self, command: &Command) -> Result<(), Failure> {
        let _ = command;
        Ok(())
    }

    /// Learns from the parameters of a command what must not be in any log. Returns at once.
    fn learn_secrets(&self, params: &Map<String, Value>) {
        let _ = params;
    }

    /// Runs one command to its end.
    fn run(&self, command: Command) -> Result<Outcome, Failure>;
}

/// A request that is answered with an error instead of a result; it leaves no trace in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// HTTP status.
    pub status: u16,
    /// `faultstring`.
    pub text: String,
}

impl Fault {
    /// A text above 8 KiB is cut: it may repeat what a caller sent.
    fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: shortened(text.into(), FAULT_TEXT) }
    }
}

/// Longest text of a fault, and longest label of a command in events and the log, in bytes.
const FAULT_TEXT: usize = 8 << 10;
const LABEL: usize = 512;

fn shortened(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
        text.push_str("...");
        text.shrink_to_fit();
    }
    text
}

/// Runs commands; clones share one history.
#[derive(Clone)]
pub struct Executor(Arc<Inner>);

struct Inner {
    /// Held from the busy check to the end of a synchronous command. It is the one lock that is held across an await: that a
    /// second request waits, instead of hearing "busy", is what conductors observe.
    gate: tokio::sync::Mutex<()>,
    history: Mutex<History>,
    /// Counts ended commands, for those who wait.
    ended: watch::Sender<u64>,
    handler: Arc<dyn Handler>,
    events: Events,
    /// Called when an asynchronous command ends: a conductor looks at results only after a heartbeat.
    on_async_end: Box<dyn Fn() + Send + Sync>,
}

impl Executor {
    /// An executor with an empty history.
    pub fn new(
        handler: Arc<dyn Handler>,
        events: Events,
        on_async_end: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            gate: tokio::sync::Mutex::default(),
            history: Mutex::default(),
            ended: watch::Sender::new(0),
            handler,
            events,
            on_async_end: Box::new(on_async_end),
        }))
    }

    /// Runs a command. Returns when it is done (synchronous ones) or when it has begun. A caller that goes away does not
    /// cancel it.
    pub async fn begin(&self, request: CommandRequest) -> Result<Record, Fault> {
        let this = self.clone();
        // A task of its own: this future is dropped when the client disconnects.
        let begun = tokio::spawn(async move { this.admit_and_run(request).await }).await;
        begun.map_err(|error| Fault::new(500, panic_text(error)))?
    }

    /// The same command once it is finished.
    pub async fn finished(&self, begun: Record) -> Record {
        self.find_finished(begun.id, true).await.unwrap_or(begun)
    }

    /// The whole history as JSON, without waiting for a running command.
    pub fn list(&self) -> Pieces {
        self.history().to_json()
    }

    /// One command.
    pub fn find(&self, id: Uuid) -> Option<Record> {
        self.history().find(id).cloned()
    }

    /// One command, once it is finished if `wait` says so.
    pub async fn find_finished(&self, id: Uuid, wait: bool) -> Option<Record> {
        let mut ended = self.0.ended.subscribe();
        loop {
            let record = self.find(id)?;
            if !wait || record.status.is_finished() || ended.changed().await.is_err() {
                return Some(record);
            }
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // The history is valid after every step, so a panic under the lock spoils nothing.
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn admit_and_run(self, request: CommandRequest) -> Result<Record, Fault> {
        let CommandRequest { name, params } = request;
        self.0.handler.learn_secrets(&params);
        if tracing::enabled!(tracing::Level::DEBUG) {
            tracing::debug!(command = name, params = sanitize::shown(&params), "command received");
        }
        let _gate = self.0.gate.lock().await;
        let command = match self.admit(&name, params)? {
            Ok(command) => command,
            Err((mode, failure)) => return Ok(self.fail_at_once(&name, mode, failure)),
        };
        match command.mode() {
            Mode::Sync => self.run_sync(&name, command).await,
            Mode::Async => Ok(self.run_async(&name, command)),
        }
    }

    /// The checks, in the order of the protocol. The inner error is a failure that is recorded.
    fn admit(
        &self,
        name: &str,
        params: Map<String, Value>,
    ) -> Result<Result<Command, (Mode, Failure)>, Fault> {
        let parsed = Command::parse(name, params);
        if !matches!(parsed, Err(Refusal::Undotted))
            && let Some(busy) = self.history().busy_with()
        {
            return Err(Fault::new(409, format!("Agent is busy: executing command {busy}")));
        }
        let invalid = |details: &str| {
            Fault::new(400, Failure::new(ErrorClass::InvalidCommandError, details).fault_text())
        };
        match parsed {
            Ok(command) => match self.0.handler.validate(&command) {
                Ok(()) => Ok(Ok(command)),
                Err(failure) if failure.class.is_invalid_content() => {
                    Err(Fault::new(400, failure.fault_text()))
                }
                Err(failure) => Ok(Err((Mode::Sync, failure))), // before it began: recorded like a synchronous one
            },
            Err(Refusal::Undotted) => Err(invalid("Command name must be of the form <extension>.<name>")),
            Err(Refusal::UnknownExtension(extension)) => {
                Err(Fault::new(404, format!("Not found: Extension with id {extension} not found.")))
            }
            Err(Refusal::UnknownCommand(command)) => Err(invalid(&format!("Unknown command: {command}"))),
            Err(Refusal::Invalid(failure)) => Err(Fault::new(400, failure.fault_text())),
            Err(Refusal::BeforeItBegan(failure)) => Ok(Err((Mode::Sync, failure))),
            Err(Refusal::Arguments { mode: Mode::Sync, text }) => {
                Ok(Err((Mode::Sync, Failure::new(ErrorClass::TypeError, text))))
            }
            Err(Refusal::Arguments { mode: Mode::Async, text }) => {
                Ok(Err((Mode::Async, Failure::new(ErrorClass::CommandExecutionError, text))))
            }
        }
    }

    fn fail_at_once(&self, name: &str, mode: Mode, failure: Failure) -> Record {
        tracing::warn!(command = name, error = %failure, "command refused");
        let recorded = match mode {
            Mode::Sync => name, // as ironic-python-agent: the full name on a failed synchronous command
            Mode::Async => short_name(name),
        };
        let record = Record::ended(Uuid::new_v4(), recorded, mode, Err(failure));
        self.history().add(record.clone());
        if mode == Mode::Async {
            (self.0.on_async_end)();
        }
        record
    }

    async fn run_sync(&self, name: &str, command: Command) -> Result<Record, Fault> {
        let id = Uuid::new_v4();
        let label = self.started(id, name, &command);
        let outcome = self.run_blocking(command).await;
        self.report(id, label, &outcome);
        let recorded = match &outcome {
            Err(failure) if failure.class.is_invalid_content() => {
                return Err(Fault::new(400, failure.fault_text()));
            }
            Err(_) => name,
            Ok(_) => short_name(name),
        };
        let record = Record::ended(id, recorded, Mode::Sync, outcome);
        self.history().add(record.clone());
        Ok(record)
    }

    fn run_async(&self, name: &str, command: Command) -> Record {
        let short = short_name(name).to_owned();
        let begun = Record::begun(&short);
        self.history().add(begun.clone());
        let label = self.started(begun.id, name, &command);
        let (this, id) = (self.clone(), begun.id);
        // Ends with the command; its result goes to the history, so nobody has to join it.
        tokio::spawn(async move {
            let outcome = this.run_blocking(command).await;
            this.report(id, label, &outcome);
            this.history().finish(Record::ended(id, &short, Mode::Async, outcome));
            this.0.ended.send_modify(|count| *count = count.wrapping_add(1));
            (this.0.on_async_end)();
        });
        begun
    }

    async fn run_blocking(&self, command: Command) -> Result<Outcome, Failure> {
        let handler = self.0.handler.clone();
        match tokio::task::spawn_blocking(move || handler.run(command)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Failure::new(ErrorClass::CommandExecutionError, panic_text(error))),
        }
    }

    fn started(&self, id: Uuid, name: &str, command: &Command) -> String {
        let label = match command.subject() {
            Some(subject) => format!("{name} {subject}"),
            None => name.to_owned(),
        };
        let label = shortened(label, LABEL);
        tracing::info!(command = label, %id, "command started");
        self.0.events.emit(EventKind::CommandStarted { id: id.to_string(), name: label.clone() });
        label
    }

    fn report(&self, id: Uuid, name: String, outcome: &Result<Outcome, Failure>) {
        let message = outcome.as_ref().err().map(ToString::to_string);
        match &message {
            None => tracing::info!(command = name, %id, "command succeeded"),
            Some(error) => tracing::error!(command = name, %id, error, "command failed"),
        }
        let succeeded = outcome.is_ok();
        self.0.events.emit(EventKind::CommandFinished { id: id.to_string(), name, succeeded, message });
    }
}

fn panic_text(error: JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "the command was cancelled".into() };
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    format!("the command panicked: {}", text.as_deref().unwrap_or("no text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;
    use wire::{CommandList, CommandResult, CommandStatus};

    /// Async commands wait for word on a channel; sync ones answer at once, or as their kind asks.
    struct Scripted {
        gate: Mutex<mpsc::Receiver<Result<Outcome, Failure>>>,
    }

    impl Handler for Scripted {
        fn run(&self, command: Command) -> Result<Outcome, Failure> {
            match command {
                Command::PowerOff | Command::RunImage => {
                    let gate = self.gate.lock().unwrap();
                    gate.recv_timeout(Duration::from_secs(20))
                        .expect("the test forgot to release the command")
                }
                Command::GetHardwareInfo => panic!("disk on fire"),
                Command::GetPartitionUuids => {
                    Err(Failure::new(ErrorClass::InvalidCommandParamsError, "no uuid"))
                }
                Command::CollectSystemLogs => Err(Failure::new(ErrorClass::DeviceNotFound, "none")),
                _ => Ok(Outcome::Text("flushed".into())),
            }
        }
    }

    type Release = mpsc::SyncSender<Result<Outcome, Failure>>;

    fn executor() -> (Executor, Release, Arc<AtomicUsize>) {
        let (release, gate) = mpsc::sync_channel(8);
        let forced = Arc::new(AtomicUsize::new(0));
        let counter = forced.clone();
        let handler = Arc::new(Scripted { gate: Mutex::new(gate) });
        let executor = Executor::new(handler, Events::default(), move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        (executor, release, forced)
    }

    async fn run(executor: &Executor, name: &str, wait: bool) -> Result<Record, Fault> {
        run_with(executor, name, json!({}), wait).await
    }

    async fn run_with(executor: &Executor, name: &str, params: Value, wait: bool) -> Result<Record, Fault> {
        let params = params.as_object().unwrap().clone();
        let begun = executor.begin(CommandRequest { name: name.into(), params }).await?;
        Ok(if wait { executor.finished(begun).await } else { begun })
    }

    fn list(executor: &Executor) -> Vec<CommandResult> {
        serde_json::from_slice::<CommandList>(&executor.list().to_vec()).unwrap().commands
    }

    fn result(record: &Record) -> Option<Value> {
        serde_json::from_slice::<CommandResult>(&record.json().to_vec()).unwrap().command_result
    }

    fn names(executor: &Executor) -> Vec<String> {
        list(executor).into_iter().map(|command| command.command_name).collect()
    }

    #[tokio::test]
    async fn a_running_command_makes_every_other_busy_but_lists_are_served() {
        let (executor, release, forced) = executor();
        let begun = run(&executor, "standby.power_off", false).await.unwrap();
        assert_eq!(begun.status, CommandStatus::Running);
        let busy = Fault::new(409, "Agent is busy: executing command power_off");
        for name in ["standby.sync", "log.collect_system_logs", "nosuch.x", "clean.nosuch"] {
            assert_eq!(run(&executor, name, false).await.unwrap_err(), busy, "{name}");
        }
        assert_eq!(run(&executor, "undotted", false).await.unwrap_err().status, 400);
        assert_eq!(names(&executor), ["power_off"]);
        assert_eq!(forced.load(Ordering::SeqCst), 0);

        release.send(Ok(Outcome::Text("bye".into()))).unwrap();
        let done = executor.find_finished(begun.id, true).await.unwrap();
        assert_eq!(done.status, CommandStatus::Succeeded);
        assert_eq!(result(&done), Some(json!({"result": "power_off: bye"})));
        let flushed = run(&executor, "standby.sync", false).await.unwrap();
        assert_eq!(result(&flushed), Some(json!({"result": "flushed"})));
        assert_eq!(names(&executor), ["power_off", "sync"]);
        while forced.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(forced.load(Ordering::SeqCst), 1, "synchronous commands force no heartbeat");
    }

    #[tokio::test]
    async fn waiting_returns_the_finished_result_and_a_lost_client_cancels_nothing() {
        let (executor, release, _) = executor();
        release.send(Err(Failure::new(ErrorClass::SystemRebootError, "no"))).unwrap();
        let failed = run(&executor, "standby.power_off", true).await.unwrap();
        assert_eq!(failed.error.unwrap().kind, "SystemRebootError");

        let lost = run(&executor, "standby.run_image", true);
        assert!(tokio::time::timeout(Duration::from_millis(50), lost).await.is_err());
        release.send(Ok(Outcome::Nothing)).unwrap();
        let id = list(&executor).last().unwrap().id;
        let result = executor.find_finished(id, true).await.unwrap();
        assert_eq!(result.status, CommandStatus::Succeeded);
    }

    #[tokio::test]
    async fn a_panic_fails_its_command_and_the_agent_goes_on() {
        let (executor, _release, _) = executor();
        let result = run(&executor, "poll.get_hardware_info", true).await.unwrap();
        let error = result.error.unwrap();
        assert_eq!((error.kind.as_str(), error.code), ("CommandExecutionError", 500));
        assert!(error.details.contains("disk on fire"), "{}", error.details);
        assert_eq!(result.name, "poll.get_hardware_info");
        assert!(run(&executor, "standby.sync", false).await.is_ok());
    }

    #[tokio::test]
    async fn failures_are_recorded_or_not_as_the_protocol_says() {
        let (executor, _release, forced) = executor();
        let fault = run(&executor, "standby.get_partition_uuids", false).await.unwrap_err();
        assert_eq!(fault, Fault::new(400, "Invalid command parameters: no uuid"));
        let unknown = run(&executor, "clean.nosuch", false).await.unwrap_err();
        assert_eq!(unknown, Fault::new(400, "Invalid command: Unknown command: nosuch"));
        let missing = run(&executor, "nosuch.x", false).await.unwrap_err();
        assert_eq!(missing, Fault::new(404, "Not found: Extension with id nosuch not found."));
        assert!(names(&executor).is_empty());

        assert!(run(&executor, "log.collect_system_logs", false).await.is_ok());
        let bad = run_with(&executor, "standby.sync", json!({"x": 1}), false).await.unwrap();
        assert_eq!(bad.error.unwrap().kind, "TypeError");
        let bad = run_with(&executor, "standby.power_off", json!({"x": 1}), false).await.unwrap();
        assert_eq!(bad.error.unwrap().kind, "CommandExecutionError");
        assert_eq!(names(&executor), ["log.collect_system_logs", "standby.sync", "power_off"]);
        assert_eq!(forced.load(Ordering::SeqCst), 1);
    }
}
