//! A conductor that plays its part by script, and an agent with a deployment that writes nothing.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // tests, and not every test uses all

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use events::Events;
use ferric_agent::clock::{TimeServers, Timekeeper};
use ferric_agent::command::{Deployment, Ending, Extensions, Machine};
use ferric_agent::config::{Config, Overrides};
use ferric_agent::logging::LogRing;
use ferric_agent::startup::{self, Agent};
use hardware_managers::{InstallBootc, InstallBootloader};
use hwm::{Answer, Context, Error, HardwareManager, StepCall, Support};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use wire::{ImageInfo, Interface, Secret, Step, StepKind};

pub const NODE: &str = "11111111-2222-3333-4444-555555555555";
pub const TOKEN: &str = "_0hTv7Qm1c5XK2pYw8ZrD4nEoS6uGfLbAiJ9tNqVxWk";
pub const MAC: &str = "52:54:00:00:00:01";

/// What the fake conductor saw and what it answers.
#[derive(Default)]
pub struct Seen {
    /// Query and API version of each lookup.
    pub lookups: Mutex<Vec<(String, String)>>,
    /// Path, API version and body of each heartbeat.
    pub heartbeats: Mutex<Vec<(String, String, Value)>>,
    /// Statuses of the next lookups; 200 when empty.
    pub lookup_script: Mutex<VecDeque<u16>>,
    /// Statuses of the next heartbeats; 202 when empty.
    pub heartbeat_script: Mutex<VecDeque<u16>>,
    beat: Notify,
}

pub struct Conductor {
    pub url: String,
    pub seen: Arc<Seen>,
}

impl Conductor {
    pub async fn start() -> Self {
        ferric_agent::install_crypto_provider();
        let seen = Arc::new(Seen::default());
        let router = Router::new()
            .route("/", get(version))
            .route("/v1/lookup", get(lookup))
            .route("/v1/heartbeat/{uuid}", post(heartbeat))
            .with_state(seen.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, seen }
    }

