//! Inspection: says what the machine is made of, once, before anybody asks who it is. Source: agent protocol page, 6.
//!
//! [`Plan`] is what the configuration wants; [`collect`] runs the [`Collector`]s, [`payload`] makes a body of what they found that
//! the conductor accepts, [`post`] delivers it. Called by `startup` before lookup, and by `ferric-agent inventory --inspection`,
//! which only prints the body.
//!
//! The body is posted whatever a collector did: the machine is unknown as a rule, and the errors in it are all that anybody has
//! to find out why. After a failed inspection the agent goes on to lookup; it gives up, or begins anew as process 1, only when
//! nobody could be reached.

mod collect;
mod collector;
mod default;
mod dhcp;
mod failures;
mod payload;
mod plan;
mod post;

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::{EventKind, Phase};
use hwm::{Context, Registry};

pub use collector::Collector;
pub use plan::Plan;
pub use post::Pauses;

use crate::clock::Timekeeper;
use crate::conductor::{self, Client};
use crate::config::Config;
use crate::logging::LogRing;

/// Pause before an inspection that reached nobody begins anew.
const PAUSE: Duration = Duration::from_secs(30);

/// Why inspection ended the run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client can not be made.
    #[error("setting up the connection that inspection needs")]
    Client(#[source] conductor::Error),
    /// Nobody took the data, however often they were offered.
    #[error(
        "nobody took the inspection data in {attempts} attempts; is the service at {urls} running, and can this machine reach it?"
    )]
    Unreachable {
        /// Where they were offered.
        urls: String,
        /// How often.
        attempts: u32,
        /// The last failure.
        #[source]
        source: conductor::Error,
    },
}

/// What inspection works with. Clones share it.
#[derive(Clone)]
pub struct Machine {
    /// The hardware managers.
    pub registry: Arc<Registry>,
    /// Host and events.
    pub context: Context,
    /// The agent's own log.
    pub log: LogRing,
}

/// Runs the inspection that the configuration wants, if any. `Some` is the id of the node that the conductor recognised.
///
/// Where `keep_trying` is set, an inspection that reached nobody begins anew, for ever: nobody would start process 1 again.
pub async fn at_start(
    machine: &Machine,
    config: &Config,
    keeper: &Timekeeper,
    keep_trying: bool,
) -> Result<Option<String>, Error> {
    let Some(plan) = Plan::of(config) else {
        tracing::debug!("inspection is not wanted");
        return Ok(None);
    };
    let host = &machine.context.host;
    let client = Client::towards(host, config, keeper, plan.urls.clone()).map_err(Error::Client)?;
    let again = keep_trying.then_some(PAUSE);
    until_reached(machine, &plan, &client, &Pauses::default(), again).await
}

/// Runs inspections until one has reached somebody, `again` apart; only one where that is nothing.
async fn until_reached(
    machine: &Machine,
    plan: &Plan,
    client: &Client,
    pauses: &Pauses,
    again: Option<Duration>,
) -> Result<Option<String>, Error> {
    loop {
        match (run(machine, plan, client, pauses).await, again) {
            (Err(_), Some(again)) => tokio::time::sleep(again).await, // reported as an event
            (ended, _) => return ended,
        }
    }
}

