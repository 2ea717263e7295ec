//! Inspection towards a server that plays its part by script: what is posted, and what becomes of every kind of answer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use events::{EventKind, Events, Phase};
use ferric_agent::clock::{TimeServers, Timekeeper};
use ferric_agent::conductor::Client;
use ferric_agent::config::{Config, Overrides};
use ferric_agent::inspection::{self, Error, Machine, Pauses, Plan};
use ferric_agent::logging::LogRing;
use hwm::{Answer, Context, HardwareManager, Registry, Support};
use serde_json::Value;
use support::{Conductor, MAC, NODE, RunningAgent};
use wire::{BootInfo, Cpu, Disk, Interface, LldpFrames, Memory, SystemVendor, Tlv, UsbDevice};

/// What the server does with a request.
#[derive(Clone, Copy, Debug)]
enum Act {
    Answer(u16, &'static str),
    /// Says nothing for longer than the agent is patient.
    Stall,
}

const ACCEPTED: Act = Act::Answer(202, r#"{"uuid": "11111111-2222-3333-4444-555555555555"}"#);

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<(HeaderMap, Value)>>,
    script: Mutex<VecDeque<Act>>,
}

struct Server {
    url: String,
    seen: Arc<Seen>,
}

impl Server {
    /// Answers by script, and takes everything after its end.
    async fn start(script: &[Act]) -> Self {
        ferric_agent::install_crypto_provider();
        let seen = Arc::new(Seen::default());
        seen.script.lock().unwrap().extend(script);
        let router = Router::new()
            .route("/v1/continue_inspection", post(take))
            .layer(DefaultBodyLimit::max(16 * 1024 * 1024))
            .with_state(seen.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/continue_inspection", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, seen }
    }

    fn bodies(&self) -> Vec<Value> {
        self.seen.requests.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }
}

async fn take(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> Response {
    seen.requests.lock().unwrap().push((headers, serde_json::from_slice(&body).unwrap()));
    let act = seen.script.lock().unwrap().pop_front().unwrap_or(ACCEPTED);
    match act {
        Act::Answer(status, text) => (StatusCode::from_u16(status).unwrap(), text).into_response(),
        Act::Stall => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            StatusCode::OK.into_response()
        }
    }
}

/// Knows a little of everything.
struct Manager {
    usb_breaks: bool,
}

impl HardwareManager for Manager {
    fn name(&self) -> &str {
        "FakeHardwareManager"
    }
    fn declared_name(&self) -> &str {
        "fake_hardware_manager"
    }
    fn version(&self) -> &str {
        "1.2"
    }
    fn support(&self, _: &sys::Host) -> Support {
        Support::GENERIC
    }
    fn interfaces(&self, _: &Context) -> Result<Answer<Vec<Interface>>, hwm::Error> {
        let (name, mac_address) = ("eth0".into(), MAC.into());
        Ok(Answer::Mine(vec![Interface { name, mac_address, ..Interface::default() }]))
    }
    fn disks(&self, _: &Context) -> Result<Answer<Vec<Disk>>, hwm::Error> {
        Ok(Answer::Mine(vec![Disk { name: "/dev/sda".into(), size: 5 << 30, ..Disk::default() }]))
    }
    fn cpu(&self, _: &Context) -> Result<Answer<Cpu>, hwm::Error> {
        Ok(Answer::Mine(Cpu { architecture: "x86_64".into(), count: 2, ..Cpu::default() }))
    }
    fn memory(&self, _: &Context) -> Result<Answer<Memory>, hwm::Error> {
        Ok(Answer::Mine(Memory { total: Some(1), physical_mb: Some(2048) }))
    }
    fn system_vendor(&self, _: &Context) -> Result<Answer<SystemVendor>, hwm::Error> {
        Ok(Answer::Mine(SystemVendor::default()))
    }
    fn boot_info(&self, _: &Context) -> Result<Answer<BootInfo>, hwm::Error> {
        let pxe_interface = Some("01-52-54-00-00-00-01".into());
        Ok(Answer::Mine(BootInfo { current_boot_mode: "uefi".into(), pxe_interface }))
    }
    fn lldp(&self, _: &Context) -> Result<Answer<LldpFrames>, hwm::Error> {
        Ok(Answer::Mine(LldpFrames::from([(
            "eth0".into(),
            vec![Tlv(1, "04aabb".into()), Tlv(0, String::new())],
        )])))
    }
    fn usb_devices(&self, _: &Context) -> Result<Answer<Vec<UsbDevice>>, hwm::Error> {
        if self.usb_breaks {
            panic!("a manager with a defect");
        }
        let device = UsbDevice { product: "HASP".into(), vendor: "ACME".into(), handle: "USB:1:4".into() };
        Ok(Answer::Mine(vec![device]))
    }
}

/// A machine with fixtures for what is read from the kernel, and an inspection of it.
struct Bench {
    machine: Machine,
    plan: Plan,
    client: Client,
    events: Events,
    _root: tempfile::TempDir,
}

impl Bench {
    fn new(url: &str, collectors: &str) -> Self {
        Self::with(url, collectors, false)
    }