    /// Waits for heartbeat number `count` (from 1) and returns its body.
    pub async fn heartbeat(&self, count: usize) -> Value {
        let waiting = async {
            loop {
                let arrived = self.seen.beat.notified();
                if let Some((_, _, body)) = self.seen.heartbeats.lock().unwrap().get(count - 1) {
                    return body.clone();
                }
                arrived.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("no heartbeat in time")
    }
}

fn fault(status: u16) -> Response {
    let body = wire::ApiFault::new(status, "scripted").to_body().to_string();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

async fn version() -> String {
    json!({"default_version": {"id": "v1", "version": "1.115", "min_version": "1.1"}}).to_string()
}

fn api_version(headers: &HeaderMap) -> String {
    headers.get("x-openstack-ironic-api-version").map_or("", |v| v.to_str().unwrap()).to_owned()
}

async fn lookup(State(seen): State<Arc<Seen>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    seen.lookups.lock().unwrap().push((query.unwrap_or_default(), api_version(&headers)));
    match seen.lookup_script.lock().unwrap().pop_front() {
        None | Some(200) => {}
        Some(status) => return fault(status),
    }
    json!({
        "node": {"uuid": NODE, "properties": {}, "instance_info": {}, "driver_internal_info": {}, "links": []},
        "config": {"heartbeat_timeout": 300, "agent_token": TOKEN, "agent_token_required": true,
            "metrics": {"backend": "noop"}, "agent_md5_checksum_enable": true, "tls_min_version": "1.3",
            "permitted_image_formats": ["raw", "gpt", "qcow2", "iso"], "tls_cipher_suites": null},
    })
    .to_string()
    .into_response()
}

async fn heartbeat(
    State(seen): State<Arc<Seen>>,
    Path(uuid): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let known = ["callback_url", "agent_token", "agent_version", "agent_verify_ca"];
    assert!(body.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{body}");
    assert_eq!(headers["content-type"], "application/json");
    seen.heartbeats.lock().unwrap().push((uuid, api_version(&headers), body));
    seen.beat.notify_waiters();
    match seen.heartbeat_script.lock().unwrap().pop_front() {
        None => StatusCode::ACCEPTED.into_response(),
        Some(status) => fault(status),
    }
}

/// Remembers what it was asked; `write` waits until the test lets it go, or it is cancelled.
pub struct FakeDeployment {
    pub asked: Mutex<Vec<String>>,
    release: Mutex<mpsc::Receiver<Result<(), Error>>>,
}

impl Deployment for FakeDeployment {
    fn configure(&self, config: &Config) {
        self.asked
            .lock()
            .unwrap()
            .push(format!("configure formats={}", config.permitted_image_formats.join(",")));
    }

    fn check_image(&self, image: &ImageInfo) -> Result<(), Error> {
        match (image.checksum.is_some() || image.os_hash_value.is_some(), image.image_type.as_deref()) {
            (_, Some("partition")) => Err(Error::InvalidImage { message: "a partition image".into() }),
            (true, _) => Ok(()),
            (false, _) => Err(Error::InvalidParameters { message: "no checksum".into() }),
        }
    }

    fn prepare_image(&self, cx: &Context, image: ImageInfo, drive: Option<Secret>) -> Result<String, Error> {
        let node = cx.node_field("/uuid").and_then(Value::as_str).unwrap_or("none").to_owned();
        self.asked.lock().unwrap().push(format!("write {} for {node} drive={}", image.id, drive.is_some()));
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            match self.release.lock().unwrap().recv_timeout(Duration::from_millis(50)) {
                Ok(released) => break released?,
                Err(_) if cx.is_cancelled() => {
                    self.asked.lock().unwrap().push("cancelled".into());
                    return Err(Error::Failed { message: "cancelled".into() });
                }
                Err(_) => assert!(Instant::now() < patience, "the test forgot to release the write"),
            }
        }
        Ok(format!("image ({}) written to device /dev/fake root_uuid=0x1a2b3c4d", image.id))
    }

    fn install_bootc(&self, _: &Context, request: &InstallBootc) -> Result<String, Error> {
        self.asked.lock().unwrap().push(format!("bootc {}", request.image_source));
        Err(Error::Execution { message: "no podman".into() })
    }

    fn partition_uuids(&self) -> Value {
        json!({"root uuid": "0x1a2b3c4d"})
    }

    fn install_bootloader(&self, _: &Context, request: &InstallBootloader) -> Result<(), Error> {
        self.asked.lock().unwrap().push(format!("bootloader {:?}", request.target_boot_mode));
        Ok(())
    }

    fn sync(&self, _: &Context) -> Result<(), Error> {
        self.asked.lock().unwrap().push("sync".into());
        Ok(())
    }
}

/// One network interface; steps that succeed, fail, or panic.
pub struct FakeManager {
    deployment: Arc<FakeDeployment>,
}

impl HardwareManager for FakeManager {
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
    fn interfaces(&self, _: &Context) -> Result<Answer<Vec<Interface>>, Error> {
        Ok(Answer::Mine(vec![Interface {
            name: "eth0".into(),
            mac_address: MAC.into(),
            ipv4_address: Some("127.0.0.1".into()),
            ..Interface::default()
        }]))
    }
    fn steps(&self, _: StepKind, _: &Context) -> Result<Answer<Vec<Step>>, Error> {
        Ok(Answer::Mine(vec![Step {
            step: "write_image".into(),
            priority: 0,
            interface: "deploy".into(),
            reboot_requested: false,
            abortable: None,
            argsinfo: None,
        }]))
    }
    fn run_step(&self, call: &StepCall, cx: &Context) -> Result<Answer<Value>, Error> {
        match call.step.as_str() {
            "write_image" => {
                let info = call.arguments.get("image_info").cloned().unwrap_or_default();
                let info: ImageInfo = serde_json::from_value(info)
                    .map_err(|error| Error::InvalidParameters { message: error.to_string() })?;
                let drive = call.arguments.get("configdrive").and_then(Value::as_str).map(Secret::new);
                let text = self.deployment.prepare_image(cx, info, drive)?;
                Ok(Answer::Mine(json!({"result": format!("prepare_image: {text}")})))
            }
            "break" => Err(Error::other("opening /dev/fake", std::io::Error::other("no medium"))),
            "panic" => panic!("a manager with a defect"),
            _ => Ok(Answer::NotMine),
        }
    }
}

/// An agent that runs within this process.
pub struct RunningAgent {
    pub deployment: Arc<FakeDeployment>,
    pub kernel: Arc<sys::fake::RecordingKernel>,
    pub events: Events,
    pub release: mpsc::SyncSender<Result<(), Error>>,
    pub stop: watch::Sender<bool>,
    pub ended: tokio::task::JoinHandle<Result<Option<Ending>, startup::Error>>,
    pub root: tempfile::TempDir,
}

impl RunningAgent {
    /// Starts an agent in a fixture of a ramdisk (or of an installed system).
    pub fn start(conductor: &Conductor, ramdisk: bool) -> Self {
        Self::start_with(conductor, ramdisk, &[])
    }

    /// The same with further options, which beat the usual ones.
    pub fn start_with(conductor: &Conductor, ramdisk: bool, options: &[(&str, &str)]) -> Self {
        Self::start_in(conductor, ramdisk, options, |_| {})
    }

    /// The same with more files below the root.
    pub fn start_in(
        conductor: &Conductor,
        ramdisk: bool,
        options: &[(&str, &str)],
        more: impl FnOnce(&std::path::Path),
    ) -> Self {
        Self::start_full(conductor, ramdisk, options, more, Vec::new(), "quiet")
    }

    /// A ramdisk with a further hardware manager, and these words on its kernel command line.
    pub fn start_with_manager(conductor: &Conductor, manager: Box<dyn HardwareManager>, words: &str) -> Self {
        Self::start_full(conductor, true, &[], |_| {}, vec![manager], words)
    }

    fn start_full(
        conductor: &Conductor,
        ramdisk: bool,
        options: &[(&str, &str)],
        more: impl FnOnce(&std::path::Path),
        mut managers: Vec<Box<dyn HardwareManager>>,
        words: &str,
    ) -> Self {
        let root = tempfile::tempdir().unwrap();
        more(root.path());
        let proc = root.path().join("proc");
        std::fs::create_dir_all(proc.join("sys/kernel")).unwrap();
        let mounts = match ramdisk {
            true => "1 1 0:2 / / rw - rootfs rootfs rw\n",
            false => "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
        };
        std::fs::create_dir_all(proc.join("self")).unwrap();
        std::fs::write(proc.join("self/mountinfo"), mounts).unwrap();
        std::fs::write(proc.join("cmdline"), format!("{words} ipa-agent-token={TOKEN}")).unwrap();
        std::fs::write(proc.join("sys/kernel/hostname"), "testbox\n").unwrap();
        let kernel = Arc::new(sys::fake::RecordingKernel::default());
        let host = sys::Host::new(root.path(), Arc::new(sys::fake::FakeRunner::default()), kernel.clone());

        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut values = vec![
            set("api_url", &conductor.url),
            set("listen_host", "127.0.0.1"),
            set("listen_port", "0"),
            set("advertise_port", "0"),
            set("lookup_timeout", "20"),
        ];
        values.extend(options.iter().map(|(name, value)| set(name, value)));
        let overrides = Overrides { values, ..Overrides::default() };
        let (config, _) = Config::load(&host, &Default::default(), &overrides).unwrap();

        let (release, gate) = mpsc::sync_channel(8);
        let deployment = Arc::new(FakeDeployment { asked: Mutex::default(), release: Mutex::new(gate) });
        let events = Events::default();
        let manager = FakeManager { deployment: deployment.clone() };
        managers.push(Box::new(manager));
        let agent = Agent {
            host,
            config,
            events: events.clone(),
            log: LogRing::default(),
            managers,
            deployment: deployment.clone(),
            leased_time_servers: Vec::new(),
            keep_trying: false,
        };
        let (stop, stopped) = watch::channel(false);
        let ended = tokio::spawn(startup::run(agent, stopped));
        Self { deployment, kernel, events, release, stop, ended, root }
    }

    /// Stops the agent and checks that it ends in order.
    pub async fn finish(self) {
        self.stop.send_replace(true);
        assert_eq!(self.ended().await, None);
    }

    /// Waits until the agent has ended by itself, and returns by which command.
    pub async fn ended(self) -> Option<Ending> {
        let _root = self.root;
        let ended = tokio::time::timeout(Duration::from_secs(20), self.ended).await;
        ended.expect("the agent does not stop").expect("the agent panicked").expect("the agent failed")
    }
}

/// Calls the agent as a conductor does: the certificate of the heartbeat is the only trust anchor, TLS 1.3 or later.
pub struct Caller {
    http: reqwest::Client,
    pub base: String,
}

impl Caller {
    pub fn of(heartbeat: &Value) -> Self {
        let pem = heartbeat["agent_verify_ca"].as_str().unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes()).unwrap()])
            .tls_version_min(reqwest::tls::Version::TLS_1_3)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .build()
            .unwrap();
        Self { http, base: heartbeat["callback_url"].as_str().unwrap().to_owned() }
    }

