//! The client towards the conductor: several URLs, versions, headers, trust.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
// A test of the environment needs a process of its own.
#![allow(clippy::disallowed_methods)]

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

/// A server that answers each request with the next status of a list, the last one forever.
async fn of_statuses(statuses: &'static [u16]) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = asked.clone();
    let router = Router::new().fallback(move || {
        let number = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let status = statuses.get(number).or(statuses.last()).copied().unwrap();
        async move { (axum::http::StatusCode::from_u16(status).unwrap(), "{}") }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

async fn statuses_of(client: &Client, calls: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..calls {
        statuses.push(client.call(Method::GET, "/v1/lookup", None, None).await.unwrap().status);
    }
    statuses
}

#[tokio::test]
async fn a_url_that_goes_on_answering_503_is_left_for_the_next_one() {
    let (busy, asked) = of_statuses(&[503]).await;
    let (good, _) = of_statuses(&[200]).await;
    let both = client(EMPTY.as_ref(), &format!("ipa-api-url={busy},{good}"));
    assert_eq!(statuses_of(&both, 5).await, [503, 503, 200, 200, 200]);
    assert_eq!(both.urls(), [good.clone(), busy.clone()]);
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 3, "the good one goes first now");

    // A hiccup changes nothing, and an answer in between starts the count again.
    let (hiccup, _) = of_statuses(&[503, 503, 404, 500, 502, 200]).await;
    let calm = client(EMPTY.as_ref(), &format!("ipa-api-url={hiccup},{good}"));
    assert_eq!(statuses_of(&calm, 6).await, [503, 503, 404, 500, 502, 200]);
    assert_eq!(calm.urls()[0], hiccup);

    // Where no other does better the error is the answer, and the order stays.
    let dead = dead().await;
    let alone = client(EMPTY.as_ref(), &format!("ipa-api-url={busy},{dead}"));
    assert_eq!(statuses_of(&alone, 4).await, [503; 4]);
    // The first comes back once the second fails.
    let (tired, _) = of_statuses(&[200, 503]).await;
    let (back, _) = of_statuses(&[503, 503, 503, 200]).await;
    let turns = client(EMPTY.as_ref(), &format!("ipa-api-url={back},{tired}"));
    assert_eq!(statuses_of(&turns, 6).await, [503, 503, 200, 503, 503, 200]);
    assert_eq!(turns.urls(), [back, tired]);
}

#[tokio::test]
async fn the_conductor_is_called_directly_whatever_the_environment_says_about_proxies() {
    const CHILD: &str = "FERRIC_TEST_PROXY";
    // The environment of this process belongs to all tests, so a process of its own runs this one.
    if std::env::var_os(CHILD).is_none() {
        let (proxy, requests) = server("{}").await;
        let name = "the_conductor_is_called_directly_whatever_the_environment_says_about_proxies";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
        for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            child.env(variable, &proxy);
        }
        let done = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        assert!(requests.lock().unwrap().is_empty(), "{requests:?}");
        return;
    }
    let (conductor, requests) = server("{}").await;
    let direct = client(EMPTY.as_ref(), &format!("ipa-api-url={conductor}"));
    direct.call(Method::GET, "/v1/lookup", None, None).await.unwrap();
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_proxy_of_the_option_is_used_and_named_when_it_fails() {
    let (proxy, requests) = server("{}").await;
    let through = |proxy: &str| {
        client(
            EMPTY.as_ref(),
            &format!("ipa-api-url=http://conductor.invalid:6385 ferric-conductor-proxy={proxy}"),
        )
    };
    through(&proxy).call(Method::GET, "/v1/lookup", None, None).await.unwrap();
    assert!(
        requests.lock().unwrap()[0].contains("GET http://conductor.invalid:6385/v1/lookup"),
        "{requests:?}"
    );
    let dead = dead().await.replace("http://", "http://user:s3cret@");
    let text = through(&dead).call(Method::GET, "/v1/lookup", None, None).await.unwrap_err().told();
    assert!(text.contains("through the proxy http://***@127.0.0.1:") && !text.contains("s3cret"), "{text}");
}

#[tokio::test]
async fn user_and_password_of_the_api_url_are_in_no_error_and_are_sent() {
    let (good, _) = server("{}").await;
    let with = |url: &str| url.replace("http://", "http://user:s3cret@");
    let answered = client(EMPTY.as_ref(), &format!("ipa-api-url={}", with(&good)));
    let reply = answered.call(Method::GET, "/v1/lookup?addresses=a", None, None).await.unwrap();
    assert!(reply.url.starts_with("http://***@127.0.0.1"), "{}", reply.url);
    assert!(!answered.shown_urls().contains("s3cret"));
    let silent =
        client(EMPTY.as_ref(), &format!("ipa-api-url={},{}", with(&dead().await), with(&dead().await)));
    let text = silent.call(Method::GET, "/", None, None).await.unwrap_err().told();
    assert!(text.contains("http://***@") && !text.contains("s3cret"), "{text}");
}
