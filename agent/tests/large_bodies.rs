//! Config drives of tens of megabytes: accepted, held in memory once, and bounded. A process of its own, for it measures itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use events::Events;
use ferric_agent::api::{self, Api, Limits, Token};
use ferric_agent::command::Executor;
use serde_json::Value;
use support::TOKEN;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: usize = 1024 * 1024;
const DRIVE: usize = 64 * MIB;

fn kib(key: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn resident() -> usize {
    kib("VmRSS:") * 1024
}

async fn exchange(port: u16, head: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    for part in parts {
        if stream.write_all(part).await.is_err() {
            break; // refused before it was read to the end
        }
    }
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await; // an early refusal may reset the connection
    reply
}

fn head(method: &str, length: usize) -> String {
    format!(
        "{method} /v1/commands/?wait=true&agent_token={TOKEN} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_drive_is_accepted_echoed_and_in_memory_once() {
    let root = tempfile::tempdir().unwrap();
    let events = Events::default();
    let executor = Executor::new(Arc::new(support::extensions(root.path())), events.clone(), || {});
    let api = Api::new(executor, Token::new(Some(wire::Secret::new(TOKEN))), &events, "http");
    let limit = api.body.bytes;
    let bound = api::bind(Some("127.0.0.1"), 0).unwrap();
    let port = bound.address.port();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(api::serve(bound, api.router(), None, Limits::default(), stopped));

    let start = r#"{"name": "deploy.execute_deploy_step", "params": {"node": {"uuid": "u"}, "ports": [], "step": {"step": "write_image", "interface": "deploy", "args": {"configdrive": ""#;
    let drive = vec![b'A'; DRIVE];
    let end = br#""}}}}"#;
    let before = resident();
    let length = start.len() + drive.len() + end.len();
    let reply = exchange(port, &head("POST", length), &[start.as_bytes(), &drive, end]).await;
    assert!(reply.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&reply[..200]));
    assert!(reply.len() > DRIVE, "the echo is whole");
    drop(reply);

    // Read in small pieces: the test shall not count its own copy.
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(head("GET", 0).as_bytes()).await.unwrap();
        let (mut piece, mut total) = (vec![0; 64 * 1024], 0);
        loop {
            match stream.read(&mut piece).await.unwrap() {
                0 => break,
                length => total += length,
            }
        }
        assert!(total > DRIVE, "{total}");
    }
    let kept = resident().saturating_sub(before);
    let peak = (kib("VmHWM:") * 1024).saturating_sub(before);
    println!("kept {} MiB, at most {} MiB", kept / MIB, peak / MIB);
    // Body, parsed value, echo, and the test's own copy of the first reply (which grows by doubling).
    assert!(peak < 6 * DRIVE, "{} MiB at the peak", peak / MIB);

    for (announced, sent) in [(limit + 1, 0), (limit * 10, MIB)] {
        let reply = exchange(port, &head("POST", announced), &[&drive[..sent]]).await;
        assert!(reply.starts_with(b"HTTP/1.1 413"), "{announced}: {:?}", String::from_utf8_lossy(&reply));
    }
    let list = exchange(port, &head("GET", 0), &[]).await;
    let at = list.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let list: Value = serde_json::from_slice(&list[at..]).unwrap();
    assert_eq!(list["commands"].as_array().unwrap().len(), 1);
    assert_eq!(list["commands"][0]["command_status"], "SUCCEEDED");

    // The next command shows that the conductor has read the echo: its memory is given back.
    drop(list);
    let sync = br#"{"name": "standby.sync", "params": {}}"#;
    let reply = exchange(port, &head("POST", sync.len()), &[sync]).await;
    assert!(reply.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&reply));
    let list = exchange(port, &head("GET", 0), &[]).await;
    assert!(list.len() < MIB, "{} bytes", list.len());
    let at = list.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let list: Value = serde_json::from_slice(&list[at..]).unwrap();
    assert_eq!(list["commands"][0]["command_status"], "SUCCEEDED");
    assert_eq!(list["commands"].as_array().unwrap().len(), 2);
    let kept = resident().saturating_sub(before).saturating_sub(drive.len());
    println!("kept {} MiB after the next command", kept / MIB);
}
