//! What is secret in a deployment reaches no log and no event, whatever is logged.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use ferric_agent::logging;
use serde_json::json;
use support::{Caller, Conductor, NODE, RunningAgent, TOKEN};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_logged_even_at_debug_level() {
    let logging = logging::start(&logging::Output::Stderr, None, true);
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, true);
    let caller = Caller::of(&conductor.heartbeat(1).await);
    let image = json!({"id": "debian.raw?X-Signature=hush-id#hush-fragment",
        "urls": ["http://user:hush-password@192.0.2.1/debian.raw?X-Signature=hush-url"], "disk_format": "raw",
        "os_hash_algo": "sha256", "os_hash_value": "ab", "image_request_authorization": "aHVzaC1oZWFkZXI=",
        "image_server_auth_strategy": "http_basic", "image_server_user": "u", "image_server_password": "hush-basic",
        "proxies": {"http": "http://user:hush-proxy@192.0.2.2"}});
    let params = json!({"image_info": image, "configdrive": "hush-drive"});
    caller.command(false, "standby.prepare_image", params).await;
    agent.release.send(Ok(())).unwrap();
    conductor.heartbeat(2).await;
    let node = json!({"uuid": NODE, "driver_info": {"password": "hush-driver"}});
    let step = json!({"interface": "deploy", "step": "nothing", "args": {"image_info": image, "configdrive": "hush-drive"}});
    let params = json!({"step": step, "node": node, "ports": [], "deploy_version": null});
    caller.command(true, "deploy.execute_deploy_step", params).await;
    let events = agent.events.clone();
    agent.finish().await;

    let log = logging.ring.text();
    assert!(log.contains("standby.prepare_image debian.raw"), "{log}");
    assert!(log.contains("DEBUG"), "debug lines are there: {log}");
    let told = format!("{:?}", events.after(0, 1000).events);
    assert!(told.contains("standby.prepare_image debian.raw"), "{told}");
    for text in [&log, &told] {
        for secret in ["hush", "aHVzaC1oZWFkZXI", TOKEN] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