    pub async fn request(&self, method: &str, path: &str, body: Option<&str>) -> reqwest::Response {
        let method = method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.body(body.to_owned());
        }
        request.send().await.unwrap()
    }

    /// Posts a command and returns its result object.
    pub async fn command(&self, wait: bool, name: &str, params: Value) -> Value {
        let path = format!("/v1/commands/?wait={wait}&agent_token={TOKEN}");
        let body = json!({"name": name, "params": params}).to_string();
        let reply = self.request("POST", &path, Some(&body)).await;
        assert_eq!(reply.status(), 200, "{name}");
        assert_eq!(reply.headers()["content-type"], "application/json");
        assert!(reply.headers().contains_key("content-length"));
        serde_json::from_str(&reply.text().await.unwrap()).unwrap()
    }

    /// The list of commands.
    pub async fn list(&self) -> Vec<Value> {
        let reply = self.request("GET", &format!("/v1/commands/?agent_token={TOKEN}"), None).await;
        let list: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
        list["commands"].as_array().unwrap().clone()
    }
}

/// A deployment that refuses every image at once.
pub struct NoDeployment;

impl Deployment for NoDeployment {
    fn configure(&self, _: &Config) {}

    fn check_image(&self, image: &ImageInfo) -> Result<(), Error> {
        let known = image.checksum.is_some() || image.os_hash_value.is_some();
        if known { Ok(()) } else { Err(Error::InvalidParameters { message: "no checksum".into() }) }
    }

