//! A fake agent: looks its node up, sends heartbeats, serves the command API over TLS with a certificate of its own, and
//! remembers what it was asked. It does to no disk anything.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384, SanType};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use wire::{CommandResult, CommandStatus};

use super::{Bench, FakePower, MAC, Reply};

/// An agent that runs in this process.
#[derive(Clone)]
pub struct FakeAgent {
    pub url: String,
    pub certificate: String,
    pub token: String,
    pub shared: Arc<Mutex<Shared>>,
}

pub struct Shared {
    /// Dotted names, in order, with the step where there is one.
    pub asked: Vec<String>,
    /// Bodies of the commands, in the same order.
    pub bodies: Vec<Value>,
    pub commands: Vec<CommandResult>,
    /// How `write_image` ends; running until it is set.
    pub outcome: Option<Result<(), Value>>,
    /// The event page; 404 without.
    pub events: Option<Value>,
    token: String,
    power: FakePower,
}

impl FakeAgent {
    /// Boots: serves its API with a fresh certificate and looks its node up.
    pub async fn boot(bench: &Bench) -> Self {
        Self::boot_with(bench, "127.0.0.1", false).await
    }

    /// As `boot`, with a certificate for another host, or one marked as a CA.
    pub async fn boot_with(bench: &Bench, host: &str, is_ca: bool) -> Self {
        let reply = bench.call(Method::GET, &format!("/v1/lookup?addresses={MAC}"), Some("1.62"), None).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let token = reply.body["config"]["agent_token"].as_str().unwrap().to_owned();
        let (acceptor, certificate) = tls(host, is_ca);
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", tcp.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared {
            asked: vec![],
            bodies: vec![],
            commands: vec![],
            outcome: None,
            events: None,
            token: token.clone(),
            power: bench.power.clone(),
        }));
        let router = Router::new()
            .route("/v1/commands/", get(list).post(run))
            .route("/v1/events", get(events))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(shared.clone());
        tokio::spawn(async move { axum::serve(Tls { tcp, acceptor }, router).await.unwrap() });
        Self { url, certificate, token, shared }
    }

    /// The text of a certificate that no agent here has.
    pub fn foreign_certificate() -> String {
        tls("127.0.0.1", false).1
    }

    pub fn body(&self) -> Value {
        json!({
            "callback_url": self.url, "agent_token": self.token, "agent_version": "12.0.0",
            "agent_verify_ca": self.certificate,
        })
    }

    pub async fn heartbeat(&self, bench: &Bench, node: &str) -> Reply {
        bench.call(Method::POST, &format!("/v1/heartbeat/{node}"), Some("1.68"), Some(self.body())).await
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<String> {
        self.shared.lock().unwrap().asked.clone()
    }

    /// Waits until it was asked for this.
    pub async fn was_asked(&self, name: &str) {
        for _ in 0..1500 {
            if self.asked().iter().any(|asked| asked == name) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never asked for {name}: {:?}", self.asked());
    }

    /// Lets `write_image` end.
    pub fn finish(&self, outcome: Result<(), Value>) {
        self.shared.lock().unwrap().outcome = Some(outcome);
    }
}

fn tls(host: &str, is_ca: bool) -> (TlsAcceptor, String) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(host.parse().unwrap())];
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), certificate.pem())
}

/// Serves with a fresh certificate; returns the URL and the certificate's PEM text.
pub async fn serve_tls(router: Router) -> (String, String) {
    let (acceptor, certificate) = tls("127.0.0.1", false);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", tcp.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(Tls { tcp, acceptor }, router).await.unwrap() });
    (url, certificate)
}

struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = self.tcp.accept().await.unwrap();
            // A client that does not trust us goes away here.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

type Asked = (StatusCode, Json<Value>);
type Arguments = Query<HashMap<String, String>>;

fn fault(status: StatusCode, text: &str) -> Asked {
    (status, Json(json!({ "faultcode": "Client", "faultstring": text })))
}

async fn list(State(shared): State<Arc<Mutex<Shared>>>, query: Arguments) -> Asked {
    let mut shared = shared.lock().unwrap();
    if query.get("agent_token") != Some(&shared.token) {
        return fault(StatusCode::UNAUTHORIZED, "401 Unauthorized: Token invalid.");
    }
    shared.settle();
    (StatusCode::OK, Json(json!({ "commands": shared.commands })))
}