/// Collects and posts once. Failures are reported as events; only [`Error::Unreachable`] is returned.
pub async fn run(
    machine: &Machine,
    plan: &Plan,
    client: &Client,
    pauses: &Pauses,
) -> Result<Option<String>, Error> {
    let events = &machine.context.events;
    let begun = Instant::now();
    let subject = format!("{} to {}", plan.names.join(","), shown(&plan.urls));
    events.emit(EventKind::PhaseStarted { phase: Phase::Inspection, subject });
    let failed = |message: String| events.emit(EventKind::Failed { phase: Phase::Inspection, message });

    let (worker, wanted) = (machine.clone(), plan.clone());
    let collecting = tokio::task::spawn_blocking(move || {
        let findings = collect::run(&worker, &wanted);
        let failures = findings.failures.text();
        (payload::body(findings, &worker), failures)
    });
    let (body, failures) = match collecting.await {
        Ok(collected) => collected,
        Err(error) => {
            failed(format!("collecting the data ended badly: {error}"));
            return Ok(None);
        }
    };
    let bytes = u64::try_from(body.len()).ok();
    match post::post(client, &body, pauses, events).await {
        Ok(uuid) => {
            if let Some(failures) = failures {
                failed(failures);
                return Ok(None);
            }
            let seconds = begun.elapsed().as_secs_f64();
            events.emit(EventKind::PhaseFinished { phase: Phase::Inspection, seconds, bytes });
            Ok(uuid)
        }
        Err(post::Error::Refused(error)) => {
            let reason = tls::chain(&error);
            failed(format!("{reason}; is there a node of this machine, and is it being inspected?"));
            Ok(None)
        }
        Err(post::Error::Unreachable { attempts, source }) => {
            let error = Error::Unreachable { urls: shown(&plan.urls), attempts, source };
            failed(tls::chain(&error));
            Err(error)
        }
    }
}

/// The body that would be posted, for a person to read. Does not wait for addresses.
pub fn preview(machine: &Machine, plan: &Plan) -> Vec<u8> {
    let plan = Plan { dhcp: None, disk_looks: 1, ..plan.clone() };
    payload::body(collect::run(machine, &plan), machine)
}

/// URLs without what may be secret in them.
fn shown(urls: &[String]) -> String {
    let plain = |url: &String| {
        let url = url.split('?').next().unwrap_or_default();
        match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
            Some((scheme, rest)) => format!("{scheme}://{rest}"),
            None => url.to_owned(),
        }
    };
    urls.iter().map(plain).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_queries_of_urls_are_not_shown() {
        let urls = ["http://u:p@host/v1/x?token=1".to_owned(), "https://[fd00::1]:5050/v1/continue".into()];
        assert_eq!(shown(&urls), "http://host/v1/x, https://[fd00::1]:5050/v1/continue");
    }

    #[tokio::test]
    async fn process_one_says_that_nobody_is_there_and_begins_anew_until_somebody_is() {
        crate::install_crypto_provider();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let events = events::Events::default();
        let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
        events.listen(move |event| {
            if let EventKind::Failed { phase: Phase::Inspection, message } = &event.kind {
                let _ = failed.send(message.clone()); // nobody listens any more at the end
            }
        });
        let host = sys::fake::host("/nonexistent");
        let set = |name: &str, value: String| (name.to_owned(), value);
        let values = vec![
            set("inspection_callback_url", format!("http://{address}/")),
            set("inspection_collectors", "logs".into()),
        ];
        let overrides = crate::config::Overrides { values, ..Default::default() };
        let (config, _) = Config::load(&host, &Default::default(), &overrides).unwrap();
        let keeper = Timekeeper::new(host.clone(), events.clone(), Default::default(), false);
        let plan = Plan::of(&config).unwrap();
        let client = Client::towards(&host, &config, &keeper, plan.urls.clone()).unwrap();
        let registry = Arc::new(Registry::probe(&host, Vec::new()));
        let machine = Machine { registry, context: Context::new(host, events), log: LogRing::default() };
        let again = Some(Duration::from_millis(20));
        let inspecting =
            tokio::spawn(
                async move { until_reached(&machine, &plan, &client, &Pauses(Vec::new()), again).await },
            );
        for _ in 0..2 {
            assert!(failures.recv().await.unwrap().contains("nobody took the inspection data"));
        }
        let router = axum::Router::new().fallback(|| async { r#"{"uuid": "u"}"# });
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        assert_eq!(inspecting.await.unwrap().unwrap().as_deref(), Some("u"));
    }
}