    fn prepare_image(&self, _: &Context, _: ImageInfo, _: Option<Secret>) -> Result<String, Error> {
        Err(Error::ImageDownload { message: "nobody there".into() })
    }

    fn install_bootc(&self, _: &Context, _: &InstallBootc) -> Result<String, Error> {
        Err(Error::Execution { message: "no podman".into() })
    }

    fn partition_uuids(&self) -> Value {
        json!({})
    }

    fn install_bootloader(&self, _: &Context, _: &InstallBootloader) -> Result<(), Error> {
        Ok(())
    }

    fn sync(&self, _: &Context) -> Result<(), Error> {
        Ok(())
    }
}

/// A manager that takes every step and keeps nothing.
struct Patient;

impl HardwareManager for Patient {
    fn name(&self) -> &str {
        "PatientHardwareManager"
    }
    fn declared_name(&self) -> &str {
        "patient_hardware_manager"
    }
    fn version(&self) -> &str {
        "1"
    }
    fn support(&self, _: &sys::Host) -> Support {
        Support::GENERIC
    }
    fn steps(&self, _: StepKind, _: &Context) -> Result<Answer<Vec<Step>>, Error> {
        Ok(Answer::Mine(Vec::new()))
    }
    fn run_step(&self, call: &StepCall, _: &Context) -> Result<Answer<Value>, Error> {
        match call.step.as_str() {
            "panic" => panic!("a manager with a defect"),
            "foreign" => Ok(Answer::NotMine),
            _ => Ok(Answer::Mine(Value::Null)),
        }
    }
}

/// The real handler of commands on a machine below `root` that is no ramdisk, so nothing can be switched off.
pub fn extensions(root: &std::path::Path) -> Extensions {
    let host = sys::fake::host(root);
    let events = Events::default();
    let managers: Vec<Box<dyn HardwareManager>> = vec![Box::new(Patient)];
    Extensions::new(Machine {
        context: Context::new(host.clone(), events.clone()),
        registry: Arc::new(hwm::Registry::probe(&host, managers)),
        deployment: Arc::new(NoDeployment),
        ramdisk: false,
        log: LogRing::default(),
        clock: Timekeeper::new(host, events, TimeServers::default(), false),
        ending: watch::Sender::new(None),
    })
}
