//! The `flow` extension: other commands, one after the other, each awaited; the first that fails ends the flow.
//!
//! What it runs is not in the history (ironic-python-agent keeps a private one that nobody can read).

use serde_json::{Map, Value};

use super::error::{ErrorClass, Failure};
use super::executor::Handler;
use super::extensions::Extensions;
use super::parse::{Command, Mode, Refusal, invalid, known};
use super::record::Outcome;

/// Names and parameters, in order. The names are those of commands; the parameters are read when their turn comes.
pub type Flow = Vec<(String, Map<String, Value>)>;

/// Reads `flow`: a list of objects `{"extension.command": {parameters}, ...}`.
pub(super) fn parse(mut params: Map<String, Value>) -> Result<Flow, Refusal> {
    let wrong = |text: String| Refusal::Arguments { mode: Mode::Sync, text };
    let flow = params.shift_remove("flow").ok_or_else(|| wrong("missing parameter 'flow'".into()))?;
    if let Some(key) = params.keys().next() {
        return Err(wrong(format!("unexpected parameter '{key}'")));
    }
    let shape = || invalid("`flow` must be a list of objects, each {\"extension.command\": {parameters}}");
    let Value::Array(tasks) = flow else { return Err(shape()) };
    let mut flow = Vec::new();
    for task in tasks {
        let Value::Object(task) = task else { return Err(shape()) };
        for (name, params) in task {
            match known(&name) {
                Ok(_) => {}
                // Not an error of the request, as upstream sees it: a failed result, with status 200.
                Err(Refusal::UnknownExtension(extension)) => {
                    let details = format!("Extension with id {extension} not found.");
                    let failure = Failure::new(ErrorClass::RequestedObjectNotFoundError, details);
                    return Err(Refusal::BeforeItBegan(failure));
                }
                Err(refusal) => return Err(refusal),
            }
            let Value::Object(params) = params else { return Err(shape()) };
            flow.push((name, params));
        }
    }
    Ok(flow)
}

impl Extensions {
    pub(super) fn start_flow(&self, flow: Flow) -> Result<Outcome, Failure> {
        for (name, params) in flow {
            tracing::info!(command = name, "next command of the flow");
            if let Err(failure) = self.run_one(&name, params)? {
                tracing::error!(command = name, error = %failure, "a command of the flow failed");
                return Err(Failure::new(ErrorClass::CommandExecutionError, format!("{name} was failed")));
            }
        }
        Ok(Outcome::Nothing)
    }

    /// Runs one command. The outer error is one of the request (wrong parameters) and ends the flow under its own name, the
    /// inner one is the command's failure.
    fn run_one(&self, name: &str, params: Map<String, Value>) -> Result<Result<Outcome, Failure>, Failure> {
        let command = match Command::parse(name, params) {
            Ok(Command::StartFlow(_)) => {
                let details = "executing command start_flow";
                return Err(Failure::new(ErrorClass::AgentIsBusy, details));
            }
            Ok(command) => command,
            Err(Refusal::Invalid(failure)) => return Err(failure),
            Err(Refusal::BeforeItBegan(failure)) => return Ok(Err(failure)),
            Err(Refusal::Arguments { text, .. }) => {
                return Ok(Err(Failure::new(ErrorClass::CommandExecutionError, text)));
            }
            Err(Refusal::Undotted | Refusal::UnknownExtension(_) | Refusal::UnknownCommand(_)) => {
                let details = format!("Unknown command: {name}");
                return Err(Failure::new(ErrorClass::InvalidCommandError, details));
            }
        };
        match self.validate(&command).and_then(|()| self.run(command)) {
            Err(failure) if failure.class.is_invalid_content() => Err(failure),
            outcome => Ok(outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(params: Value) -> Result<Flow, Refusal> {
        parse(params.as_object().unwrap().clone())
    }

    #[test]
    fn a_flow_is_checked_before_any_of_it_runs() {
        let flow =
            read(json!({"flow": [{"standby.sync": {}, "clean.get_clean_steps": {"node": 1}}, {}]})).unwrap();
        let names: Vec<_> = flow.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["standby.sync", "clean.get_clean_steps"]);
        assert!(read(json!({"flow": []})).unwrap().is_empty());
        for (params, refusal) in [
            (json!({}), Refusal::Arguments { mode: Mode::Sync, text: "missing parameter 'flow'".into() }),
            (
                json!({"flow": [], "x": 1}),
                Refusal::Arguments { mode: Mode::Sync, text: "unexpected parameter 'x'".into() },
            ),
            (json!({"flow": [{"nodot": {}}]}), Refusal::Undotted),
            (json!({"flow": [{"clean.nosuch": {}}]}), Refusal::UnknownCommand("nosuch".into())),
            (
                json!({"flow": [{"nosuch.x": {}}]}),
                Refusal::BeforeItBegan(Failure::new(
                    ErrorClass::RequestedObjectNotFoundError,
                    "Extension with id nosuch not found.",
                )),
            ),
        ] {
            assert_eq!(read(params.clone()).unwrap_err(), refusal, "{params}");
        }
        for params in [
            json!({"flow": null}),
            json!({"flow": {}}),
            json!({"flow": [1]}),
            json!({"flow": [{"standby.sync": 1}]}),
        ] {
            assert!(matches!(read(params.clone()), Err(Refusal::Invalid(_))), "{params}");
        }
    }
}
