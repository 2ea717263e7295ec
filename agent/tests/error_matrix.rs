//! Every refusal of the API, over the real server: status, body, and the order of the checks (agent protocol page, 1.2 to
//! 1.11).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use support::{Caller, Conductor, RunningAgent, TOKEN};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_has_its_status_and_a_string_faultstring() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, true);
    let caller = Caller::of(&conductor.heartbeat(1).await);
    let run = format!("/v1/commands/?agent_token={TOKEN}");
    let unprefixed = format!("/commands/?agent_token={TOKEN}&wait=1&unknown=x");
    let unauthorized = "401 Unauthorized: Token invalid.";
    let envelope = "400 Bad Request: Missing or invalid name or params";
    let sync = r#"{"name": "standby.sync", "params": {}}"#;
    let table: Vec<(&str, String, Option<&str>, u16, &str)> = vec![
        ("GET", "/v1/commands/".into(), None, 401, unauthorized),
        ("GET", "/v1/commands/?agent_token=".into(), None, 401, unauthorized),
        ("GET", format!("/commands/?agent_token={TOKEN}x"), None, 401, unauthorized),
        ("GET", "/v1/commands/some-id".into(), None, 401, unauthorized),
        ("GET", "/v1/events".into(), None, 401, unauthorized),
        ("POST", "/v1/commands/".into(), Some("not json"), 401, unauthorized), // the token comes first
        ("POST", run.clone(), None, 400, "400 Bad Request: "),
        ("POST", run.clone(), Some("not json"), 400, "400 Bad Request: "),
        ("POST", run.clone(), Some("7"), 400, envelope),
        ("POST", run.clone(), Some("[]"), 400, envelope),
        ("POST", run.clone(), Some(r#"{"name": "standby.sync"}"#), 400, envelope),
        ("POST", run.clone(), Some(r#"{"params": {}}"#), 400, envelope),
        ("POST", run.clone(), Some(r#"{"name": 7, "params": {}}"#), 400, envelope),
        ("POST", run.clone(), Some(r#"{"name": "standby.sync", "params": []}"#), 400, envelope),
        (
            "POST",
            run.clone(),
            Some(r#"{"name": "sync", "params": {}}"#),
            400,
            "Invalid command: Command name must be of the form <extension>.<name>",
        ),
        (
            "POST",
            unprefixed,
            Some(r#"{"name": "nosuch.x", "params": {}}"#),
            404,
            "Not found: Extension with id nosuch not found.",
        ),
        (
            "POST",
            run.clone(),
            Some(r#"{"name": "clean.nosuch", "params": {}}"#),
            400,
            "Invalid command: Unknown command: nosuch",
        ),
        (
            "POST",
            run.clone(),
            Some(r#"{"name": "clean.get_clean_steps", "params": {"node": {}, "ports": []}}"#),
            400,
            "Invalid command parameters: the node has no uuid",
        ),
        (
            "POST",
            run.clone(),
            Some(r#"{"name": "standby.prepare_image", "params": {"image_info": {"id": "x"}}}"#),
            400,
            "Invalid command parameters: ",
        ),
        (
            "GET",
            format!("/v1/commands/abc?agent_token={TOKEN}"),
            None,
            404,
            "Not found: Command Result with id abc not found.",
        ),
        ("GET", format!("/v1/commands/abc/?agent_token={TOKEN}"), None, 404, "404 Not Found: "),
        ("GET", "/v1/status/".into(), None, 404, "404 Not Found: "),
        ("GET", "/nowhere".into(), None, 404, "404 Not Found: "),
        ("DELETE", run.clone(), None, 405, "405 Method Not Allowed: "),
        ("OPTIONS", run.clone(), None, 405, "405 Method Not Allowed: "),
        ("POST", "/v1/status".into(), Some(sync), 405, "405 Method Not Allowed: "),
        ("GET", format!("/v1/events?after=x&agent_token={TOKEN}"), None, 400, "400 Bad Request: after"),
    ];
    for (method, path, body, status, text) in table {
        let case = format!("{method} {path} {body:?}");
        let reply = caller.request(method, &path, body).await;
        assert_eq!(reply.status(), status, "{case}");
        assert_eq!(reply.headers()["content-type"], "application/json", "{case}");
        assert_eq!(reply.headers().contains_key("allow"), status == 405, "{case}");
        let fault: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
        assert_eq!(fault.as_object().unwrap().len(), 2, "{case}");
        assert_eq!(fault["faultcode"], "Client", "{case}");
        let said = fault["faultstring"].as_str().unwrap();
        assert!(said.starts_with(text), "{case}: {said}");
        assert!(!said.contains("agent_token") && !said.to_lowercase().contains("agent is busy"), "{case}");
    }
    assert!(caller.list().await.is_empty(), "refused commands leave no trace");
    agent.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_agent_says_so_to_every_command_and_still_serves_lists() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, true);
    let caller = Caller::of(&conductor.heartbeat(1).await);
    let partition = json!({"id": "i", "urls": ["http://h/i"], "checksum": "ab", "image_type": "partition"});
    let refused = caller.command(false, "standby.prepare_image", json!({"image_info": partition})).await;
    assert_eq!(refused["command_name"], "standby.prepare_image", "refused before it began: the full name");
    assert_eq!(refused["command_error"]["type"], "InvalidImage");
    let image = json!({"id": "i", "urls": ["http://h/i"], "checksum": "ab"});
    let begun = caller.command(false, "standby.prepare_image", json!({"image_info": image})).await;
    assert_eq!(begun["command_status"], "RUNNING");

    let path = format!("/v1/commands/?wait=true&agent_token={TOKEN}");
    let sync = r#"{"name": "standby.sync", "params": {}}"#;
    let busy = caller.request("POST", &path, Some(sync)).await;
    assert_eq!(busy.status(), 409);
    assert_eq!(
        busy.text().await.unwrap(),
        r#"{"faultcode":"Client","faultstring":"Agent is busy: executing command prepare_image"}"#
    );
    assert_eq!(caller.list().await.len(), 2);
    agent.release.send(Ok(())).unwrap();
    let path = format!("/v1/commands/{}?wait=TRUE&agent_token={TOKEN}", begun["id"].as_str().unwrap());
    let done: Value =
        serde_json::from_str(&caller.request("GET", &path, None).await.text().await.unwrap()).unwrap();
    assert_eq!(
        done["command_result"],
        json!({"result": "prepare_image: image (i) written to device /dev/fake root_uuid=0x1a2b3c4d"})
    );
    agent.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_redirects_and_heads_are_as_upstream_serves_them() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, true);
    let caller = Caller::of(&conductor.heartbeat(1).await);
    let base = caller.base.clone();

    let text = caller.request("GET", "/", None).await.text().await.unwrap();
    let version = format!(
        r#"{{"id":"v1","links":[{{"href":"{base}/v1","rel":"self"}},{{"href":"https://docs.openstack.org/ironic-python-agent/","rel":"describedby","type":"text/html"}}]}}"#
    );
    assert_eq!(
        text,
        format!(
            r#"{{"name":"OpenStack Ironic Python Agent API","description":"Ironic Python Agent is a provisioning agent for OpenStack Ironic","versions":[{version}],"default_version":{version},"ferric_version":"{}"}}"#,
            env!("CARGO_PKG_VERSION")
        )
    );
    let v1: Value =
        serde_json::from_str(&caller.request("GET", "/v1/", None).await.text().await.unwrap()).unwrap();
    assert_eq!(v1["commands"][1], json!({"href": format!("{base}/commands"), "rel": "bookmark"}));
    for path in ["/v1/status", "/status"] {
        let status: Value =
            serde_json::from_str(&caller.request("GET", path, None).await.text().await.unwrap()).unwrap();
        assert_eq!(status["version"], "13.0.0");
        assert!(status["started_at"].as_f64().unwrap() > 1.0e9);
        assert_eq!(status.as_object().unwrap().len(), 2);
    }

    for (path, location) in
        [("/v1", "/v1/"), ("/v1/commands?wait=true", "/v1/commands/?wait=true"), ("/commands", "/commands/")]
    {
        let reply = caller.request("GET", path, None).await;
        assert_eq!(reply.status(), 308, "{path}");
        assert_eq!(reply.headers()["location"], format!("{base}{location}"));
        assert!(reply.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    }
    let head = caller.request("HEAD", &format!("/v1/commands/?agent_token={TOKEN}"), None).await;
    assert_eq!(head.status(), 200);
    assert!(head.text().await.unwrap().is_empty());
    agent.finish().await;
}
