//! The happy path of a deploy as a conductor walks it (agent protocol page, appendix C): real sockets, real TLS.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Caller, Conductor, MAC, NODE, RunningAgent, TOKEN};

fn node() -> Value {
    json!({"uuid": NODE, "name": "n", "instance_info": {}, "properties": {}, "driver_info": {"x": "******"}})
}

fn write_step() -> Value {
    json!({"interface": "deploy", "step": "write_image", "args": {
        "image_info": {"id": "debian.qcow2", "urls": ["http://192.0.2.1/d"], "disk_format": "qcow2",
            "os_hash_algo": "sha256", "os_hash_value": "ab", "stream_raw_images": true, "unheard_of": 1},
        "configdrive": "H4sI"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_disk_deploy_goes_through_as_ironic_conducts_it() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, true);

    let first = conductor.heartbeat(1).await;
    assert_eq!(*conductor.seen.lookups.lock().unwrap(), [(format!("addresses={MAC}"), "1.62".to_owned())]);
    let (uuid, version, _) = conductor.seen.heartbeats.lock().unwrap()[0].clone();
    assert_eq!((uuid.as_str(), version.as_str()), (NODE, "1.68"));
    assert_eq!(first["agent_token"], TOKEN);
    assert_eq!(first["agent_version"], "13.0.0");
    assert!(first["callback_url"].as_str().unwrap().starts_with("https://127.0.0.1:"));
    assert!(agent.deployment.asked.lock().unwrap()[0].contains("formats=raw,gpt,qcow2,iso"));

    let caller = Caller::of(&first);
    assert!(caller.list().await.is_empty(), "an empty list means: freshly booted");
    let steps = caller.command(true, "deploy.get_deploy_steps", json!({"node": node(), "ports": []})).await;
    assert_eq!(
        steps["command_result"],
        json!({"deploy_steps": {"FakeHardwareManager": [
                   {"step": "write_image", "priority": 0, "interface": "deploy", "reboot_requested": false}]},
               "hardware_manager_version": {"fake_hardware_manager": "1.2"}})
    );
    assert_eq!(steps["command_name"], "get_deploy_steps");

    let versions = json!({"fake_hardware_manager": "1.2"});
    let params = json!({"step": write_step(), "node": node(), "ports": [], "deploy_version": versions});
    let begun = caller.command(false, "deploy.execute_deploy_step", params).await;
    assert_eq!(begun["command_status"], "RUNNING");
    assert_eq!(begun.as_object().unwrap().len(), 5);
    assert_eq!(caller.list().await.last().unwrap()["command_status"], "RUNNING");

    agent.release.send(Ok(())).unwrap();
    // Forced, and not closer than five seconds to the first: without it this would take minutes.
    let second = conductor.heartbeat(2).await;
    assert_eq!(second, first, "every heartbeat of a boot says the same");
    let list = caller.list().await;
    let last = list.last().unwrap();
    assert_eq!(last["command_status"], "SUCCEEDED");
    assert_eq!(
        last["command_result"]["deploy_step"],
        write_step(),
        "without the echo a conductor waits for ever"
    );
    assert_eq!(
        last["command_result"]["deploy_result"],
        json!({"result": "prepare_image: image (debian.qcow2) written to device /dev/fake root_uuid=0x1a2b3c4d"})
    );

    let uuids = caller.command(true, "standby.get_partition_uuids", json!({})).await;
    assert_eq!(uuids["command_result"], json!({"root uuid": "0x1a2b3c4d"}));
    let params = json!({"root_uuid": "0x1a2b3c4d", "efi_system_part_uuid": null, "prep_boot_part_uuid": null,
                        "target_boot_mode": "uefi"});
    let boot = caller.command(false, "image.install_bootloader", params).await;
    assert_eq!(boot["command_name"], "install_bootloader");
    let id = boot["id"].as_str().unwrap();
    let path = format!("/v1/commands/{id}?wait=true&agent_token={TOKEN}");
    let done = caller.request("GET", &path, None).await.text().await.unwrap();
    assert!(done.contains("\"SUCCEEDED\""), "{done}");

    let logs = caller.command(true, "log.collect_system_logs", json!({})).await;
    assert!(logs["command_result"]["system_logs"].as_str().unwrap().starts_with("H4sI"));

    let off = caller.command(false, "standby.power_off", json!({})).await;
    assert_eq!(off["command_status"], "RUNNING", "the reply goes out before the machine does");
    assert!(!agent.kernel.calls().contains(&sys::fake::Call::Power(sys::Power::Off)));
    let id = off["id"].as_str().unwrap();
    let path = format!("/v1/commands/{id}?wait=true&agent_token={TOKEN}");
    caller.request("GET", &path, None).await;
    let calls = agent.kernel.calls();
    use sys::fake::Call;
    assert_eq!(calls, [Call::SetHardwareClock, Call::Sync, Call::Power(sys::Power::Off)]);
    let asked = agent.deployment.asked.lock().unwrap().clone();
    assert_eq!(asked[1], format!("write debian.qcow2 for {NODE} drive=true"));
    assert_eq!(asked[2..], ["bootloader Some(\"uefi\")", "sync"]);
    agent.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_a_ramdisk_power_commands_are_refused() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, false);
    let caller = Caller::of(&conductor.heartbeat(1).await);
    for name in ["standby.power_off", "standby.run_image"] {
        let result = caller.command(true, name, json!({})).await;
        assert_eq!(result["command_status"], "FAILED");
        assert_eq!(result["command_error"]["type"], "SystemRebootError");
    }
    assert!(agent.kernel.calls().is_empty());
    agent.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_steps_reach_the_conductor_with_class_and_words() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, true);
    let caller = Caller::of(&conductor.heartbeat(1).await);
    let run = async |kind: &str, step: Value, version: Value| {
        let name = format!("{kind}.execute_{kind}_step");
        let key = format!("{kind}_version");
        caller.command(true, &name, json!({"step": step, "node": node(), "ports": [], key: version})).await
    };

    let old = run("clean", json!({"step": "break"}), json!({"fake_hardware_manager": "1.1"})).await;
    assert_eq!(old["command_status"], "CLEAN_VERSION_MISMATCH");
    assert_eq!(old["command_error"]["type"], "VersionMismatch");
    let more = json!({"fake_hardware_manager": "1.2", "another": "1"});
    assert_eq!(
        run("deploy", json!({"step": "break"}), more).await["command_status"],
        "CLEAN_VERSION_MISMATCH"
    );

    let table = [
        (
            "clean",
            "break",
            "CleaningError",
            "Unexpected exception performing clean step break. opening /dev/fake: no medium",
        ),
        (
            "deploy",
            "break",
            "DeploymentError",
            "Unexpected exception performing deploy step break. opening /dev/fake: no medium",
        ),
        (
            "service",
            "break",
            "ServicingError",
            "Unexpected exception performing service step break. opening /dev/fake: no medium",
        ),
        ("clean", "nosuch", "HardwareManagerMethodNotFound", "no hardware manager found to handle `nosuch`"),
        ("clean", "", "CommandExecutionError", "the step has no name in `step`"),
    ];
    for (kind, step, class, details) in table {
        let result = run(kind, json!({"step": step}), Value::Null).await;
        assert_eq!(result["command_name"], format!("execute_{kind}_step"));
        assert_eq!(result["command_error"]["type"], class);
        assert_eq!(result["command_error"]["details"], details);
        assert_eq!(result["command_result"], Value::Null);
    }
    let panicked = run("clean", json!({"step": "panic"}), Value::Null).await;
    assert_eq!(panicked["command_error"]["type"], "CommandExecutionError");
    assert!(panicked["command_error"]["details"].as_str().unwrap().contains("a manager with a defect"));

    agent
        .release
        .send(Err(hwm::Error::ImageChecksum { message: "sha256 of image d is x, not y".into() }))
        .unwrap();
    let failed = run("deploy", write_step(), Value::Null).await;
    assert_eq!(
        failed["command_error"],
        json!({"type": "ImageChecksumError", "code": 500, "message": "Error verifying image checksum",
               "details": "sha256 of image d is x, not y"})
    );
    agent.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookup_and_heartbeat_outlive_a_conductor_in_trouble() {
    let conductor = Conductor::start().await;
    conductor.seen.lookup_script.lock().unwrap().extend([404, 503]);
    conductor.seen.heartbeat_script.lock().unwrap().extend([409]);
    let agent = RunningAgent::start(&conductor, true);
    let first = conductor.heartbeat(1).await;
    assert_eq!(conductor.seen.lookups.lock().unwrap().len(), 3);
    assert_eq!(conductor.heartbeat(2).await, first);

    let caller = Caller::of(&first);
    let path = format!("/v1/events?after=0&wait=5&agent_token={TOKEN}");
    let page = caller.request("GET", &path, None).await.text().await.unwrap();
    let page: events::EventPage = serde_json::from_str(&page).unwrap();
    let retries = page.events.iter().filter(|e| matches!(e.kind, events::EventKind::Retrying { .. })).count();
    assert_eq!(retries, 2);
    let begun = std::time::Instant::now();
    let path = format!("/v1/events?after={}&wait=1&agent_token={TOKEN}", page.next);
    caller.request("GET", &path, None).await;
    assert!(begun.elapsed() >= Duration::from_millis(900));
    agent.finish().await;
}