    fn with(url: &str, collectors: &str, usb_breaks: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("proc/sys/kernel/hostname", "testbox\n");
        file("sys/bus/pci/devices/0000:00:00.0/vendor", "0x8086\n");
        file("sys/bus/pci/devices/0000:00:00.0/device", "0x0d57\n");
        file("sys/bus/pci/devices/0000:00:00.0/class", "0x060000\n");
        file("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 2048 kB\n");
        file("sys/devices/system/node/node0/cpu0/topology/core_id", "0\n");
        file("sys/class/net/eth0/device/numa_node", "0\n");
        let host = sys::fake::host(root.path());
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let values = vec![
            set("inspection_callback_url", url),
            set("inspection_collectors", collectors),
            set("global_request_id", "req-17"),
            set("http_request_timeout", "1"),
            set("disk_wait_attempts", "0"),
        ];
        let overrides = Overrides { values, ..Overrides::default() };
        let (config, _) = Config::load(&host, &Default::default(), &overrides).unwrap();
        let events = Events::default();
        let plan = Plan::of(&config).unwrap();
        let keeper = Timekeeper::new(host.clone(), events.clone(), TimeServers::default(), false);
        let client = Client::towards(&host, &config, &keeper, plan.urls.clone()).unwrap();
        let managers: Vec<Box<dyn HardwareManager>> = vec![Box::new(Manager { usb_breaks })];
        let registry = Arc::new(Registry::probe(&host, managers));
        let context = Context::new(host, events.clone());
        Self {
            machine: Machine { registry, context, log: LogRing::default() },
            plan,
            client,
            events,
            _root: root,
        }
    }

    /// Five attempts without pauses between them.
    async fn run(&self) -> Result<Option<String>, Error> {
        let pauses = Pauses(vec![Duration::ZERO; 4]);
        inspection::run(&self.machine, &self.plan, &self.client, &pauses).await
    }

