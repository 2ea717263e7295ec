//! What the agent counts: for Prometheus (`GET /metrics`, [`Metrics::text`]) and, where configured, for a statsd server.
//!
//! Most of it is read off the events that the work makes anyway; requests and heartbeats are told by those who handle them.
//! Counters and gauges only: no names of nodes, images or hosts, no secrets.

mod heartbeats;
mod process;
mod statsd;
mod transfer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Method;
use events::{Event, EventKind, Events, Phase};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::config::{Config, MetricsBackend};
pub use heartbeats::Counted;
use statsd::Statsd;

/// The content type of [`Metrics::text`].
pub const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the durations of commands, in seconds: from an inventory to the erasure of a large disk.
const DURATIONS: [f64; 10] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0];

/// What is counted; clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    commands: Family<CommandLabels, Histogram, fn() -> Histogram>,
    heartbeats: Family<OutcomeLabel, Counter>,
    lookups: Counter,
    transfer: transfer::Transfer,
    process: process::Process,
    /// When each command that runs began, by its id.
    running: Mutex<HashMap<String, Instant>>,
    statsd: OnceLock<Statsd>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    command: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl Metrics {
    /// Counts from now on, also what `events` tell.
    pub fn new(events: &Events) -> Self {
        let mut registry = Registry::default();
        let process = process::Process::register(&mut registry);
        let ours = registry.sub_registry_with_prefix("ferric_agent");
        let requests = Family::default();
        ours.register("http_requests", "Requests answered", requests.clone());
        let commands = Family::new_with_constructor((|| Histogram::new(DURATIONS)) as fn() -> Histogram);
        let help = "How long commands took";
        ours.register_with_unit("command_duration", help, Unit::Seconds, Family::clone(&commands));
        let heartbeats = Family::default();
        ours.register("heartbeats", "Heartbeats sent", heartbeats.clone());
        let lookups = Counter::default();
        ours.register(
            "lookup_attempts",
            "Attempts to learn from the conductor which node this is",
            lookups.clone(),
        );
        let transfer = transfer::Transfer::register(ours);
        let build = [("version", env!("CARGO_PKG_VERSION")), ("protocol", wire::AGENT_PROTOCOL_VERSION)];
        ours.register("build", "This program", Info::new(build));
        let running = Mutex::default();
        let inner = Inner {
            registry,
            requests,
            commands,
            heartbeats,
            lookups,
            transfer,
            process,
            running,
            statsd: OnceLock::new(),
        };
        let metrics = Self(Arc::new(inner));
        let listening = metrics.clone();
        events.listen(move |event| listening.event(event));
        metrics
    }

    /// Sends timers to a statsd server from now on, where the configuration says so. Blocks for as long as a name takes; a
    /// server that can not be used is a warning, for nothing depends on it.
    pub fn send_as_configured(&self, config: &Config, host_name: Option<&str>) {
        match *config.metrics_backend {
            MetricsBackend::Noop | MetricsBackend::Collector => return,
            MetricsBackend::Statsd => {}
        }
        let host_name = host_name.filter(|_| *config.metrics_prepend_host);
        let reverse = *config.metrics_prepend_host_reverse;
        let prefix = statsd::prefix(config.metrics_global_prefix.as_deref(), host_name, reverse);
        match Statsd::open(&config.statsd_host, *config.statsd_port, prefix) {
            Ok(statsd) => drop(self.0.statsd.set(statsd)), // one for the life of the process
            Err(error) => tracing::warn!(error = hwm::chain(&error), "timers are not sent"),
        }
    }

    /// A request was answered; `route` is the pattern that it matched.
    pub fn request(&self, route: Option<&str>, method: &Method, status: u16, took: Duration) {
        // One series a route: the form without `/v1` is the same one, and anybody can make up paths and methods.
        let route =
            route.map(|route| route.strip_prefix("/v1").filter(|rest| rest.len() > 1).unwrap_or(route));
        let known = [Method::GET, Method::HEAD, Method::POST];
        let shown = if known.contains(method) { method.as_str() } else { "other" };
        let labels = RequestLabels { route: route.unwrap_or("other").into(), method: shown.into(), status };
        self.0.requests.get_or_create(&labels).inc();
        if let (Some(statsd), Some(name)) = (self.0.statsd.get(), timer(route, method)) {
            statsd.timer(name, took);
        }
    }

    /// A heartbeat was sent.
    pub fn heartbeat(&self, accepted: bool) {
        let outcome = if accepted { "accepted" } else { "failed" };
        self.0.heartbeats.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Everything, in the OpenMetrics text format.
    pub fn text(&self) -> String {
        self.0.process.refresh();
        let mut text = String::new();
        if let Err(error) = text::encode(&mut text, &self.0.registry) {
            tracing::error!(%error, "metrics can not be written");
        }
        text
    }

    fn event(&self, event: &Event) {
        match &event.kind {
            EventKind::CommandStarted { id, .. } => {
                self.running().insert(id.clone(), Instant::now());
            }
            EventKind::CommandFinished { id, name, succeeded, .. } => {
                let begun = self.running().remove(id);
                let command = name.split_whitespace().next().unwrap_or_default().to_owned();
                let outcome = if *succeeded { "succeeded" } else { "failed" };
                let took = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
                self.0.commands.get_or_create(&CommandLabels { command, outcome }).observe(took);
            }
            EventKind::PhaseStarted { phase: Phase::Lookup, .. }
            | EventKind::Retrying { phase: Phase::Lookup, .. } => {
                self.0.lookups.inc();
            }
            other => self.0.transfer.event(other),
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        // Insertions and removals only: valid whatever happened under the lock.
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name that ironic-python-agent gives the time of a request. Source: its `api/app.py`.
fn timer(route: Option<&str>, method: &Method) -> Option<&'static str> {
    let reads = [Method::GET, Method::HEAD].contains(method);
    match route? {
        "/status" if reads => Some("get_status"),
        "/commands/" if reads => Some("list_commands"),
        "/commands/{id}" if reads => Some("get_command"),
        "/commands/" if *method == Method::POST => Some("run_command"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn line<'a>(text: &'a str, start: &str) -> &'a str {
        text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"))
    }

    #[test]
    fn everything_is_counted_under_names_of_the_usual_kind() {
        let events = Events::default();
        let metrics = Metrics::new(&events);
        for route in ["/v1/commands/", "/commands/"] {
            metrics.request(Some(route), &Method::POST, 200, Duration::from_millis(5));
        }
        metrics.request(None, &"BREW".parse().unwrap(), 404, Duration::ZERO);
        metrics.heartbeat(true);
        metrics.heartbeat(false);
        events.emit(EventKind::PhaseStarted { phase: Phase::Lookup, subject: "u".into() });
        let name = "deploy.execute_deploy_step write_image".to_owned();
        events.emit(EventKind::CommandStarted { id: "1".into(), name: name.clone() });
        events.emit(EventKind::CommandFinished { id: "1".into(), name, succeeded: true, message: None });

        let text = metrics.text();
        for expected in [
            "ferric_agent_http_requests_total{route=\"/commands/\",method=\"POST\",status=\"200\"} 2",
            "ferric_agent_http_requests_total{route=\"other\",method=\"other\",status=\"404\"} 1",
            "ferric_agent_heartbeats_total{outcome=\"accepted\"} 1",
            "ferric_agent_heartbeats_total{outcome=\"failed\"} 1",
            "ferric_agent_lookup_attempts_total 1",
            "ferric_agent_command_duration_seconds_count{command=\"deploy.execute_deploy_step\",outcome=\"succeeded\"} 1",
            "ferric_agent_image_read_bytes_total 0",
            "ferric_agent_build_info{version=",
            "process_start_time_seconds ",
        ] {
            assert_eq!(&line(&text, expected)[..expected.len()], expected);
        }
        let resident: f64 =
            line(&text, "process_resident_memory_bytes ").split(' ').nth(1).unwrap().parse().unwrap();
        assert!(resident > 1e6, "{resident}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn timers_go_where_the_configuration_says() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let port = server.local_addr().unwrap().port().to_string();
        let config = |backend: &str| {
            let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let values = vec![
                set("metrics.backend", backend),
                set("metrics.prepend_host", "true"),
                set("metrics_statsd.statsd_host", "127.0.0.1"),
                set("metrics_statsd.statsd_port", &port),
            ];
            let root = tempfile::tempdir().unwrap();
            let overrides = Overrides { values, ..Overrides::default() };
            Config::load(&sys::fake::host(root.path()), &Default::default(), &overrides).unwrap().0
        };
        for backend in ["noop", "statsd"] {
            let metrics = Metrics::new(&Events::default());
            metrics.send_as_configured(&config(backend), Some("box.lab"));
            metrics.request(
                Some(if backend == "noop" { "/status" } else { "/v1/commands/" }),
                &Method::GET,
                200,
                Duration::ZERO,
            );
        }
        let mut datagram = [0; 200];
        let length = server.recv(&mut datagram).unwrap();
        let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
        assert_eq!(text, "lab.box.ironic_python_agent.api.app.list_commands:0.000|ms", "the first that came");
    }

    #[test]
    fn timers_have_the_names_of_ironic_python_agent() {
        assert_eq!(timer(Some("/commands/{id}"), &Method::GET), Some("get_command"));
        assert_eq!(timer(Some("/commands/"), &Method::GET), Some("list_commands"));
        assert_eq!(timer(Some("/commands/"), &Method::POST), Some("run_command"));
        assert_eq!(timer(Some("/status"), &Method::GET), Some("get_status"));
        assert_eq!(timer(Some("/"), &Method::GET), None);
    }
}
