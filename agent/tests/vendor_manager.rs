//! The example of a vendor's hardware manager, through the agent's API: what docs/hardware-managers.md promises.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

#[path = "../examples/vendor_agent/acme.rs"]
mod acme;

use serde_json::{Value, json};
use support::{Caller, Conductor, RunningAgent};

const NODE: &str = "1be26c0b-03f2-4d2e-ae87-c02d7f33c123";

async fn agent(conductor: &Conductor, words: &str) -> (RunningAgent, Caller) {
    let manager = Box::new(acme::AcmeHardwareManager::default());
    let agent = RunningAgent::start_with_manager(conductor, manager, words);
    let caller = Caller::of(&conductor.heartbeat(1).await);
    (agent, caller)
}

async fn execute(caller: &Caller, step: Value, version: Value, extra: Value) -> Value {
    let mut params = json!({"step": step, "node": {"uuid": NODE}, "ports": [], "clean_version": version});
    params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    caller.command(true, "clean.execute_clean_step", params).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_steps_and_version_stand_beside_the_built_in_ones() {
    let conductor = Conductor::start().await;
    let (agent, caller) = agent(&conductor, "acme-version=3").await;
    let params = json!({"node": {"uuid": NODE}, "ports": []});
    let listed = caller.command(true, "clean.get_clean_steps", params).await["command_result"].clone();
    assert_eq!(
        listed["hardware_manager_version"],
        json!({"acme_hardware_manager": "3", "fake_hardware_manager": "1.2"})
    );
    let steps = listed["clean_steps"]["AcmeHardwareManager"].as_array().unwrap().clone();
    let flash = steps.iter().find(|step| step["step"] == "acme_flash_firmware").unwrap();
    assert_eq!((&flash["reboot_requested"], &flash["abortable"]), (&json!(true), &json!(false)));

    let versions = listed["hardware_manager_version"].clone();
    let done = execute(&caller, flash.clone(), versions, json!({})).await;
    assert_eq!(done["command_status"], "SUCCEEDED");
    assert_eq!(done["command_result"], json!({"clean_result": {"flashed": "3"}, "clean_step": flash}));
    agent.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_listed_by_another_version_are_not_run() {
    let conductor = Conductor::start().await;
    let (agent, caller) = agent(&conductor, "acme-version=4").await;
    let step = json!({"step": "acme_flash_firmware", "interface": "deploy", "priority": 95});
    for stale in [
        json!({"acme_hardware_manager": "3", "fake_hardware_manager": "1.2"}),
        json!({"fake_hardware_manager": "1.2"}),
        json!({"acme_hardware_manager": "4", "fake_hardware_manager": "1.2", "gone": "1"}),
        json!({}),
    ] {
        let refused = execute(&caller, step.clone(), stale.clone(), json!({})).await;
        assert_eq!(refused["command_status"], "CLEAN_VERSION_MISMATCH", "{stale}");
        assert_eq!(
            (&refused["command_error"]["type"], &refused["command_error"]["code"]),
            (&json!("VersionMismatch"), &json!(409))
        );
    }
    let unchecked = execute(&caller, step, Value::Null, json!({})).await;
    assert_eq!(unchecked["command_status"], "SUCCEEDED");
    agent.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_step_tells_its_reason_and_arguments_beat_extra_parameters() {
    let conductor = Conductor::start().await;
    let (agent, caller) = agent(&conductor, "acme-version=1").await;
    let step = |args: Value| json!({"step": "acme_self_test", "interface": "deploy", "args": args});
    let failed =
        execute(&caller, step(json!({"outcome": "fail"})), Value::Null, json!({"outcome": "pass"})).await;
    let error = &failed["command_error"];
    assert_eq!((&failed["command_status"], &error["type"]), (&json!("FAILED"), &json!("CleaningError")));
    assert_eq!(
        error["details"],
        "Unexpected exception performing clean step acme_self_test. the self test found a broken fan; replace fan 2"
    );
    let from_extra = execute(&caller, step(Value::Null), Value::Null, json!({"outcome": "fail"})).await;
    assert_eq!(from_extra["command_status"], "FAILED");
    let nonsense = execute(&caller, step(json!({"outcome": "maybe"})), Value::Null, json!({})).await;
    assert_eq!(nonsense["command_error"]["type"], "InvalidCommandParamsError");
    agent.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_other_machines_it_is_not_there() {
    let conductor = Conductor::start().await;
    let (agent, caller) = agent(&conductor, "quiet").await;
    let unknown = execute(&caller, json!({"step": "acme_self_test"}), Value::Null, json!({})).await;
    assert_eq!(unknown["command_error"]["type"], "HardwareManagerMethodNotFound");
    agent.finish().await;
}
