//! What a slow, greedy or silent client costs the agent: little. Real sockets, with bounds short enough to wait for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::Events;
use ferric_agent::api::{self, Api, Limits, Token};
use ferric_agent::command::{Command, Executor, Failure, Handler, Outcome};
use ferric_agent::config::{Curve, TlsVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

struct Idle;

impl Handler for Idle {
    fn run(&self, command: Command) -> Result<Outcome, Failure> {
        // A step stays for a while, so that others can be sent meanwhile.
        if let Command::ExecuteStep(call) = &command {
            let patience = call.step.get("seconds").and_then(serde_json::Value::as_f64).unwrap_or(0.0);
            std::thread::sleep(Duration::from_secs_f64(patience));
        }
        Ok(Outcome::Nothing)
    }
}

struct Served {
    port: u16,
    _stop: watch::Sender<bool>,
}

const TOKEN: &str = "tokentokentokentokentokentokentoken";

fn serve(host: Option<&str>, limits: Limits, body_limit: usize, tls: bool) -> Served {
    serve_with(host, limits, tls, |api| api.body.bytes = body_limit)
}

fn serve_with(host: Option<&str>, limits: Limits, tls: bool, settle: impl FnOnce(&mut Api)) -> Served {
    let events = Events::default();
    let executor = Executor::new(Arc::new(Idle), events.clone(), || {});
    let token = Token::new(Some(wire::Secret::new(TOKEN)));
    let mut api = Api::new(executor, token, &events, "http");
    settle(&mut api);
    let bound = api::bind(host, 0).unwrap();
    let port = bound.address.port();
    let tls = tls.then(|| {
        let certificate = api::generate("127.0.0.1", "box", Curve::P256, Duration::ZERO).unwrap();
        api::server_config(&certificate, TlsVersion::V1_2).unwrap()
    });
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(api::serve(bound, api.router(), tls, limits, stopped));
    Served { port, _stop: stop }
}

fn short() -> Limits {
    let limit = Duration::from_millis(300);
    Limits { connections: 2, handshake: limit, head: limit, grace: limit, farewell: limit }
}

/// Sends bytes and reads until the server closes the connection.
async fn exchange(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut reply = Vec::new();
    let reading = stream.read_to_end(&mut reply);
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("the server keeps a connection").ok();
    String::from_utf8_lossy(&reply).into_owned()
}

#[tokio::test]
async fn heads_and_handshakes_that_do_not_come_are_not_waited_for() {
    let plain = serve(Some("127.0.0.1"), short(), 1000, false);
    let begun = Instant::now();
    exchange(plain.port, b"GET /v1/status HTTP/1.1\r\nHost").await;
    exchange(plain.port, b"").await;
    let tls = serve(Some("127.0.0.1"), short(), 1000, true);
    exchange(tls.port, b"").await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let reply =
        exchange(plain.port, b"GET /v1/status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

#[tokio::test]
async fn a_body_is_read_only_for_those_who_know_the_token_and_only_up_to_its_limit() {
    let served = serve(Some("127.0.0.1"), short(), 1000, false);
    let post = |token: &str, length: usize| {
        format!(
            "POST /v1/commands/?agent_token={token} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    // Nothing of the body is sent: a server that waited for it would not answer.
    let reply = exchange(served.port, post("wrong", 90_000_000).as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 401"), "{reply}");
    let mut long = post(TOKEN, 90_000_000).into_bytes();
    long.extend([b' '; 2000]);
    let reply = exchange(served.port, &long).await;
    assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");
    assert!(
        reply.contains(r#""faultstring":"413 Payload Too Large: the body is longer than 1000 bytes""#),
        "{reply}"
    );
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_a_free_place() {
    let limits = Limits { head: Duration::from_millis(700), ..short() };
    let served = serve(Some("127.0.0.1"), limits, 1000, false);
    let begun = Instant::now();
    let silent = (0..2).map(|_| exchange(served.port, b""));
    let silent = futures_util::future::join_all(silent);
    let asking = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        exchange(served.port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await
    };
    let (_, reply) = tokio::join!(silent, asking);
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn without_a_host_both_families_are_served_by_one_socket() {
    let served = serve(None, short(), 1000, false);
    let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert!(exchange(served.port, request).await.starts_with("HTTP/1.1 200"));
    match TcpStream::connect(("::1", served.port)).await {
        Ok(mut stream) => {
            stream.write_all(request).await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        }
        Err(error) => {
            let text = format!("SKIPPED: the IPv6 half: {error}\n"); // past cargo's capture: it counts
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        }
    }
}

/// A POST of a command, closing the connection.
fn post(body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /v1/commands/?agent_token={TOKEN} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

fn list() -> Vec<u8> {
    format!("GET /v1/commands/?agent_token={TOKEN} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

fn body_of(reply: &str) -> serde_json::Value {
    let (_, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {reply}"));
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn roomy() -> Limits {
    Limits { grace: Duration::from_millis(300), ..Limits::default() }
}

#[tokio::test]
async fn silent_strangers_make_room_for_whoever_knows_the_token() {
    let limits = Limits { connections: 4, head: Duration::from_secs(60), ..short() };
    let served = serve(Some("127.0.0.1"), limits, 1000, false);
    let mut strangers = Vec::new();
    for _ in 0..12 {
        strangers.push(TcpStream::connect(("127.0.0.1", served.port)).await.unwrap());
    }
    let begun = Instant::now();
    let reply = exchange(served.port, &list()).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(strangers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sockets_do_not_keep_the_conductor_out() {
    let served = serve(Some("127.0.0.1"), Limits { connections: 64, ..Limits::default() }, 1000, false);
    let mut strangers = Vec::new();
    for _ in 0..400 {
        strangers.push(TcpStream::connect(("127.0.0.1", served.port)).await.unwrap());
    }
    for _ in 0..3 {
        let begun = Instant::now();
        let reply = exchange(served.port, &list()).await;
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    // One byte is not a request either.
    for stranger in &mut strangers {
        let _ = stranger.write_all(b"G").await; // closed already: fine
    }
    let mut half = Vec::new();
    for _ in 0..100 {
        let mut stranger = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
        stranger.write_all(b"GET /v1/status HTTP/1.1\r\n").await.unwrap();
        half.push(stranger);
    }
    let begun = Instant::now();
    let reply = exchange(served.port, &list()).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_body_that_trickles_ends_with_408_and_one_that_stops_as_well() {
    let served = serve_with(Some("127.0.0.1"), roomy(), false, |api| {
        api.body.silence = Duration::from_millis(400);
        api.body.total = Duration::from_millis(1200);
    });
    let head = String::from_utf8(post(&" ".repeat(1000))).unwrap();
    let head = head.split("\r\n\r\n").next().unwrap().to_owned() + "\r\n\r\n";
    let reply = exchange(served.port, head.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 408") && reply.contains("too slowly"), "{reply}");

    let mut stream = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let trickle = tokio::spawn(async move {
        while writing.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let begun = Instant::now();
    let mut reply = vec![0; 4096];
    let length =
        tokio::time::timeout(Duration::from_secs(10), reading.read(&mut reply)).await.unwrap().unwrap();
    assert!(reply[..length].starts_with(b"HTTP/1.1 408"));
    assert!(begun.elapsed() >= Duration::from_millis(1000), "{:?}", begun.elapsed());
    trickle.abort();
}

#[tokio::test]
async fn a_head_that_trickles_ends_the_connection() {
    let served = serve(Some("127.0.0.1"), short(), 1000, false);
    let mut stream = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
    let begun = Instant::now();
    for byte in "GET /v1/status HTTP/1.1\r\nHost: h\r\nX: ".bytes().chain(std::iter::repeat(b'x')) {
        if stream.write_all(&[byte]).await.is_err() || begun.elapsed() > Duration::from_secs(10) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn half_closed_and_pipelined_requests_are_answered() {
    let served = serve(Some("127.0.0.1"), roomy(), 1000, false);
    let mut stream = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
    let request = r#"{"name": "standby.sync", "params": {}}"#;
    let length = request.len();
    let kept = format!(
        "POST /v1/commands/?agent_token={TOKEN} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{request}"
    );
    stream.write_all(format!("{kept}{kept}").as_bytes()).await.unwrap();
    stream.write_all(&list()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut reply = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut reply)).await.unwrap().unwrap();
    assert_eq!(reply.matches("HTTP/1.1 200 OK").count(), 3, "{reply}");
    let list = reply.rsplit("\r\n\r\n").next().unwrap();
    let list: serde_json::Value = serde_json::from_str(list).unwrap();
    assert_eq!(list["commands"].as_array().unwrap().len(), 2, "in the order in which they came");
}

#[tokio::test]
async fn what_is_no_command_is_told_so_and_leaves_no_trace() {
    let served = serve(Some("127.0.0.1"), roomy(), 10_000_000, false);
    let deep = format!(
        r#"{{"name": "standby.sync", "params": {{"a": {}{}}}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let wide = format!(r#"{{"name": "{}.x", "params": {{}}}}"#, "x".repeat(1_000_000));
    for (body, status) in [
        ("", 400),
        ("\u{0}\u{1}\u{2}", 400),
        ("{\"name\": \"standby.sync\", \"params\": {}", 400),
        (r#""standby.sync""#, 400),
        ("null", 400),
        ("1e999", 400),
        (r#"{"name": null, "params": {}}"#, 400),
        (r#"{"name": ["standby.sync"], "params": {}}"#, 400),
        (r#"{"name": "standby.sync", "params": null}"#, 400),
        (r#"{"name": "", "params": {}}"#, 400),
        (r#"{"name": ".", "params": {}}"#, 404),
        (r#"{"name": "standby.", "params": {}}"#, 400),
        (r#"{"name": "\ud83d\ude00.x", "params": {}}"#, 404),
        (deep.as_str(), 400),
        (wide.as_str(), 404),
    ] {
        let reply = exchange(served.port, &post(body)).await;
        let shown = body.get(..60).unwrap_or(body);
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status} ")),
            "{shown}: {}",
            reply.get(..200).unwrap_or(&reply)
        );
        assert!(body_of(&reply)["faultstring"].is_string(), "{shown}");
    }
    assert_eq!(body_of(&exchange(served.port, &list()).await)["commands"], serde_json::json!([]));
}

/// Sends many requests over one connection, and returns the statuses.
async fn many(port: u16, count: usize, request: impl Fn(usize) -> String) -> Vec<u16> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (reading, mut writing) = stream.into_split();
    let requests: Vec<String> = (0..count).map(request).collect();
    let send = async move {
        for request in requests {
            writing.write_all(request.as_bytes()).await.unwrap();
        }
        writing // kept open until everything was read
    };
    let receive = async {
        let mut reader = tokio::io::BufReader::new(reading);
        let mut statuses = Vec::new();
        while statuses.len() < count {
            use tokio::io::AsyncBufReadExt;
            let (mut line, mut length) = (String::new(), 0);
            reader.read_line(&mut line).await.unwrap();
            statuses.push(line.split(' ').nth(1).unwrap().parse().unwrap());
            loop {
                line.clear();
                reader.read_line(&mut line).await.unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).await.unwrap();
        }
        statuses
    };
    let (_writing, statuses) = tokio::join!(send, receive);
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_unknown_commands_are_refused_and_not_kept() {
    let served = serve(Some("127.0.0.1"), roomy(), 10_000, false);
    let statuses = many(served.port, 10_000, |at| {
        let name = if at % 2 == 0 { format!("nosuch{at}.x") } else { format!("clean.nosuch{at}") };
        let body = format!(r#"{{"name": "{name}", "params": {{"filler": "{at}"}}}}"#);
        let length = body.len();
        format!(
            "POST /v1/commands/?agent_token={TOKEN} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    });
    let statuses = statuses.await;
    assert!(statuses.iter().enumerate().all(|(at, status)| *status == if at % 2 == 0 { 404 } else { 400 }));
    assert_eq!(body_of(&exchange(served.port, &list()).await)["commands"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_parallel_polls_do_not_disturb_a_running_step() {
    let served = serve(Some("127.0.0.1"), roomy(), 10_000, false);
    let step = r#"{"name": "clean.execute_clean_step", "params": {"node": {"uuid": "u"}, "ports": [], "step": {"step": "s", "seconds": 4}}}"#;
    let begun = body_of(&exchange(served.port, &post(step)).await);
    assert_eq!(begun["command_status"], "RUNNING");
    // Sent as soon as it is connected: one that has sent nothing leaves when all places are taken.
    let mut streams = Vec::new();
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
        stream.write_all(&list()).await.unwrap();
        streams.push(stream);
    }
    let polls = streams.into_iter().map(|mut stream| async move {
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    });
    let replies = tokio::time::timeout(Duration::from_secs(60), futures_util::future::join_all(polls));
    for reply in replies.await.expect("the polls take too long") {
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        assert_eq!(body_of(&reply)["commands"][0]["id"], begun["id"]);
    }
    let busy = exchange(served.port, &post(r#"{"name": "standby.sync", "params": {}}"#)).await;
    assert!(busy.starts_with("HTTP/1.1 409") || busy.starts_with("HTTP/1.1 200"), "{busy}");
    let path = format!("/v1/commands/{}?wait=true&agent_token={TOKEN}", begun["id"].as_str().unwrap());
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let done = body_of(&exchange(served.port, request.as_bytes()).await);
    assert_eq!(done["command_status"], "SUCCEEDED", "{done}");
}
