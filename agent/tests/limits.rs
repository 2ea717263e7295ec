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
    fn run(&self, _: Command) -> Result<Outcome, Failure> {
        Ok(Outcome::Nothing)
    }
}

struct Served {
    port: u16,
    _stop: watch::Sender<bool>,
}

const TOKEN: &str = "tokentokentokentokentokentokentoken";

fn serve(host: Option<&str>, limits: Limits, body_limit: usize, tls: bool) -> Served {
    let events = Events::default();
    let executor = Executor::new(Arc::new(Idle), events.clone(), || {});
    let token = Token::new(Some(wire::Secret::new(TOKEN)));
    let mut api = Api::new(executor, token, &events, "http");
    api.body.bytes = body_limit;
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
        Err(error) => eprintln!("skipped the IPv6 half: {error}"),
    }
}
