//! The bench for tests: a controller on loopback with fake power, and an agent that does as it is told.

mod agent;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use wire::{Microversion, PowerState, ProvisionState, Secret};

use crate::api;
use crate::controller::{Config, Controller};
use crate::power::{BootMode, Machine, Power, PowerDriver, PowerError};
use crate::record::BootDevice;
use crate::store::Store;

pub use agent::{FakeAgent, serve_tls};

pub const MAC: &str = "52:54:00:aa:bb:01";
pub const TOKEN: &str = "the-token-of-the-operators-of-this-bench";
pub const LIMIT: Duration = Duration::from_secs(30);

/// A machine that only exists in a list of what was done to it.
#[derive(Clone)]
pub struct FakePower(pub Arc<Mutex<FakeMachine>>);

pub struct FakeMachine {
    pub on: bool,
    pub device: BootDevice,
    pub mode: BootMode,
    pub log: Vec<String>,
}

impl FakePower {
    pub fn new(mode: BootMode) -> Self {
        Self(Arc::new(Mutex::new(FakeMachine { on: false, device: BootDevice::Disk, mode, log: vec![] })))
    }

    pub fn log(&self) -> Vec<String> {
        self.0.lock().unwrap().log.clone()
    }

    pub fn is_on(&self) -> bool {
        self.0.lock().unwrap().on
    }

    /// The machine switches itself off.
    pub fn goes_off(&self) {
        self.0.lock().unwrap().on = false;
    }
}

impl PowerDriver for FakePower {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn check(&self, _: &serde_json::Map<String, Value>) -> Result<(), String> {
        Ok(())
    }

    fn unreachable(&self, _: &str, _: &str) -> Option<String> {
        None
    }

    fn validate(&self, machine: &Machine) -> Result<(), PowerError> {
        match machine.driver_info.get("broken") {
            None => Ok(()),
            Some(_) => {
                Err(PowerError::Settings { node: machine.label.clone(), problem: "broken is set".into() })
            }
        }
    }

    fn power_state(&self, _: &Machine) -> Result<PowerState, PowerError> {
        Ok(if self.is_on() { PowerState::On } else { PowerState::Off })
    }

    fn power_on(&self, _: &Machine) -> Result<(), PowerError> {
        let mut machine = self.0.lock().unwrap();
        machine.on = true;
        let entry = format!("on from {:?}", machine.device);
        machine.log.push(entry);
        Ok(())
    }

    fn power_off(&self, _: &Machine) -> Result<(), PowerError> {
        let mut machine = self.0.lock().unwrap();
        let entry = if machine.on { "forced off" } else { "was off" };
        machine.on = false;
        machine.log.push(entry.into());
        Ok(())
    }

    fn reset(&self, _: &Machine) -> Result<(), PowerError> {
        self.0.lock().unwrap().log.push("reset".into());
        Ok(())
    }

    fn set_boot_device(&self, _: &Machine, device: BootDevice) -> Result<(), PowerError> {
        self.0.lock().unwrap().device = device;
        Ok(())
    }

    fn boot_mode(&self, _: &Machine) -> Option<BootMode> {
        Some(self.0.lock().unwrap().mode)
    }

    fn kernel_parameters(&self, _: &Machine) -> Result<Vec<String>, PowerError> {
        Ok(vec!["fake=1".into()])
    }

    fn forget(&self, _: &Machine) -> Result<(), PowerError> {
        self.0.lock().unwrap().log.push("forgotten".into());
        Ok(())
    }
}

/// A controller that serves on loopback.
pub struct Bench {
    pub directory: Arc<tempfile::TempDir>,
    pub controller: Controller,
    pub power: FakePower,
    pub url: String,
    pub http: reqwest::Client,
    callback_timeout: Option<Duration>,
    server: tokio::task::JoinHandle<()>,
}

impl Bench {
    pub async fn new(mode: BootMode) -> Self {
        Self::with_timeout(mode, None).await
    }

