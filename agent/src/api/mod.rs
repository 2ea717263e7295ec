//! The agent's HTTP API: what a conductor calls. Source: agent protocol page, 1.
//!
//! The crate `http-server` accepts connections and reads bodies, within bounds; [`server`] adds what is the agent's; [`routes`] is the table of paths; [`commands`] and [`events`] answer.
//! Errors leave through [`error`] alone, so that every one has the body a conductor insists on.

mod commands;
mod error;
mod events;
mod json;
mod metrics;
mod refusal;
mod request_log;
mod routes;
mod server;
mod tls;
mod token;

use std::sync::Arc;
use std::time::Duration;

use http_server::Bodies;
use sys::Host;

pub use http_server::{BodyLimits, Bound, Limits, bind};
pub use server::serve;
pub use tls::{
    Certificate, ServerSettings, Tls, TlsError, generate, generate_at, server_config, static_config,
};
pub use token::{Learned, Token};

use crate::command::Executor;
use crate::metrics::Metrics;

/// What requests are answered from; clones share it.
#[derive(Clone)]
pub struct Api {
    /// Runs commands.
    pub executor: Executor,
    /// The token of this boot.
    pub token: Token,
    /// What happened so far.
    pub events: Arc<events::EventTail>,
    /// When the agent started, in Unix seconds.
    pub started_at: f64,
    /// `http` or `https`: how the API is served.
    pub scheme: &'static str,
    /// The bounds of a request's body.
    pub body: BodyLimits,
    /// Reads bodies. A large one is held alone, from reading it to the start of its command: several config drives at a time
    /// would be too much.
    bodies: Bodies,
    /// What is counted.
    pub metrics: Metrics,
}

/// The bounds of a request's body for a machine: an eighth of its memory, but never less than one config drive needs, nor
/// more than three.
///
/// Deploy steps may carry the same config drive up to three times (node, step, image); it has 64 MiB at the most, and a
/// third more in base64. Source: agent protocol page, 1.1 and 8.3.
pub fn body_limits(host: &Host) -> BodyLimits {
    let memory = host.attribute("/proc/meminfo").and_then(|text| total_kib(&text)).unwrap_or(0);
    let bytes = memory.saturating_mul(1024 / 8).clamp(LEAST_LIMIT, MOST_LIMIT);
    BodyLimits { bytes, ..LEAST }
}

/// `MemTotal` of `/proc/meminfo`.
fn total_kib(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Api {
    /// The API of an agent that starts now.
    pub fn new(executor: Executor, token: Token, events: &::events::Events, scheme: &'static str) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            executor,
            token,
            events: Arc::new(events::EventTail::new(events.clone())),
            started_at: now.map_or(0.0, |age| age.as_secs_f64()),
            scheme,
            body: LEAST,
            bodies: Bodies::default(),
            metrics: Metrics::new(events),
        }
    }

    /// The service that answers requests.
    pub fn router(&self) -> axum::Router {
        routes::router(self.clone())
    }
}

/// One config drive with room for the node, and three.
const LEAST_LIMIT: usize = 96 * 1024 * 1024;
const MOST_LIMIT: usize = 288 * 1024 * 1024;
const LEAST: BodyLimits =
    BodyLimits { bytes: LEAST_LIMIT, silence: Duration::from_secs(30), total: Duration::from_secs(600) };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_may_be_as_large_as_the_machine_bears() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        let host = sys::fake::host(root.path());
        let mib = |kib: &str| {
            std::fs::write(root.path().join("proc/meminfo"), kib).unwrap();
            body_limits(&host).bytes >> 20
        };
        assert_eq!(mib("MemTotal:         524288 kB\nMemFree: 1 kB\n"), 96);
        assert_eq!(mib("MemTotal:        1048576 kB\n"), 128);
        assert_eq!(mib("MemTotal:       16777216 kB\n"), 288);
        assert_eq!(mib("nonsense"), 96);
    }
}
