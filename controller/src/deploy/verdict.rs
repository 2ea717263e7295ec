//! What an agent's command list says about the step at work. One pure function; source: Ironic
//! `drivers/modules/agent_base.py` (agent protocol page, 8.4), with one addition: a list that still ends in the step before
//! this one means that this one was not sent yet.

use serde_json::{Map, Value};
use wire::{CommandResult, CommandStatus, StepKind};

use crate::agent_client::failure_text;

/// What to do about the step at work.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was not sent to this agent: send it.
    Send,
    /// It runs, or something else does: look again later.
    Wait,
    /// It ended well.
    Succeeded,
    /// It failed: the class of the error, and its words.
    Failed(String, String),
    /// The agent's hardware managers changed since it listed its steps.
    VersionMismatch,
}

/// Judges `commands` (oldest first) for `steps[index]`.
pub fn judge(
    kind: StepKind,
    commands: &[CommandResult],
    steps: &[Map<String, Value>],
    index: usize,
) -> Verdict {
    let listing = format!("get_{}_steps", kind.name());
    let executing = format!("execute_{}_step", kind.name());
    let Some(last) = commands.last() else { return Verdict::Send };
    if commands.iter().all(|command| command.command_name == listing) {
        return Verdict::Send;
    }
    // After the last step other commands follow; before the first, an agent of an earlier operation may have run some.
    if last.command_name != executing {
        return Verdict::Wait;
    }
    let echo = last.command_result.as_ref().and_then(|result| result.get(format!("{}_step", kind.name())));
    let is = |step: Option<&Map<String, Value>>| {
        let (Some(step), Some(echo)) = (step, echo) else { return false };
        ["interface", "step"].iter().all(|key| step.get(*key).is_some() && step.get(*key) == echo.get(*key))
    };
    match last.command_status {
        CommandStatus::Running => Verdict::Wait,
        CommandStatus::Failed => {
            let class = last.command_error.as_ref().map(|error| error.kind.clone()).unwrap_or_default();
            Verdict::Failed(class, failure_text(last.command_error.as_ref()))
        }
        CommandStatus::VersionMismatch => Verdict::VersionMismatch,
        CommandStatus::Succeeded if is(steps.get(index)) => Verdict::Succeeded,
        CommandStatus::Succeeded if index.checked_sub(1).is_some_and(|before| is(steps.get(before))) => {
            Verdict::Send
        }
        CommandStatus::Succeeded => Verdict::Wait,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn command(name: &str, status: CommandStatus, result: Value) -> CommandResult {
        CommandResult {
            id: Uuid::nil(),
            command_name: name.into(),
            command_status: status,
            command_error: None,
            command_result: Some(result),
        }
    }

    fn steps() -> Vec<Map<String, Value>> {
        let list = json!([
            {"interface": "deploy", "step": "erase_devices_metadata", "priority": 90},
            {"interface": "deploy", "step": "write_image"},
        ]);
        serde_json::from_value(list).unwrap()
    }

    fn listed() -> CommandResult {
        command("get_deploy_steps", CommandStatus::Succeeded, json!({}))
    }

    fn executed(status: CommandStatus, step: &str) -> CommandResult {
        let echo =
            json!({"deploy_result": null, "deploy_step": {"interface": "deploy", "step": step, "args": {}}});
        command("execute_deploy_step", status, echo)
    }

    fn ask(commands: &[CommandResult], index: usize) -> Verdict {
        judge(StepKind::Deploy, commands, &steps(), index)
    }

    #[test]
    fn a_fresh_agent_gets_the_step() {
        assert_eq!(ask(&[], 0), Verdict::Send);
        assert_eq!(ask(&[listed(), listed()], 1), Verdict::Send);
    }

    #[test]
    fn a_step_counts_as_done_only_with_its_echo() {
        let done = executed(CommandStatus::Succeeded, "write_image");
        assert_eq!(ask(&[listed(), done.clone()], 1), Verdict::Succeeded);
        let other = executed(CommandStatus::Succeeded, "something_else");
        assert_eq!(ask(&[listed(), other], 1), Verdict::Wait);
        let mut silent = done;
        silent.command_result = None;
        assert_eq!(ask(&[listed(), silent], 1), Verdict::Wait);
    }

    #[test]
    fn the_echo_of_the_step_before_means_the_next_was_not_sent() {
        let before = executed(CommandStatus::Succeeded, "erase_devices_metadata");
        assert_eq!(ask(&[listed(), before.clone()], 1), Verdict::Send);
        assert_eq!(ask(&[listed(), before], 0), Verdict::Succeeded);
    }

    #[test]
    fn running_and_foreign_commands_are_waited_for() {
        assert_eq!(ask(&[listed(), executed(CommandStatus::Running, "write_image")], 1), Verdict::Wait);
        let log = command("collect_system_logs", CommandStatus::Succeeded, json!({}));
        assert_eq!(ask(&[listed(), log], 1), Verdict::Wait);
    }

    #[test]
    fn failures_carry_the_agents_words() {
        let mut failed = executed(CommandStatus::Failed, "write_image");
        failed.command_error = Some(wire::CommandError {
            kind: "ImageChecksumError".into(),
            code: 500,
            message: "Error verifying image checksum".into(),
            details: "sha256 is aa, expected bb".into(),
        });
        let words = Verdict::Failed("ImageChecksumError".into(), "sha256 is aa, expected bb".into());
        assert_eq!(ask(&[listed(), failed], 1), words);
        let mismatch = executed(CommandStatus::VersionMismatch, "write_image");
        assert_eq!(ask(&[listed(), mismatch], 1), Verdict::VersionMismatch);
    }
}