    fn failure(&self) -> Option<String> {
        let page = self.events.after(0, 1000);
        page.events.into_iter().find_map(|event| match event.kind {
            EventKind::Failed { phase: Phase::Inspection, message } => Some(message),
            _ => None,
        })
    }
}

#[tokio::test]
async fn everything_that_collectors_find_is_posted_as_the_golden_body_says() {
    let server = Server::start(&[]).await;
    let bench = Bench::new(&server.url, "default,pci-devices,numa-topology,lldp,usb-devices,logs");
    assert_eq!(bench.run().await.unwrap().as_deref(), Some(NODE));
    let (headers, mut body) = server.seen.requests.lock().unwrap()[0].clone();
    for (name, value) in [
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("x-openstack-request-id", "req-17"),
    ] {
        assert_eq!(headers[name], value);
    }
    assert!(
        !headers.contains_key("x-openstack-ironic-api-version"),
        "Ironic knows the call without a version alone"
    );
    let logs = body["logs"].as_str().unwrap().to_owned();
    assert!(logs.starts_with("H4sI"), "base64 of gzip: {logs}");
    body["logs"] = "...".into();
    let golden: Value = serde_json::from_str(include_str!("golden/inspection.json")).unwrap();
    assert_eq!(serde_json::to_string_pretty(&body).unwrap(), serde_json::to_string_pretty(&golden).unwrap());
    assert_eq!(bench.failure(), None);
}

#[tokio::test]
async fn conflicts_server_errors_and_silence_are_tried_again() {
    let script =
        [Act::Answer(409, "{}"), Act::Answer(503, "busy"), Act::Stall, Act::Answer(500, "<html>"), ACCEPTED];
    let server = Server::start(&script).await;
    let bench = Bench::new(&server.url, "default");
    assert_eq!(bench.run().await.unwrap().as_deref(), Some(NODE));
    let bodies = server.bodies();
    assert_eq!(bodies.len(), 5);
    assert!(bodies.iter().all(|body| body == &bodies[0]), "every attempt offers the same data");
    let retries = bench.events.after(0, 1000).events.into_iter();
    let attempts: Vec<_> = retries
        .filter_map(|event| match event.kind {
            EventKind::Retrying { phase: Phase::Inspection, attempt, attempts, .. } => {
                Some((attempt, attempts))
            }
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [(2, 5), (3, 5), (4, 5), (5, 5)]);
}

#[tokio::test]
async fn a_refusal_is_final_and_the_agent_goes_on() {
    // A 404 may come from a conductor that is not ready for the data yet.
    for (status, attempts) in [(400, 1), (404, 5)] {
        let refusal = r#"{"error_message": "no such node"}"#;
        let acts: Vec<_> = (0..attempts).map(|_| Act::Answer(status, refusal)).collect();
        let server = Server::start(&acts).await;
        let bench = Bench::new(&server.url, "default");
        assert_eq!(bench.run().await.unwrap(), None);
        assert_eq!(server.bodies().len(), attempts);
        let failure = bench.failure().unwrap();
        assert!(failure.contains(&status.to_string()) && failure.contains("no such node"), "{failure}");
    }
}

#[tokio::test]
async fn a_page_instead_of_json_is_no_node() {
    for text in ["<html>welcome</html>", "", "[]", r#"{"uuid": ""}"#, r#"{"uuid": 7}"#] {
        let text: &'static str = text;
        let server = Server::start(&[Act::Answer(200, text)]).await;
        let bench = Bench::new(&server.url, "default");
        assert_eq!(bench.run().await.unwrap(), None, "{text}");
        assert_eq!(server.bodies().len(), 1);
    }
}

#[tokio::test]
async fn when_nobody_listens_the_error_names_the_url_and_the_number_of_attempts() {
    ferric_agent::install_crypto_provider();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bench = Bench::new(&format!("http://{free}/v1/continue_inspection"), "default");
    let error = bench.run().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { attempts: 5, .. }), "{error:?}");
    assert!(error.to_string().contains(&free.to_string()), "{error}");
    assert!(bench.failure().unwrap().contains("is the service"), "the console says it");
}

#[tokio::test]
async fn the_next_url_is_tried_within_an_attempt() {
    let server = Server::start(&[]).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bench = Bench::new(&format!("http://{free}/, {}", server.url), "default");
    assert_eq!(bench.run().await.unwrap().as_deref(), Some(NODE));
    assert_eq!(server.bodies().len(), 1);
}

#[tokio::test]
async fn collectors_that_fail_are_named_and_the_rest_is_posted() {
    let server = Server::start(&[]).await;
    let bench = Bench::with(&server.url, "default,usb-devices,nosuch,pci-devices", true);
    assert_eq!(bench.run().await.unwrap(), None, "a failed inspection recognises nobody");
    let body = server.bodies().remove(0);
    let error = body["error"].as_str().unwrap();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines[0], "The following errors were encountered:");
    assert!(lines[1].starts_with("* Failed to load collector ['nosuch']"), "{error}");
    assert!(lines[2].starts_with("* collector usb-devices failed: "), "{error}");
    assert_eq!(lines.len(), 3);
    assert!(body.get("inventory").is_some() && body.get("pci_devices").is_some());
    assert!(body.get("usb_devices").is_none());
    assert!(bench.failure().unwrap().contains("nosuch"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_that_inspection_recognised_is_looked_up_and_heartbeats_follow() {
    let server = Server::start(&[]).await;
    let conductor = Conductor::start().await;
    let values = [("inspection_callback_url", server.url.as_str()), ("inspection_collectors", "logs")];
    let agent = RunningAgent::start_with(&conductor, true, &values);
    conductor.heartbeat(1).await;
    let lookups = conductor.seen.lookups.lock().unwrap().clone();
    assert_eq!(lookups[0].0, format!("addresses={MAC}&node_uuid={NODE}"));
    assert_eq!(server.bodies().len(), 1);
    agent.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_conductor_inspection_is_followed_by_an_api_without_tls_and_without_heartbeats() {
    let server = Server::start(&[]).await;
    let conductor = Conductor::start().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let values = [
        ("api_url", ""),
        ("inspection_callback_url", server.url.as_str()),
        ("inspection_collectors", "logs"),
        ("listen_port", &port.to_string()),
    ];
    let agent = RunningAgent::start_with(&conductor, true, &values);
    let client = reqwest::Client::builder().tls_certs_only([]).no_proxy().build().unwrap();
    let url = format!("http://127.0.0.1:{port}/v1/status");
    let mut status = None;
    for _ in 0..200 {
        if let Ok(reply) = client.get(&url).send().await {
            status = Some(reply.status().as_u16());
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, Some(200));
    assert_eq!(server.bodies().len(), 1);
    assert!(conductor.seen.lookups.lock().unwrap().is_empty());
    assert!(conductor.seen.heartbeats.lock().unwrap().is_empty());
    agent.finish().await;
}
