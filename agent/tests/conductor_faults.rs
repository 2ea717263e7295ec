//! A conductor that misbehaves in every way that a network allows: what the agent makes of it, says about it, and how it
//! recovers. Pauses of an hour are simulated beside the heartbeat loop itself; here the sockets are real.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use events::EventKind;
use ferric_agent::clock::{TimeServers, Timekeeper};
use ferric_agent::cmdline::Cmdline;
use ferric_agent::conductor::{Client, Error};
use ferric_agent::config::{Config, Overrides};
use reqwest::Method;
use support::{Conductor, NODE, RunningAgent, TOKEN};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::Microversion;

/// What a server does with a connection after it has read the request.
#[derive(Clone)]
enum Act {
    /// Sends these bytes and closes.
    Say(String),
    /// Never answers.
    Hang,
    /// Resets the connection.
    Reset,
    /// Sends without end.
    Flood,
}

fn reply(status: &str, headers: &str, body: &str) -> Act {
    Act::Say(format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ))
}

fn version() -> Act {
    reply("200 OK", "", r#"{"default_version": {"version": "1.115"}}"#)
}

fn found() -> Act {
    let config =
        serde_json::json!({"heartbeat_timeout": 300, "agent_token": TOKEN, "tls_min_version": "1.3"});
    let body = serde_json::json!({"node": {"uuid": NODE}, "config": config}).to_string();
    reply("200 OK", "", &body)
}

type Requests = Arc<Mutex<Vec<String>>>;

/// A server that does one act after the other, and the last one for ever. Returns its URL and the requests' first lines.
async fn server(acts: Vec<Act>) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let seen = requests.clone();
    tokio::spawn(async move {
        let mut acts = acts.into_iter().peekable();
        let mut last = None;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let act = acts.next().or_else(|| last.clone()).unwrap();
            last = Some(act.clone());
            tokio::spawn(serve(stream, act, seen.clone()));
        }
    });
    (url, requests)
}

async fn serve(mut stream: TcpStream, act: Act, seen: Requests) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(count) => head.extend_from_slice(&bytes[..count]),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    seen.lock().unwrap().push(head.lines().next().unwrap().to_owned());
    match act {
        Act::Say(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Act::Hang => tokio::time::sleep(Duration::from_secs(60)).await,
        Act::Reset => {
            let stream = stream.into_std().unwrap();
            let linger = nix::sys::socket::sockopt::Linger;
            let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            nix::sys::socket::setsockopt(&stream, linger, &now).unwrap();
        }
        Act::Flood => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await;
            while stream.write_all(&[b' '; 65536]).await.is_ok() {}
        }
    }
}

fn client(cmdline: &str) -> Client {
    ferric_agent::install_crypto_provider();
    let host = sys::fake::host("/nonexistent");
    let (config, _) = Config::load(&host, &Cmdline::parse(cmdline), &Overrides::default()).unwrap();
    let keeper = Timekeeper::new(host.clone(), events::Events::default(), TimeServers::default(), false);
    Client::new(&host, &config, &keeper).unwrap()
}

/// What a call to a server that acts like this ends with, in words.
async fn told(act: Act) -> String {
    let (url, _) = server(vec![act]).await;
    let client = client(&format!("ipa-api-url={url} ipa-http-request-timeout=1"));
    client.version().await.map(|version| panic!("{version}")).unwrap_err().told()
}

