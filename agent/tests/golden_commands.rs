//! Every command of the protocol, by the golden requests of the crate `wire`: each is understood, and is answered as it should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use events::Events;
use ferric_agent::command::{Command, Executor, Mode};
use serde_json::{Value, json};
use wire::{CommandList, CommandRequest, CommandResult};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/wire/tests/golden")
}

fn golden(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap()).unwrap()
}

fn requests() -> Vec<CommandRequest> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> =
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.retain(|name| name.starts_with("request_"));
    names.sort();
    names.iter().map(|name| serde_json::from_value(golden(name)).unwrap()).collect()
}

#[test]
fn every_command_has_a_golden_request_and_understands_it() {
    let mut seen = BTreeSet::new();
    for request in requests() {
        let name = request.name.clone();
        Command::parse(&name, request.params).unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        seen.insert(name);
    }
    assert_eq!(seen, Command::names().collect());
}

fn executor(root: &std::path::Path) -> Executor {
    Executor::new(Arc::new(support::extensions(root)), Events::default(), || {})
}

async fn run(executor: &Executor, request: CommandRequest) -> Value {
    let begun = executor.begin(request).await.unwrap_or_else(|fault| panic!("{fault:?}"));
    let record = executor.finished(begun).await;
    serde_json::from_slice(&record.json().to_vec()).unwrap()
}

/// What depends on nothing but the request: the whole reply, but for its id.
#[tokio::test]
async fn requests_get_their_golden_replies() {
    for (request, reply) in [
        ("request_sync", "result_sync"),
        ("request_lockdown", "result_lockdown"),
        ("request_finalize_rescue", "result_finalize_rescue"),
        ("request_start_flow", "result_start_flow"),
        ("request_install_bootloader", "result_install_bootloader"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut request: CommandRequest = serde_json::from_value(golden(request)).unwrap();
        if request.name == "flow.start_flow" {
            // The machine of this test has no inventory.
            request.params["flow"][1].as_object_mut().unwrap().remove("poll.get_hardware_info");
        }
        let mut result = run(&executor(root.path()), request).await;
        result["id"] = golden(reply)["id"].clone();
        assert_eq!(result.to_string(), golden(reply).to_string(), "{reply}");
    }
}

#[tokio::test]
async fn refusals_get_their_golden_replies() {
    let root = tempfile::tempdir().unwrap();
    let executor = executor(root.path());
    let request = |name: &str, params: Value| CommandRequest {
        name: name.into(),
        params: params.as_object().unwrap().clone(),
    };
    for (asked, fault, status) in [
        (request("nodot", json!({})), "fault_undotted", 400),
        (request("nosuch.x", json!({})), "fault_unknown_extension", 404),
        (request("clean.nosuch", json!({})), "fault_unknown_command", 400),
        (serde_json::from_value(golden("request_set_node_info")).unwrap(), "fault_not_standalone", 400),
    ] {
        let refused = executor.begin(asked).await.unwrap_err();
        assert_eq!((refused.status, json!(refused.text)), (status, golden(fault)["faultstring"].clone()));
    }
    for (asked, reply) in [
        (request("standby.sync", json!({"x": 1})), "result_unexpected_parameter"),
        (request("flow.start_flow", json!({"flow": [{"nosuch.x": {}}]})), "result_flow_unknown_extension"),
    ] {
        let mut result = run(&executor, asked).await;
        result["id"] = golden(reply)["id"].clone();
        assert_eq!(result.to_string(), golden(reply).to_string(), "{reply}");
    }
    let failing = json!({"flow": [{"standby.sync": {}}, {"standby.power_off": {}}, {"system.lockdown": {}}]});
    let result = run(&executor, request("flow.start_flow", failing)).await;
    assert_eq!(result["command_error"]["details"], "standby.power_off was failed");
    let nested = json!({"flow": [{"flow.start_flow": {"flow": []}}]});
    let result = run(&executor, request("flow.start_flow", nested)).await;
    assert_eq!(result["command_error"]["type"], "AgentIsBusy");
}

/// Agent protocol page, 1.12: whichever command, whichever wrong parameter, the list stays readable.
#[tokio::test]
async fn a_wrong_parameter_fails_its_command_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let executor = executor(root.path());
    let mut count = 0;
    for name in Command::names() {
        let params = json!({"nosuch": 1}).as_object().unwrap().clone();
        let result: CommandResult =
            serde_json::from_value(run(&executor, CommandRequest { name: name.clone(), params }).await)
                .unwrap();
        let error = result.command_error.unwrap();
        // A flow is checked before it begins, as upstream; so it counts as synchronous here.
        let known: Option<Mode> = requests()
            .into_iter()
            .find(|request| request.name == name)
            .map(|request| Command::parse(&name, request.params).unwrap().mode());
        match known.unwrap() {
            Mode::Async if name != "flow.start_flow" => {
                assert_eq!((error.kind.as_str(), error.code), ("CommandExecutionError", 500), "{name}");
                assert_eq!(result.command_name, name.split_once('.').unwrap().1);
            }
            Mode::Sync | Mode::Async => {
                assert_eq!((error.kind.as_str(), error.code), ("TypeError", 500), "{name}");
                assert_eq!(result.command_name, name);
            }
        }
        count += 1;
        let list: CommandList = serde_json::from_slice(&executor.list().to_vec()).unwrap();
        assert_eq!(list.commands.len(), count);
    }
    assert_eq!(count, 19);
}
