//! The client towards the conductor: several URLs, versions, headers, trust.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use ferric_agent::api;
use ferric_agent::clock::{TimeServers, Timekeeper};
use ferric_agent::cmdline::Cmdline;
use ferric_agent::conductor::{Client, Error};
use ferric_agent::config::{Config, Curve, Overrides, TlsVersion};
use reqwest::Method;
use wire::Microversion;

type Requests = Arc<Mutex<Vec<String>>>;

/// A server that answers everything with one body and writes down what it was asked.
async fn server(body: &'static str) -> (String, Requests) {
    let requests = Requests::default();
    let seen = requests.clone();
    let router = Router::new().fallback(move |request: Request| {
        let header = |name: &str| {
            let value = request.headers().get(name);
            value.map_or("-".to_owned(), |value| value.to_str().unwrap().to_owned())
        };
        let line = format!(
            "{} {} {} {} {}",
            request.method(),
            request.uri(),
            header("content-type"),
            header("x-openstack-ironic-api-version"),
            header("x-openstack-request-id")
        );
        seen.lock().unwrap().push(line);
        async move { body }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, requests)
}

/// A port on which nobody listens.
async fn dead() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn client(root: &Path, cmdline: &str) -> Client {
    ferric_agent::install_crypto_provider();
    let host = sys::fake::host(root);
    let (config, _) = Config::load(&host, &Cmdline::parse(cmdline), &Overrides::default()).unwrap();
    let keeper = Timekeeper::new(host.clone(), events::Events::default(), TimeServers::default(), false);
    Client::new(&host, &config, &keeper).unwrap()
}

const EMPTY: &str = "/nonexistent"; // a ramdisk without trust anchors

#[tokio::test]
async fn the_url_that_answers_goes_first_from_then_on() {
    let dead = dead().await;
    let (alive, requests) = server("{}").await;
    let cmdline = format!("ipa-api-url={dead},{alive} ipa-global-request-id=req-7");
    let client = client(EMPTY.as_ref(), &cmdline);
    assert_eq!(client.urls(), [dead.clone(), alive.clone()]);
    let version = Some(Microversion::new(1, 68));
    let reply = client.call(Method::POST, "/v1/heartbeat/u", version, Some(b"{}")).await.unwrap();
    assert_eq!((reply.status, reply.url), (200, format!("{alive}/v1/heartbeat/u")));
    assert_eq!(client.urls(), [alive, dead]);
    client.call(Method::GET, "/v1/lookup?addresses=a", version, None).await.unwrap();
    assert_eq!(
        *requests.lock().unwrap(),
        [
            "POST /v1/heartbeat/u application/json 1.68 req-7",
            "GET /v1/lookup?addresses=a application/json 1.68 req-7"
        ]
    );
}

#[tokio::test]
async fn versions_are_asked_for_once_assumed_when_there_are_none_and_an_error_without_an_answer() {
    let (modern, requests) = server(r#"{"default_version": {"version": "1.115"}}"#).await;
    let asking = client(EMPTY.as_ref(), &format!("ipa-api-url={modern}"));
    for _ in 0..2 {
        assert_eq!(asking.version().await.unwrap(), Microversion::new(1, 115));
    }
    assert_eq!(
        *requests.lock().unwrap(),
        ["GET / application/json - -"],
        "without a version header, and once"
    );

    let (silent, requests) = server("{}").await;
    let asking = client(EMPTY.as_ref(), &format!("ipa-api-url={silent}"));
    for _ in 0..2 {
        assert_eq!(asking.version().await.unwrap(), Microversion::FALLBACK);
    }
    assert_eq!(requests.lock().unwrap().len(), 2, "what was assumed is not remembered");

    // Somebody who stands in for the conductor while it restarts: with 1.31 the lookup would yield no token.
    let (page, _) = server("<html>back soon</html>").await;
    let error = client(EMPTY.as_ref(), &format!("ipa-api-url={page}")).version().await.unwrap_err();
    assert!(
        error.told().contains("answered something else than a version document: <html>back soon"),
        "{}",
        error.told()
    );

    let told = client(EMPTY.as_ref(), "ipa-ironic-api-version=1.50");
    assert_eq!(told.version().await.unwrap(), Microversion::new(1, 50));
    let gone = client(EMPTY.as_ref(), &format!("ipa-api-url={}", dead().await));
    assert!(matches!(gone.version().await, Err(Error::Connection { .. })));
    assert!(matches!(client(EMPTY.as_ref(), "").version().await, Err(Error::NoUrl)));
}

/// An agent's API plays the conductor here: any https server does.
async fn https(pem_directory: &Path) -> (String, tokio::sync::watch::Sender<bool>) {
    ferric_agent::install_crypto_provider();
    let certificate = api::generate("127.0.0.1", "box", Curve::P256, Duration::from_secs(60)).unwrap();
    std::fs::write(pem_directory.join("ca.pem"), &certificate.pem).unwrap();
    let tls = api::server_config(&certificate, TlsVersion::V1_2).unwrap();
    let bound = api::bind(Some("127.0.0.1"), 0).unwrap();
    let url = format!("https://{}", bound.address);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let router = Router::new().fallback(|| async { "{}" });
    tokio::spawn(api::serve(bound, router, Some(tls), api::Limits::default(), stopped));
    (url, stop)
}

#[tokio::test]
async fn a_server_is_trusted_by_the_configured_anchor_or_when_told_to_trust_anyone() {
    let root = tempfile::tempdir().unwrap();
    let (url, _stop) = https(root.path()).await;
    let call = async |cmdline: String| client(root.path(), &cmdline).call(Method::GET, "/", None, None).await;
    assert!(matches!(call(format!("ipa-api-url={url}")).await, Err(Error::Connection { .. })));
    assert!(call(format!("ipa-api-url={url} ipa-insecure=1")).await.is_ok());
    let etc = root.path().join("etc/ironic-python-agent.d");
    std::fs::create_dir_all(&etc).unwrap();
    std::fs::write(etc.join("tls.conf"), "[DEFAULT]\ncafile = /ca.pem\n").unwrap();
    assert!(call(format!("ipa-api-url={url}")).await.is_ok());
    assert!(call(format!("ipa-api-url={url} ipa-tls-min-version=1.3")).await.is_ok());
}
