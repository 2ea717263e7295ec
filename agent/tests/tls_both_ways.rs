//! TLS towards the conductor and from it, with a wrong clock, wrong certificates, and the TLS of others (Python's `ssl` and
//! `openssl`, as a conductor has it).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
// The other end of a handshake must be somebody else's program.
#![allow(clippy::disallowed_methods)]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use events::{EventKind, Events};
use ferric_agent::api::{self, ServerSettings, Tls};
use ferric_agent::clock::{TimeServers, Timekeeper};
use ferric_agent::cmdline::Cmdline;
use ferric_agent::conductor::{Client, Error};
use ferric_agent::config::{Config, Curve, Overrides, TlsVersion};
use reqwest::Method;
use sys::Host;
use sys::fake::{Call, FakeRunner, RecordingKernel};
use tokio::sync::watch;

const YEAR: i64 = 365 * 24 * 3600;
const HOUR: Duration = Duration::from_secs(3600);

/// A server with TLS on loopback.
struct Server {
    url: String,
    port: u16,
    stop: watch::Sender<bool>,
}

impl Server {
    fn start(tls: Tls) -> Self {
        let bound = api::bind(Some("127.0.0.1"), 0).unwrap();
        let (url, port) = (format!("https://{}", bound.address), bound.address.port());
        let (stop, stopped) = watch::channel(false);
        let body = r#"{"default_version": {"version": "1.115"}}"#;
        let router = Router::new().fallback(move || async move { body });
        tokio::spawn(api::serve(bound, router, Some(tls), api::Limits::default(), stopped));
        Self { url, port, stop }
    }
}

/// A certificate for 127.0.0.1, made at `now`; its PEM goes to a file.
fn tls(curve: Curve, now: SystemTime, pem: &Path, settings: impl Into<ServerSettings>) -> Tls {
    ferric_agent::install_crypto_provider();
    let certificate = api::generate_at("127.0.0.1", "box", curve, HOUR, now).unwrap();
    std::fs::write(pem, &certificate.pem).unwrap();
    api::server_config(&certificate, settings).unwrap()
}

/// A machine that calls a conductor. Its clock is off by so many seconds, and may be set.
struct Machine {
    client: Client,
    keeper: Timekeeper,
    kernel: Arc<RecordingKernel>,
    events: Events,
}

impl Machine {
    fn new(root: &Path, off: i64, options: &str) -> Self {
        ferric_agent::install_crypto_provider();
        let kernel = Arc::new(RecordingKernel::default());
        let host = Host::new(root, Arc::new(FakeRunner::default()), kernel.clone());
        let overrides =
            Overrides { values: vec![("cafile".into(), "/ca.pem".into())], ..Overrides::default() };
        let (config, _) = Config::load(&host, &Cmdline::parse(options), &overrides).unwrap();
        let events = Events::default();
        let keeper = Timekeeper::new(host.clone(), events.clone(), TimeServers::default(), false);
        keeper.clock().set_correction_millis(off * 1000);
        Self { client: Client::new(&host, &config, &keeper).unwrap(), keeper, kernel, events }
    }

    async fn call(&self) -> Result<(), Error> {
        self.client.call(Method::GET, "/", None, None).await.map(drop)
    }

    fn clock_was_set(&self) -> bool {
        self.kernel.calls().iter().any(|call| matches!(call, Call::SetClock(_)))
    }

    fn notices(&self) -> String {
        let page = self.events.after(0, 100);
        let text = page.events.iter().filter_map(|event| match &event.kind {
            EventKind::Notice { message } => Some(message.as_str()),
            _ => None,
        });
        text.collect::<Vec<_>>().join("\n")
    }

    /// Seconds between the machine's clock and the right time.
    fn off(&self) -> u64 {
        let (ours, right) = (self.keeper.clock().now(), SystemTime::now());
        ours.duration_since(right).or_else(|_| right.duration_since(ours)).unwrap().as_secs()
    }
}

