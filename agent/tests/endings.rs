//! Commands that end the agent's service: the reply goes out first, then the door is closed and no heartbeat follows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ferric_agent::command::Ending;
use serde_json::{Value, json};
use support::{Caller, Conductor, RunningAgent, TOKEN};

const PASSWORD: &str = "etc/ipa-rescue-config/ipa-rescue-password";

async fn is_closed(caller: &Caller) -> bool {
    let address = caller.base.trim_start_matches("https://").to_owned();
    tokio::net::TcpStream::connect(address).await.is_err()
}

/// Of `secret`.
const HASH: &str = "$5$ab$5ydlOaPxAq0VpamGFK.BZgHF7HlR0erJsH.F7VB19f0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rescue_is_answered_and_then_the_agent_serves_no_more() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, true);
    let caller = Caller::of(&conductor.heartbeat(1).await);
    let root = agent.root.path().to_owned();
    let params = json!({"rescue_password": HASH, "hashed": true});
    let reply = caller.command(false, "rescue.finalize_rescue", params).await;
    assert_eq!(
        (&reply["command_name"], &reply["command_status"], &reply["command_result"]),
        (&json!("finalize_rescue"), &json!("SUCCEEDED"), &Value::Null)
    );
    let file = root.join(PASSWORD);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), HASH);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read(root.join("etc/.rescued")).unwrap(), b"");
    let heartbeats = conductor.seen.heartbeats.lock().unwrap().len();
    assert_eq!(agent.ended().await, Some(Ending::Rescue));
    assert!(is_closed(&caller).await);
    assert_eq!(conductor.seen.heartbeats.lock().unwrap().len(), heartbeats);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_password_is_hashed_and_a_dangerous_one_refused() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, true);
    let caller = Caller::of(&conductor.heartbeat(1).await);
    let root = agent.root.path().to_owned();
    let path = format!("/v1/commands/?agent_token={TOKEN}");
    for params in [
        json!({}),
        json!({"rescue_password": "", "hashed": true}),
        json!({"rescue_password": "$6$a$b::0:\nroot2:", "hashed": true}),
        json!({"rescue_password": format!("{HASH}::0:"), "hashed": true}),
        json!({"rescue_password": "x", "hashed": true}),
        json!({"rescue_password": "*", "hashed": true}),
        json!({"rescue_password": &HASH[..HASH.len() - 1], "hashed": true}),
        json!({"rescue_password": "p".repeat(200 * 1024)}),
        json!({"rescue_password": "p".repeat(512)}),
    ] {
        let body = json!({"name": "rescue.finalize_rescue", "params": params}).to_string();
        let reply = caller.request("POST", &path, Some(&body)).await;
        assert_eq!(reply.status(), 400, "{params}");
    }
    assert!(!root.join(PASSWORD).exists() && caller.list().await.is_empty());
    // A file in the way of the folder: a failure that is recorded, not an error 500.
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/ipa-rescue-config"), "").unwrap();
    let failed = caller.command(false, "rescue.finalize_rescue", json!({"rescue_password": "x"})).await;
    assert_eq!(failed["command_error"]["type"], "CommandExecutionError");
    assert_eq!(failed["command_name"], "rescue.finalize_rescue");
    assert_eq!(caller.list().await.len(), 1);
    std::fs::remove_file(root.join("etc/ipa-rescue-config")).unwrap();

    let reply = caller.command(false, "rescue.finalize_rescue", json!({"rescue_password": "secret"})).await;
    assert_eq!(reply["command_status"], "SUCCEEDED");
    let hash = std::fs::read_to_string(root.join(PASSWORD)).unwrap();
    assert!(hash.starts_with("$6$") && !hash.contains("secret"), "{hash}");
    assert!(
        sha_crypt::PasswordVerifier::verify_password(&sha_crypt::ShaCrypt::SHA512, b"secret", &*hash).is_ok()
    );
    assert_eq!(agent.ended().await, Some(Ending::Rescue));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lockdown_is_answered_and_ends_everything() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, true);
    let caller = Caller::of(&conductor.heartbeat(1).await);
    let reply = caller.command(true, "system.lockdown", json!({})).await;
    assert_eq!(reply["command_status"], "SUCCEEDED");
    assert_eq!(reply["command_result"], Value::Null);
    assert_eq!(agent.ended().await, Some(Ending::Lockdown));
    assert!(is_closed(&caller).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_runs_when_the_agent_is_told_to_stop_is_cancelled() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, true);
    let caller = Caller::of(&conductor.heartbeat(1).await);
    let image = json!({"id": "x", "urls": ["http://192.0.2.1/x"], "checksum": "ab"});
    let step = json!({"interface": "deploy", "step": "write_image", "args": {"image_info": image}});
    let params = json!({"step": step, "node": {"uuid": support::NODE}, "ports": []});
    let begun = caller.command(false, "deploy.execute_deploy_step", params).await;
    assert_eq!(begun["command_status"], "RUNNING");
    let (deployment, _release) = (agent.deployment.clone(), agent.release.clone());
    agent.finish().await;
    let was_cancelled = async {
        while deployment.asked.lock().unwrap().last().is_none_or(|asked| asked != "cancelled") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), was_cancelled).await.expect("the write goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_being_rescued_is_left_alone() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start_in(&conductor, true, &[], |root| {
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/.rescued"), "").unwrap();
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(conductor.seen.lookups.lock().unwrap().is_empty(), "no lookup, so no API and no heartbeats");
    agent.finish().await;
}