#[tokio::test]
async fn every_fault_is_a_failure_in_bounded_time_and_says_what_it_was() {
    let begun = Instant::now();
    let huge = "x".repeat(100_000);
    for (act, expected) in [
        (reply("500 Oops", "", "Traceback"), "answered 500: Traceback"),
        (reply("503 Busy", "retry-after: 7\r\n", ""), "answered 503"),
        (reply("401 No", "", r#"{"error_message": "who are you"}"#), "endpoints of agents need no login"),
        (
            reply("200 OK", "content-type: text/html\r\n", "<html>\n<h1>It works</h1>"),
            "a version document: <html> <h1>It works",
        ),
        (reply("200 OK", "", r#"{"default_version": {"ver"#), "something else than a version document"),
        (
            reply("200 OK", "", r#"{"default_version": {"version": "two"}}"#),
            "something else than a version document",
        ),
        (reply("500 Oops", "", &huge), "xxx..."),
        (Act::Say("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{".into()), "calling http://127.0.0.1"),
        (Act::Say("SSH-2.0-OpenSSH_9.9\r\n".into()), "calling http://127.0.0.1"),
        (Act::Say(String::new()), "calling http://127.0.0.1"),
        (Act::Reset, "calling http://127.0.0.1"),
        (Act::Hang, "calling http://127.0.0.1"),
        (Act::Flood, "longer than"),
        (
            reply("302 Found", "location: http://elsewhere.example/\r\n", ""),
            "redirects to http://elsewhere.example/",
        ),
    ] {
        let text = told(act).await;
        assert!(text.contains(expected), "{expected:?} is not in {text:?}");
        assert!(text.len() < 1000, "{} characters", text.len());
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    let text = client("ipa-api-url=http://no.such.name.invalid:6385").version().await.unwrap_err().told();
    assert!(text.contains("no.such.name.invalid"), "{text}");
}

#[tokio::test]
async fn patience_that_is_asked_for_is_kept_with_the_error() {
    let (url, _) = server(vec![reply("503 Busy", "retry-after: 7\r\n", "later")]).await;
    let error = client(&format!("ipa-api-url={url}")).version().await.unwrap_err();
    assert_eq!((error.status(), error.retry_after()), (Some(503), Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn a_get_follows_its_own_host_and_a_post_goes_nowhere_else() {
    let (url, requests) =
        server(vec![reply("301 Moved", "location: /api/v1/lookup?addresses=a\r\n", ""), found()]).await;
    let client = client(&format!("ipa-api-url={url}"));
    let version = Some(Microversion::new(1, 62));
    let answer = client.call(Method::GET, "/v1/lookup?addresses=a", version, None).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(
        *requests.lock().unwrap(),
        ["GET /v1/lookup?addresses=a HTTP/1.1", "GET /api/v1/lookup?addresses=a HTTP/1.1"]
    );

    let (url, requests) = server(vec![reply("307 Moved", "location: /elsewhere\r\n", "")]).await;
    let posting = self::client(&format!("ipa-api-url={url}"));
    let error = posting.call(Method::POST, "/v1/heartbeat/u", version, Some(b"{}")).await.unwrap_err();
    assert!(matches!(error, Error::Redirected { .. }), "{error}");
    assert_eq!(requests.lock().unwrap().len(), 1);

    let (url, requests) = server(vec![reply("302 Round", "location: /\r\n", "")]).await;
    assert!(self::client(&format!("ipa-api-url={url}")).version().await.is_err());
    assert_eq!(requests.lock().unwrap().len(), 4, "a circle ends");
}

#[tokio::test]
async fn after_not_acceptable_the_version_is_asked_for_anew() {
    let older = reply("200 OK", "", r#"{"default_version": {"version": "1.50"}}"#);
    let (url, requests) = server(vec![version(), reply("406 No", "", ""), older, found()]).await;
    let client = client(&format!("ipa-api-url={url}"));
    assert_eq!(client.version().await.unwrap(), Microversion::new(1, 115));
    let limits = ferric_agent::conductor::LookupLimits {
        timeout: Duration::from_secs(20),
        interval: Duration::from_millis(10),
    };
    let events = events::Events::default();
    let reply = ferric_agent::conductor::lookup(&client, &["a".into()], None, limits, &events).await.unwrap();
    assert_eq!(reply.node.uuid, NODE);
    assert_eq!(client.version().await.unwrap(), Microversion::new(1, 50));
    assert_eq!(requests.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn lookup_outlasts_a_row_of_faults_and_tells_each() {
    let page = reply("200 OK", "", "<html>");
    let cut = reply("200 OK", "", r#"{"node": {"uuid": "1"#);
    let (url, requests) =
        server(vec![Act::Reset, reply("503 Busy", "", ""), page, version(), cut, found()]).await;
    let client = client(&format!("ipa-api-url={url}"));
    let limits = ferric_agent::conductor::LookupLimits {
        timeout: Duration::from_secs(60),
        interval: Duration::from_millis(10),
    };
    let events = events::Events::default();
    let reply = ferric_agent::conductor::lookup(&client, &["a".into()], None, limits, &events).await.unwrap();
    assert_eq!(reply.config.heartbeat_timeout, 300);
    assert_eq!(requests.lock().unwrap().len(), 6);
    let page = events.after(0, 100);
    let reasons = page.events.iter().filter_map(|event| match &event.kind {
        EventKind::Retrying { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    let reasons: Vec<_> = reasons.collect();
    assert_eq!(reasons.len(), 4, "{reasons:#?}");
    assert!(
        reasons[1].contains("503") && reasons[2].contains("<html>") && reasons[3].contains("lookup reply")
    );
}

#[tokio::test]
async fn a_conductor_that_goes_away_is_waited_for_while_the_agent_serves_on() {
    let conductor = Conductor::start().await;
    let agent = RunningAgent::start(&conductor, true);
    let caller = support::Caller::of(&conductor.heartbeat(1).await);
    // From now on it answers nothing but nonsense: 503, 500, 409, then it is back.
    conductor.seen.heartbeat_script.lock().unwrap().extend([503, 500, 409]);
    let step =
        serde_json::json!({"step": "break", "interface": "deploy", "priority": 1, "reboot_requested": false});
    let node = serde_json::json!({"uuid": NODE});
    let params = serde_json::json!({"step": step, "node": node, "ports": [], "deploy_version": null});
    caller.command(false, "deploy.execute_deploy_step", params).await; // its end forces a heartbeat
    let waiting = async {
        while conductor.seen.heartbeats.lock().unwrap().len() < 5 {
            assert_eq!(caller.list().await.len(), 1, "the agent serves meanwhile");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("the heartbeats did not go on");
    let page = agent.events.after(0, 1000);
    let notices = page.events.iter().filter_map(|event| match &event.kind {
        EventKind::Notice { message } => Some(message.as_str()),
        _ => None,
    });
    let notices = notices.collect::<Vec<_>>();
    assert!(
        notices
            .iter()
            .any(|text| text.contains("waiting for the conductor: heartbeat") && text.contains("503")),
        "{notices:#?}"
    );
    assert!(notices.iter().any(|text| text.contains("the conductor answers again")), "{notices:#?}");
    agent.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_is_asked_for_by_its_id_before_a_disk_is_chosen_without_hints() {
    let conductor = Conductor::start().await;
    let limits = ferric_agent::conductor::LookupLimits {
        timeout: Duration::from_secs(3),
        interval: Duration::from_millis(10),
    };
    let client = Arc::new(client(&format!("ipa-api-url={}", conductor.url)));
    let source = ferric_agent::conductor::node_source(client, vec![support::MAC.into()], limits);
    let asking = source.clone();
    let node = tokio::task::spawn_blocking(move || asking(NODE)).await.unwrap().unwrap();
    assert_eq!(node["uuid"], NODE);
    let (query, version) = conductor.seen.lookups.lock().unwrap()[0].clone();
    assert_eq!((query, version.as_str()), (format!("addresses={}&node_uuid={NODE}", support::MAC), "1.62"));
    conductor.seen.lookup_script.lock().unwrap().extend([404; 50]);
    assert_eq!(tokio::task::spawn_blocking(move || source(NODE)).await.unwrap(), None);
}

#[tokio::test]
async fn a_token_that_somebody_has_fetched_before_is_told_with_its_remedy() {
    let config = serde_json::json!({"heartbeat_timeout": 300, "agent_token": "******"});
    let body = serde_json::json!({"node": {"uuid": NODE}, "config": config}).to_string();
    let (url, _) = server(vec![version(), reply("200 OK", "", &body)]).await;
    let agent = RunningAgent::start(&Conductor { url, seen: Arc::default() }, true);
    let ended = tokio::time::timeout(Duration::from_secs(20), agent.ended).await.expect("it goes on");
    let text = ended.unwrap().unwrap_err().to_string();
    assert!(text.contains("has given out the token") && text.contains("power-cycle the node"), "{text}");
}

async fn lookup_of(body: serde_json::Value) -> Result<wire::LookupReply, ferric_agent::conductor::Error> {
    let (url, _) = server(vec![version(), reply("200 OK", "", &body.to_string())]).await;
    let limits = ferric_agent::conductor::LookupLimits {
        timeout: Duration::from_millis(300),
        interval: Duration::from_millis(200),
    };
    let client = client(&format!("ipa-api-url={url}"));
    ferric_agent::conductor::lookup(&client, &["a".into()], None, limits, &events::Events::default()).await
}

#[tokio::test]
async fn one_odd_optional_value_does_not_refuse_the_lookup() {
    let config = serde_json::json!({
        "heartbeat_timeout": 300.0, "agent_token": TOKEN, "permitted_image_formats": "raw,qcow2",
        "agent_md5_checksum_enable": "true", "tls_min_version": null, "agent_skip_bmc_detect": {"no": "sense"},
    });
    let found =
        lookup_of(serde_json::json!({"node": {"uuid": NODE}, "config": config})).await.unwrap().config;
    assert_eq!(found.heartbeat_timeout, 300);
    assert_eq!(found.permitted_image_formats.unwrap(), ["raw", "qcow2"]);
    assert_eq!((found.agent_md5_checksum_enable, found.agent_skip_bmc_detect), (Some(true), None));
}

#[tokio::test]
async fn a_node_whose_uuid_leads_to_another_path_is_refused() {
    let config = serde_json::json!({"heartbeat_timeout": 300, "agent_token": TOKEN});
    for uuid in ["../../../etc/passwd?x=", "a/b", "..", "u#x"] {
        let error =
            lookup_of(serde_json::json!({"node": {"uuid": uuid}, "config": config})).await.unwrap_err();
        assert!(error.told().contains("can not stand in the path of a URL"), "{}", error.told());
    }
}