#[tokio::test]
async fn a_machine_from_2001_learns_the_time_from_a_certificate_it_trusts_and_gets_through() {
    let root = tempfile::tempdir().unwrap();
    let server =
        Server::start(tls(Curve::P256, SystemTime::now(), &root.path().join("ca.pem"), TlsVersion::V1_3));
    let machine = Machine::new(root.path(), -25 * YEAR, &format!("ipa-api-url={}", server.url));
    machine.call().await.unwrap();
    assert!(machine.clock_was_set() && machine.off() <= 2, "{}", machine.notices());
    assert!(machine.notices().contains("25 y behind"), "{}", machine.notices());
    machine.call().await.unwrap();
    assert_eq!(machine.notices().lines().count(), 1, "{}", machine.notices());
}

#[tokio::test]
async fn nobody_turns_the_clock_back_with_an_expired_certificate_unless_the_time_can_not_be() {
    let root = tempfile::tempdir().unwrap();
    let server =
        Server::start(tls(Curve::P256, SystemTime::now(), &root.path().join("ca.pem"), TlsVersion::V1_3));
    let url = format!("ipa-api-url={}", server.url);
    let machine = Machine::new(root.path(), YEAR, &url);
    let text = machine.call().await.unwrap_err().told();
    assert!(text.contains("was valid until") && text.contains("and the clock says"), "{text}");
    assert!(!machine.clock_was_set());
    assert!(machine.notices().contains("not believed"), "{}", machine.notices());

    let machine = Machine::new(root.path(), 60 * YEAR, &url);
    machine.call().await.unwrap();
    assert!(machine.clock_was_set() && machine.off() <= 2);
}

#[tokio::test]
async fn a_clock_in_local_time_is_set_back_by_a_certificate_that_is_good_now() {
    let root = tempfile::tempdir().unwrap();
    let server =
        Server::start(tls(Curve::P256, SystemTime::now(), &root.path().join("ca.pem"), TlsVersion::V1_3));
    let machine = Machine::new(root.path(), 2 * 3600, &format!("ipa-api-url={}", server.url));
    machine.call().await.unwrap();
    assert!(machine.clock_was_set() && machine.off() <= 2, "{}", machine.notices());
}

#[tokio::test]
async fn a_stranger_is_not_asked_what_time_it_is() {
    let root = tempfile::tempdir().unwrap();
    let stranger =
        Server::start(tls(Curve::P256, SystemTime::now(), &root.path().join("own.pem"), TlsVersion::V1_3));
    let _ = tls(Curve::P256, SystemTime::now(), &root.path().join("ca.pem"), TlsVersion::V1_3);
    let machine = Machine::new(root.path(), -25 * YEAR, &format!("ipa-api-url={}", stranger.url));
    assert!(machine.call().await.is_err());
    assert!(!machine.clock_was_set() && !machine.keeper.is_settled());
    // Who verifies nothing obeys everybody, in this as well.
    let careless =
        Machine::new(root.path(), -25 * YEAR, &format!("ipa-api-url={} ipa-insecure=1", stranger.url));
    careless.call().await.unwrap();
    assert!(careless.clock_was_set());
}

