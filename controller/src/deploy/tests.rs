use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use wire::ProvisionState;

use crate::power::BootMode;
use crate::testing::{Bench, FakeAgent};

const WRITE: &str = "deploy.execute_deploy_step write_image";

/// The exact exchange of a whole-disk UEFI deployment (agent protocol page, Appendix C).
#[tokio::test(flavor = "multi_thread")]
async fn a_uefi_deployment_asks_exactly_what_ironic_asks() {
    let bench = Bench::new(BootMode::Uefi).await;
    let node = bench.deploy().await;
    let agent = FakeAgent::boot(&bench).await;
    assert_eq!(agent.heartbeat(&bench, &node).await.status, 202);
    agent.was_asked(WRITE).await;
    let waiting = bench.reaches(ProvisionState::WaitCallback).await;
    assert_eq!(waiting["deploy_step"]["step"], "write_image");
    assert_eq!(waiting["target_provision_state"], "active");
    agent.finish(Ok(()));
    assert_eq!(agent.heartbeat(&bench, &node).await.status, 202);
    let active = bench.reaches(ProvisionState::Active).await;
    assert_eq!(active["power_state"], "power on");
    assert_eq!(active["target_provision_state"], Value::Null);
    assert_eq!(active["last_error"], Value::Null);
    assert_eq!(active["deploy_step"], json!({}));
    assert_eq!(
        agent.asked(),
        [
            "deploy.get_deploy_steps",
            WRITE,
            "standby.get_partition_uuids",
            "image.install_bootloader",
            "standby.power_off"
        ]
    );
    let bodies = agent.shared.lock().unwrap().bodies.clone();
    let params = &bodies[1]["params"];
    assert_eq!(params["deploy_version"], json!({ "generic": "1.2" }));
    assert_eq!(params["step"]["interface"], "deploy");
    assert_eq!(params["step"].get("priority"), None);
    assert_eq!(params["step"]["args"]["configdrive"], "H4sIdrive");
    let image = &params["step"]["args"]["image_info"];
    assert_eq!(image["urls"], json!(["http://images/disk.raw"]));
    assert_eq!(image["os_hash_algo"], "sha256");
    assert_eq!(image["id"], "disk.raw");
    assert_eq!(params["node"]["uuid"], node);
    assert_eq!(params["node"]["instance_info"]["configdrive"], "******");
    assert_eq!(params["ports"][0]["address"], crate::testing::MAC);
    assert_eq!(
        bodies[3]["params"],
        json!({ "root_uuid": "0x00000000", "efi_system_part_uuid": null, "prep_boot_part_uuid": null, "target_boot_mode": "uefi" })
    );
    assert_eq!(bench.power.log(), ["was off", "on from Pxe", "was off", "on from Disk"]);
    assert_eq!(
        bench.marks().await,
        ["power on", "lookup", "first heartbeat", "deployed", "power off", "boot from disk", "active"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bios_deployment_makes_no_firmware_entry() {
    let bench = Bench::new(BootMode::Bios).await;
    let node = bench.deploy().await;
    let agent = FakeAgent::boot_with(&bench, "127.0.0.1", true).await;
    agent.finish(Ok(()));
    agent.heartbeat(&bench, &node).await;
    bench.reaches(ProvisionState::Active).await;
    assert_eq!(
        agent.asked(),
        ["deploy.get_deploy_steps", WRITE, "standby.get_partition_uuids", "standby.power_off"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_image_gets_its_boot_loader_on_bios_too() {
    let bench = Bench::new(BootMode::Bios).await;
    let sizes = json!({ "image_type": "partition", "root_gb": 2, "swap_mb": 64 });
    let node = bench.deploy_with(sizes).await;
    let agent = FakeAgent::boot(&bench).await;
    agent.finish(Ok(()));
    agent.heartbeat(&bench, &node).await;
    bench.reaches(ProvisionState::Active).await;
    assert_eq!(
        agent.asked(),
        [
            "deploy.get_deploy_steps",
            WRITE,
            "standby.get_partition_uuids",
            "image.install_bootloader",
            "standby.power_off"
        ]
    );
    let bodies = agent.shared.lock().unwrap().bodies.clone();
    let image = &bodies[1]["params"]["step"]["args"]["image_info"];
    assert_eq!((&image["root_mb"], &image["swap_mb"]), (&json!(2048), &json!(64)));
    assert_eq!(image["deploy_boot_mode"], "bios");
    assert_eq!(bodies[3]["params"]["target_boot_mode"], "bios");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_leaves_a_message_the_logs_and_a_machine_that_is_off() {
    let bench = Bench::new(BootMode::Uefi).await;
    let node = bench.deploy().await;
    let agent = FakeAgent::boot(&bench).await;
    agent.finish(Err(json!({
        "type": "ImageChecksumError", "code": 500, "message": "Error verifying image checksum",
        "details": "sha256 of http://images/disk.raw is cd, expected ab",
    })));
    agent.heartbeat(&bench, &node).await;
    let failed = bench.reaches(ProvisionState::DeployFailed).await;
    let error = failed["last_error"].as_str().unwrap();
    for word in
        ["node demo", "write_image", "is cd, expected ab", "switched off", "checksum belongs", "logs are in"]
    {
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(failed["target_provision_state"], "active");
    assert!(!bench.power.is_on());
    let logs: Vec<_> = std::fs::read_dir(bench.directory.path().join("logs")).unwrap().collect();
    assert_eq!(logs.len(), 1);
    assert_eq!(std::fs::read(logs.into_iter().next().unwrap().unwrap().path()).unwrap(), b"logs");
    // The agent is history: its token counts no more.
    let late = agent.heartbeat(&bench, &node).await;
    assert_eq!((late.status, late.fault().as_str()), (400, "Invalid or missing agent token received."));
    // And another try is possible at once.
    assert_eq!(bench.provision(json!({ "target": "active" })).await.status, 202);
    let again = bench.reaches(ProvisionState::WaitCallback).await;
    assert_eq!(again["last_error"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_in_mid_write_goes_on_where_it_was() {
    let bench = Bench::new(BootMode::Uefi).await;
    let node = bench.deploy().await;
    let agent = FakeAgent::boot(&bench).await;
    agent.heartbeat(&bench, &node).await;
    agent.was_asked(WRITE).await;
    bench.reaches(ProvisionState::WaitCallback).await;
    let bench = bench.restarted().await;
    // The new one follows the running command even before the next heartbeat, and does not start it again.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(agent.asked().len(), 2, "{:?}", agent.asked());
    agent.finish(Ok(()));
    assert_eq!(agent.heartbeat(&bench, &node).await.status, 202);
    bench.reaches(ProvisionState::Active).await;
    let writes = agent.asked().iter().filter(|asked| *asked == WRITE).count();
    assert_eq!(writes, 1);
    assert_eq!(bench.power.log(), ["was off", "on from Pxe", "was off", "on from Disk"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_before_the_agent_called_still_takes_its_call() {
    let bench = Bench::new(BootMode::Uefi).await;
    let node = bench.deploy().await;
    let agent = FakeAgent::boot(&bench).await;
    agent.finish(Ok(()));
    let bench = bench.restarted().await;
    assert_eq!(agent.heartbeat(&bench, &node).await.status, 202);
    bench.reaches(ProvisionState::Active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_never_calls_fails_the_deployment() {
    let bench = Bench::with_timeout(BootMode::Uefi, Some(Duration::from_millis(500))).await;
    bench.deploy().await;
    let failed = bench.reaches(ProvisionState::DeployFailed).await;
    let error = failed["last_error"].as_str().unwrap();
    assert!(error.contains("no heartbeat") && error.contains("console"), "{error}");
    assert!(!bench.power.is_on());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_another_certificate_is_not_spoken_to() {
    let bench = Bench::new(BootMode::Uefi).await;
    let node = bench.deploy().await;
    let mut agent = FakeAgent::boot(&bench).await;
    agent.certificate = FakeAgent::foreign_certificate();
    assert_eq!(agent.heartbeat(&bench, &node).await.status, 202);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(agent.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_host_is_not_accepted() {
    let bench = Bench::new(BootMode::Uefi).await;
    let node = bench.deploy().await;
    let agent = FakeAgent::boot_with(&bench, "192.0.2.1", false).await;
    assert_eq!(agent.heartbeat(&bench, &node).await.status, 202);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(agent.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_agent_reach_watchers_and_the_timeline() {
    let bench = Bench::new(BootMode::Uefi).await;
    let node = bench.deploy().await;
    let agent = FakeAgent::boot(&bench).await;
    agent.shared.lock().unwrap().events = Some(json!({ "next": 3, "events": [
        { "seq": 1, "at": 1.0, "event": "progress", "phase": "write", "done": 5, "total": 10 },
        { "seq": 2, "at": 2.0, "event": "phase_finished", "phase": "write", "seconds": 1.0, "bytes": 10 },
        { "seq": 3, "at": 3.0, "event": "phase_finished", "phase": "verify", "seconds": 0.1 },
    ]}));
    agent.heartbeat(&bench, &node).await;
    agent.was_asked(WRITE).await;
    let mut after = 0;
    let mut seen = Vec::new();
    for _ in 0..100 {
        let page = bench.get(&format!("/ferric/v1/nodes/demo/events?after={after}&wait=1")).await.body;
        after = page["next"].as_u64().unwrap();
        seen.extend(page["events"].as_array().unwrap().iter().filter(|e| e["source"] == "agent").cloned());
        if seen.len() >= 3 {
            break;
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert_eq!(seen[0]["done"], 5);
    assert!(seen[0]["at"].as_f64().unwrap() > 1e9, "dated by our own clock");
    let marks = bench.marks().await;
    for mark in ["first byte", "last byte", "verified"] {
        assert!(marks.iter().any(|m| m == mark), "{mark}: {marks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployed_node_is_taken_back_and_can_be_deleted() {
    let bench = Bench::new(BootMode::Bios).await;
    let node = bench.deploy().await;
    let agent = FakeAgent::boot(&bench).await;
    agent.finish(Ok(()));
    agent.heartbeat(&bench, &node).await;
    bench.reaches(ProvisionState::Active).await;
    let refused = bench.call(Method::DELETE, "/v1/nodes/demo", Some("1.68"), None).await;
    assert_eq!(refused.status, 409);
    assert_eq!(bench.provision(json!({ "target": "deleted" })).await.status, 202);
    let free = bench.reaches(ProvisionState::Available).await;
    assert_eq!(free["instance_info"], json!({}));
    assert!(!bench.power.is_on());
    assert_eq!(bench.call(Method::DELETE, "/v1/nodes/demo", Some("1.68"), None).await.status, 204);
    assert_eq!(bench.get("/v1/nodes/demo").await.status, 404);
    assert_eq!(bench.get("/v1/ports").await.body, json!({ "ports": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_ends_the_wait_and_switches_the_machine_off() {
    let bench = Bench::new(BootMode::Uefi).await;
    bench.deploy().await;
    assert!(bench.power.is_on());
    assert_eq!(bench.provision(json!({ "target": "abort" })).await.status, 202);
    let failed = bench.reaches(ProvisionState::DeployFailed).await;
    assert!(failed["last_error"].as_str().unwrap().contains("aborted"));
    assert!(!bench.power.is_on());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_asks_for_it_is_cleaned_between_two_uses() {
    let bench = Bench::new(BootMode::Uefi).await;
    let node = bench.enroll().await;
    let patch = json!([{ "op": "replace", "path": "/automated_clean", "value": true }]);
    assert_eq!(bench.call(Method::PATCH, "/v1/nodes/demo", Some("1.68"), Some(patch)).await.status, 200);
    bench.provision(json!({ "target": "manage" })).await;
    bench.reaches(ProvisionState::Manageable).await;
    bench.provision(json!({ "target": "provide" })).await;
    bench.reaches(ProvisionState::CleanWait).await;
    let agent = FakeAgent::boot(&bench).await;
    agent.heartbeat(&bench, &node).await;
    bench.reaches(ProvisionState::Available).await;
    assert_eq!(agent.asked(), ["clean.get_clean_steps", "clean.execute_clean_step erase_devices_metadata"]);
    assert!(!bench.power.is_on());
}

#[tokio::test(flavor = "multi_thread")]
async fn power_control_that_does_not_work_shows_when_a_node_is_managed() {
    let bench = Bench::new(BootMode::Uefi).await;
    bench.enroll().await;
    let patch = json!([{ "op": "add", "path": "/driver_info/broken", "value": true }]);
    bench.call(Method::PATCH, "/v1/nodes/demo", Some("1.68"), Some(patch)).await;
    assert_eq!(bench.provision(json!({ "target": "manage" })).await.status, 202);
    for _ in 0..500 {
        let node = bench.reaches(ProvisionState::Enroll).await;
        if let Some(error) = node["last_error"].as_str() {
            assert!(error.contains("node demo") && error.contains("broken is set"), "{error}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no error was left");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_switch_a_machine_off_only_while_its_agent_is_awaited() {
    let bench = Bench::new(BootMode::Uefi).await;
    let node = bench.deploy().await;
    let off = async || {
        let body = json!({ "target": "power off" });
        bench.call(Method::PUT, "/v1/nodes/demo/states/power", Some("1.68"), Some(body)).await.status
    };
    assert_eq!(off().await, 202);
    assert!(!bench.power.is_on());
    bench
        .controller
        .store
        .update(&node, |record| {
            record.node.provision_state = ProvisionState::Deleting;
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(off().await, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_asked_for_by_hand_are_run_and_the_node_stays_manageable() {
    let bench = Bench::new(BootMode::Uefi).await;
    let node = bench.enroll().await;
    bench.provision(json!({ "target": "manage" })).await;
    bench.reaches(ProvisionState::Manageable).await;
    assert_eq!(bench.provision(json!({ "target": "clean" })).await.status, 400);
    let steps = json!([{ "interface": "deploy", "step": "erase_devices_metadata", "args": { "x": 1 } }]);
    assert_eq!(bench.provision(json!({ "target": "clean", "clean_steps": steps })).await.status, 202);
    bench.reaches(ProvisionState::CleanWait).await;
    let agent = FakeAgent::boot(&bench).await;
    agent.heartbeat(&bench, &node).await;
    bench.reaches(ProvisionState::Manageable).await;
    assert_eq!(agent.asked(), ["clean.execute_clean_step erase_devices_metadata"]);
    let params = agent.shared.lock().unwrap().bodies[0]["params"].clone();
    assert_eq!(params["step"], steps[0]);
    assert_eq!(params["clean_version"], Value::Null);
    assert!(!bench.power.is_on());
}
