//! The `clean`, `deploy` and `service` extensions: list steps, run a step.

use hwm::StepCall;
use serde_json::{Map, Value, json};
use wire::StepKind;

use super::error::{ErrorClass, Failure};
use super::extensions::Extensions;
use super::parse::ExecuteStep;
use super::record::Outcome;
use crate::json::Pieces;

impl Extensions {
    pub(super) fn get_steps(&self, kind: StepKind, node: Value) -> Result<Outcome, Failure> {
        let context = self.remember(node)?;
        let list = self.machine.registry.steps(kind, &context)?;
        let value = list
            .to_value()
            .map_err(|error| Failure::new(ErrorClass::CommandExecutionError, error.to_string()))?;
        Ok(Outcome::Json(value))
    }

    pub(super) fn execute_step(&self, call: ExecuteStep) -> Result<Outcome, Failure> {
        let ExecuteStep { kind, mut step, node, ports, version, extra } = call;
        let context = self.remember(node)?;
        self.check_versions(&version)?;
        let Some(name) = step.get("step").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return Err(Failure::new(ErrorClass::CommandExecutionError, "the step has no name in `step`"));
        };
        let name = name.to_owned();
        // A config drive among the arguments is moved to the call and back: it may take a good part of the memory.
        let args = step.get_mut("args").map(Value::take);
        let own: Option<Vec<String>> =
            args.as_ref().and_then(Value::as_object).map(|args| args.keys().cloned().collect());
        let arguments = arguments(extra, args)?;
        let mut call = StepCall { kind, step: name, arguments, ports };
        let result = self.machine.registry.run_step(&call, &context);
        let result = result.map_err(|error| Failure::of_step(kind, &call.step, &error))?;
        if let (Some(own), Some(place)) = (own, step.get_mut("args")) {
            let back = own.into_iter().filter_map(|key| call.arguments.shift_remove_entry(&key));
            *place = Value::Object(back.collect());
        }
        drop(call);
        Ok(Outcome::Step { kind, result, step: Pieces::of(&step) })
    }

    /// Compares whole maps; null is a first run.
    fn check_versions(&self, theirs: &Value) -> Result<(), Failure> {
        let ours = self.machine.registry.versions();
        let equal = theirs.as_object().is_some_and(|theirs| {
            theirs.len() == ours.len()
                && ours
                    .iter()
                    .all(|(name, version)| theirs.get(name).and_then(Value::as_str) == Some(version.as_str()))
        });
        if theirs.is_null() || equal {
            return Ok(());
        }
        let details = format!("the steps were listed for {theirs}, this agent has {}", json!(ours));
        Err(Failure::new(ErrorClass::VersionMismatch, details))
    }
}

/// The call's extra parameters, overlaid by the step's own arguments.
fn arguments(extra: Map<String, Value>, args: Option<Value>) -> Result<Map<String, Value>, Failure> {
    let mut merged = extra;
    match args {
        None | Some(Value::Null) => {}
        Some(Value::Object(args)) => merged.extend(args),
        Some(_) => {
            let details = "the step's `args` must be an object";
            return Err(Failure::new(ErrorClass::InvalidCommandParamsError, details));
        }
    }
    Ok(merged)
}