async fn events(State(shared): State<Arc<Mutex<Shared>>>, query: Arguments) -> Asked {
    let page = {
        let shared = shared.lock().unwrap();
        assert_eq!(query.get("agent_token"), Some(&shared.token));
        shared.events.clone()
    };
    let Some(page) = page else { return fault(StatusCode::NOT_FOUND, "404") };
    if query.get("after").map(String::as_str) != Some("0") {
        tokio::time::sleep(Duration::from_millis(100)).await;
        return (StatusCode::OK, Json(json!({ "events": [], "next": page["next"] })));
    }
    (StatusCode::OK, Json(page))
}

async fn run(State(shared): State<Arc<Mutex<Shared>>>, query: Arguments, Json(body): Json<Value>) -> Asked {
    let mut shared = shared.lock().unwrap();
    if query.get("agent_token") != Some(&shared.token) {
        return fault(StatusCode::UNAUTHORIZED, "401 Unauthorized: Token invalid.");
    }
    shared.settle();
    if shared.commands.last().is_some_and(|last| last.command_status == CommandStatus::Running) {
        return fault(StatusCode::CONFLICT, "Agent is busy: executing command x");
    }
    let name = body["name"].as_str().unwrap().to_owned();
    let wait = query.get("wait").map(String::as_str) == Some("true");
    let step = body["params"]["step"]["step"].as_str().map(|step| format!(" {step}")).unwrap_or_default();
    shared.asked.push(format!("{name}{step}"));
    shared.bodies.push(body.clone());
    let (expect_wait, status, result) = match name.as_str() {
        "deploy.get_deploy_steps" => {
            let steps = json!({ "deploy_steps": { "Generic": [
                { "step": "erase_devices_metadata", "priority": 0, "interface": "deploy", "reboot_requested": false },
            ]}, "hardware_manager_version": { "generic": "1.2" }});
            (true, CommandStatus::Succeeded, steps)
        }
        "clean.get_clean_steps" => {
            let steps = json!({ "clean_steps": { "Generic": [
                { "step": "erase_devices_metadata", "priority": 99, "interface": "deploy", "reboot_requested": false },
            ]}, "hardware_manager_version": { "generic": "1.2" }});
            (true, CommandStatus::Succeeded, steps)
        }
        "deploy.execute_deploy_step" => (false, CommandStatus::Running, Value::Null),
        "clean.execute_clean_step" => {
            let echo = json!({ "clean_result": null, "clean_step": body["params"]["step"] });
            (false, CommandStatus::Succeeded, echo)
        }
        "standby.get_partition_uuids" => {
            (true, CommandStatus::Succeeded, json!({ "root uuid": "0x00000000" }))
        }
        "image.install_bootloader" => (false, CommandStatus::Succeeded, Value::Null),
        "log.collect_system_logs" => (true, CommandStatus::Succeeded, json!({ "system_logs": "bG9ncw==" })),
        "standby.power_off" => {
            shared.power.goes_off();
            (false, CommandStatus::Running, Value::Null)
        }
        other => panic!("asked for {other}"),
    };
    assert_eq!(wait, expect_wait, "{name}");
    let result = CommandResult {
        id: uuid::Uuid::new_v4(),
        command_name: name.split_once('.').unwrap().1.to_owned(),
        command_status: status,
        command_error: None,
        command_result: Some(result).filter(|result| !result.is_null()),
    };
    shared.commands.push(result.clone());
    (StatusCode::OK, Json(json!(result)))
}

impl Shared {
    /// Ends a running step the way the test said.
    fn settle(&mut self) {
        let Some(outcome) = self.outcome.clone() else { return };
        let step = self.bodies.last().map(|body| body["params"]["step"].clone()).unwrap_or_default();
        let Some(last) = self.commands.last_mut() else { return };
        if last.command_status != CommandStatus::Running || last.command_name != "execute_deploy_step" {
            return;
        }
        match outcome {
            Ok(()) => {
                last.command_status = CommandStatus::Succeeded;
                last.command_result = Some(json!({ "deploy_result": null, "deploy_step": step }));
            }
            Err(error) => {
                last.command_status = CommandStatus::Failed;
                last.command_error = Some(serde_json::from_value(error).unwrap());
            }
        }
    }
}