    pub async fn with_timeout(mode: BootMode, callback_timeout: Option<Duration>) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        for (name, text) in [("kernel", "the kernel"), ("initramfs", "the initramfs")] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        std::fs::create_dir(directory.path().join("images")).unwrap();
        Self::start(directory, FakePower::new(mode), callback_timeout).await
    }

    async fn start(
        directory: Arc<tempfile::TempDir>,
        power: FakePower,
        callback_timeout: Option<Duration>,
    ) -> Self {
        // Only the first of many tests can install it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let bound = http_server::bind(Some("127.0.0.1"), 0).unwrap();
        let url = format!("http://{}", bound.address);
        let state: PathBuf = directory.path().to_owned();
        let config = Config {
            advertise: url.clone(),
            ramdisk: Some(state.clone()),
            images: vec![state.join("images")],
            heartbeat_timeout: 60,
            callback_timeout,
            kernel_params: String::new(),
            enable_bios_bootloader_install: true,
            poll: Duration::from_millis(50),
            hosts: vec!["controller.test".into()],
            token: Secret::new(TOKEN),
            state,
        };
        let store = Store::open(&directory.path().join("ferric.sqlite")).unwrap();
        let controller = Controller::new(config, store, Power::new(vec![Box::new(power.clone())]));
        controller.resume().await.unwrap();
        let service = api::service(controller.clone());
        let (_never, stop) = tokio::sync::watch::channel(false);
        let settings = crate::serve::http_settings();
        let server = tokio::spawn(async move {
            let _never = _never;
            http_server::serve(bound, service, settings, stop).await;
        });
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("X-Auth-Token", TOKEN.parse().unwrap());
        let http = reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap();
        Self { directory, controller, power, url, http, callback_timeout, server }
    }

    /// As `kill -9` and a new start: nothing but the files survives.
    pub async fn restarted(self) -> Self {
        let (directory, power, callback_timeout) =
            (self.directory.clone(), self.power.clone(), self.callback_timeout);
        self.server.abort();
        self.controller.shutdown.cancel();
        drop(self);
        tokio::time::sleep(Duration::from_millis(100)).await;
        Self::start(directory, power, callback_timeout).await
    }

    /// Status, headers and body of a request with the given version header.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        version: Option<&str>,
        body: Option<Value>,
    ) -> Reply {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(version) = version {
            request = request.header(Microversion::HEADER, version);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let reply = request.send().await.unwrap();
        let status = reply.status().as_u16();
        let headers = reply.headers().clone();
        let text = reply.text().await.unwrap();
        Reply { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null), text }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, Some("1.68"), None).await
    }

    pub async fn provision(&self, body: Value) -> Reply {
        self.call(Method::PUT, "/v1/nodes/demo/states/provision", Some("1.68"), Some(body)).await
    }

    /// Makes the node `demo` with one port.
    pub async fn enroll(&self) -> String {
        let body = json!({ "name": "demo", "driver": "fake" });
        let node = self.call(Method::POST, "/v1/nodes", Some("1.68"), Some(body)).await;
        assert_eq!(node.status, 201, "{}", node.text);
        let uuid = node.body["uuid"].as_str().unwrap().to_owned();
        let port = json!({ "node_uuid": uuid, "address": MAC });
        assert_eq!(self.call(Method::POST, "/v1/ports", Some("1.68"), Some(port)).await.status, 201);
        uuid
    }

    /// Makes the node `demo` available.
    pub async fn available(&self) -> String {
        let uuid = self.enroll().await;
        assert_eq!(self.provision(json!({ "target": "manage" })).await.status, 202);
        self.reaches(ProvisionState::Manageable).await;
        assert_eq!(self.provision(json!({ "target": "provide" })).await.status, 202);
        self.reaches(ProvisionState::Available).await;
        uuid
    }

    /// Starts a deployment of `demo`.
    pub async fn deploy(&self) -> String {
        self.deploy_with(json!({})).await
    }

    /// As `deploy`, with more in its `instance_info`.
    pub async fn deploy_with(&self, more: Value) -> String {
        let uuid = self.available().await;
        let mut image = json!({
            "image_source": "http://images/disk.raw", "image_os_hash_algo": "sha256", "image_os_hash_value": "ab",
            "image_disk_format": "raw",
        });
        image.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let info = json!([{ "op": "add", "path": "/instance_info", "value": image }]);
        let patched = self.call(Method::PATCH, "/v1/nodes/demo", Some("1.68"), Some(info)).await;
        assert_eq!(patched.status, 200, "{}", patched.text);
        let started = self.provision(json!({ "target": "active", "configdrive": "H4sIdrive" })).await;
        assert_eq!(started.status, 202, "{}", started.text);
        self.reaches(ProvisionState::WaitCallback).await;
        uuid
    }

    pub async fn reaches(&self, state: ProvisionState) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let node = self.get("/v1/nodes/demo").await.body;
            if node["provision_state"] == state.name() {
                return node;
            }
            assert!(
                Instant::now() < deadline,
                "waited for {state}: {} {}",
                node["provision_state"],
                node["last_error"]
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn marks(&self) -> Vec<String> {
        let reply = self.get("/ferric/v1/nodes/demo/timeline").await.body;
        reply["timeline"].as_array().unwrap().iter().map(|m| m["mark"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.controller.shutdown.cancel();
        self.server.abort();
    }
}

/// What came back.
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Reply {
    /// The text inside an error body.
    pub fn fault(&self) -> String {
        wire::ApiFault::text_of(&self.text)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