#[tokio::test]
async fn of_two_urls_one_dead_and_one_with_a_wrong_certificate_each_is_named_and_a_third_one_works() {
    let root = tempfile::tempdir().unwrap();
    let wrong =
        Server::start(tls(Curve::P256, SystemTime::now(), &root.path().join("own.pem"), TlsVersion::V1_3));
    let right =
        Server::start(tls(Curve::P384, SystemTime::now(), &root.path().join("ca.pem"), TlsVersion::V1_3));
    let dead = "https://127.0.0.1:1";
    let machine = Machine::new(root.path(), 0, &format!("ipa-api-url={dead},{}", wrong.url));
    let text = machine.call().await.unwrap_err().told();
    for part in [dead, "refused", &wrong.url, "nobody in", "ca.pem has signed", "cafile"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let machine = Machine::new(root.path(), 0, &format!("ipa-api-url={dead},{},{}", wrong.url, right.url));
    machine.call().await.unwrap();
    assert_eq!(machine.client.urls(), [right.url.clone(), dead.to_owned(), wrong.url.clone()]);
}

#[tokio::test]
async fn a_conductor_that_changes_its_certificate_is_refused_until_it_has_the_trusted_one_again() {
    let root = tempfile::tempdir().unwrap();
    let good = tls(Curve::P256, SystemTime::now(), &root.path().join("ca.pem"), TlsVersion::V1_2);
    let other = tls(Curve::P256, SystemTime::now(), &root.path().join("own.pem"), TlsVersion::V1_2);
    let first = Server::start(good.clone());
    let machine = Machine::new(root.path(), 0, &format!("ipa-api-url={}", first.url));
    machine.call().await.unwrap();
    for (tls, trusted) in [(other, false), (good, true)] {
        first.stop.send_replace(true);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (stop, stopped) = watch::channel(false);
        let bound = api::bind(Some("127.0.0.1"), first.port).unwrap();
        let router = Router::new().fallback(|| async { "{}" });
        tokio::spawn(api::serve(bound, router, Some(tls), api::Limits::default(), stopped));
        // An idle connection to the server before may be used once more.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let called = machine.call().await;
        assert_eq!(called.is_ok(), trusted, "{:?}", called.map_err(|error| error.told()));
        stop.send_replace(true);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Reports that a test leaves itself out, past the capture of its output: it is counted.
fn skipped(why: std::fmt::Arguments<'_>) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {why}\n"));
}

/// Runs a program with a time limit; none when it is not installed.
fn run(program: &str, arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(_) => {
            skipped(format_args!("{program} is not installed"));
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let limit = std::time::Instant::now() + Duration::from_secs(30);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if std::time::Instant::now() > limit => {
                child.kill().unwrap();
                panic!("{program} did not end");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    Some((status.success(), text))
}

/// As Ironic's agent client does: the certificate of the heartbeat is the only anchor, the host must stand in it.
const CONDUCTOR: &str = r#"
import socket, ssl, sys
ca, host, port, least = sys.argv[1:5]
context = ssl.create_default_context(cafile=ca)
context.minimum_version = getattr(ssl.TLSVersion, least)
with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as plain:
    with context.wrap_socket(plain, server_hostname=host) as wrapped:
        print(wrapped.version(), wrapped.getpeercert()["subjectAltName"])
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_as_a_conductor_has_it_accepts_the_certificate_for_its_address_and_no_other() {
    let root = tempfile::tempdir().unwrap();
    for curve in [Curve::P256, Curve::P384, Curve::P521] {
        let pem = root.path().join("agent.pem");
        let server = Server::start(tls(curve, SystemTime::now(), &pem, TlsVersion::V1_3));
        let (pem, port) = (pem.display().to_string(), server.port.to_string());
        let shake =
            |host: &str, least: &str| run("python3", &["-c", CONDUCTOR, &pem, host, &port, least], "");
        let Some((accepted, text)) = shake("127.0.0.1", "TLSv1_3") else { return };
        assert!(
            accepted && text.contains("TLSv1.3") && text.contains("('IP Address', '127.0.0.1')"),
            "{text}"
        );
        let (accepted, text) = shake("127.0.0.2", "TLSv1_3").unwrap();
        assert!(!accepted && text.contains("IP address mismatch"), "{text}");
    }
}

/// What the log says, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test] // on one thread, so that the log of the server is this test's
async fn a_conductor_that_refuses_the_certificate_is_told_once_with_both_clocks_and_advice() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let root = tempfile::tempdir().unwrap();
    let pem = root.path().join("agent.pem");
    // A clock that is a day ahead: the certificate starts tomorrow.
    let server = Server::start(tls(Curve::P384, SystemTime::now() + 24 * HOUR, &pem, TlsVersion::V1_3));
    let (pem, port) = (pem.display().to_string(), server.port.to_string());
    for _ in 0..3 {
        let (pem, port) = (pem.clone(), port.clone());
        let shake = move || run("python3", &["-c", CONDUCTOR, &pem, "127.0.0.1", &port, "TLSv1_3"], "");
        let Some((accepted, text)) = tokio::task::spawn_blocking(shake).await.unwrap() else { return };
        assert!(!accepted && text.contains("not yet valid"), "{text}");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("a caller refuses the agent's certificate").count(), 1, "{text}");
    for part in [
        "peer=127.0.0.1",
        "clock=",
        "subject CN=box",
        "for 127.0.0.1",
        "compare it with the one here",
        "ipa-ntp-server",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_gets_the_versions_and_suites_that_the_options_allow() {
    let root = tempfile::tempdir().unwrap();
    let pem = root.path().join("agent.pem");
    let suites = "ECDHE-ECDSA-AES128-GCM-SHA256".parse().unwrap();
    let lax = ServerSettings { suites: Some(suites), ..TlsVersion::V1_2.into() };
    let shake = |server: &Server, more: &[&str]| {
        let (address, ca) = (format!("127.0.0.1:{}", server.port), pem.display().to_string());
        let mut arguments = vec![
            "s_client",
            "-connect",
            &address,
            "-CAfile",
            &ca,
            "-verify_return_error",
            "-verify_ip",
            "127.0.0.1",
        ];
        arguments.extend(more);
        run("openssl", &arguments, "")
    };
    let server = Server::start(tls(Curve::P256, SystemTime::now(), &pem, lax));
    let Some((accepted, text)) = shake(&server, &["-tls1_2"]) else { return };
    assert!(accepted && text.contains("ECDHE-ECDSA-AES128-GCM-SHA256"), "{text}");
    let (accepted, text) = shake(&server, &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]).unwrap();
    assert!(!accepted, "{text}");
    let (accepted, text) = shake(&server, &["-tls1_3"]).unwrap();
    assert!(accepted && text.contains("TLSv1.3") && text.contains("Verification: OK"), "{text}");

    let strict = Server::start(tls(Curve::P384, SystemTime::now(), &pem, TlsVersion::V1_3));
    assert!(!shake(&strict, &["-tls1_2"]).unwrap().0);
    assert!(shake(&strict, &["-tls1_3"]).unwrap().0);
}

/// A conductor of Python's that insists on a client certificate, with a self-signed authority that serves.
const SERVER: &str = r#"
import http.server, ssl, sys
certificate, key, clients = sys.argv[1:4]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"default_version": {"version": "1.99"}}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.load_verify_locations(clients)
context.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

#[tokio::test]
async fn a_server_of_openssl_gets_the_client_certificate_that_it_wants() {
    let root = tempfile::tempdir().unwrap();
    let place = |name: &str| root.path().join(name).display().to_string();
    for (name, more) in [("ca", "subjectAltName=IP:127.0.0.1"), ("own", "basicConstraints=CA:FALSE")] {
        let (key, certificate) = (place(&format!("{name}.key")), place(&format!("{name}.pem")));
        let subject = format!("/CN={name}");
        let made = run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-keyout",
                &key,
                "-out",
                &certificate,
                "-subj",
                &subject,
                "-addext",
                more,
            ],
            "",
        );
        let Some((true, _)) = made else { return skipped(format_args!("no openssl ({made:?})")) };
    }
    let spawned = Command::new("python3")
        .args(["-c", SERVER, &place("ca.pem"), &place("ca.key"), &place("own.pem")])
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut server) = spawned else { return skipped(format_args!("no python3")) };
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut line)
        .unwrap();
    let url = format!("ipa-api-url=https://127.0.0.1:{}", line.trim());

    let without = Machine::new(root.path(), 0, &url).call().await.unwrap_err().told();
    std::fs::create_dir_all(root.path().join("etc/ironic-python-agent.d")).unwrap();
    let files = "[DEFAULT]\ncertfile = /own.pem\nkeyfile = /own.key\n";
    std::fs::write(root.path().join("etc/ironic-python-agent.d/tls.conf"), files).unwrap();
    let with = Machine::new(root.path(), 0, &url);
    let version = with.client.version().await;
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(without.contains("certfile"), "{without}");
    assert_eq!(version.unwrap().to_string(), "1.99");
}
