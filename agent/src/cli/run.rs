//! `ferric-agent run`: as an ordinary process; and the part of a run that is the same as PID 1.

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use events::Events;
use hwm::HardwareManager;
use sys::Host;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{Exit, Options};
use crate::command::Ending;
use crate::config::Config;
use crate::lockdown;
use crate::logging::{self, LogRing, Output};
use crate::mdns;
use crate::progress;
use crate::startup::{self, Agent};
use crate::vlan;

/// Threads that answer HTTP.
const WORKERS: usize = 2;
/// Threads for blocking work: one command, names to resolve, files; not more than that at a time.
const BLOCKING_THREADS: usize = 16;
/// How long an agent that was told to stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What a run needs.
pub(super) struct Setup {
    pub(super) host: Host,
    pub(super) config: Config,
    pub(super) events: Events,
    pub(super) log: LogRing,
    /// Asked before the built-in ones of equal support.
    pub(super) managers: Vec<Box<dyn HardwareManager>>,
    /// Time servers that came with the machine's address.
    pub(super) leased_time_servers: Vec<std::net::IpAddr>,
    /// Whether a lookup that failed for its whole time begins anew, instead of ending the run.
    pub(super) keep_trying: bool,
}

/// Why a run ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// No threads.
    #[error("starting the runtime")]
    Runtime(#[source] std::io::Error),
    /// The conductor can not be found.
    #[error(transparent)]
    Mdns(#[from] mdns::Error),
    /// The agent can not do its work.
    #[error(transparent)]
    Agent(#[from] Box<startup::Error>),
}

pub(super) fn run(host: &Host, options: &Options, managers: Vec<Box<dyn HardwareManager>>) -> Exit {
    let (config, warnings) = match options.load(host) {
        Ok(loaded) => loaded,
        Err(error) => {
            complain(&error);
            return Exit::Usage;
        }
    };
    let logging = logging::start(&Output::Stderr, options.log.as_deref(), *config.debug);
    config.tell_secrets(logging.ring.secrets());
    logging.configure(*config.debug, config.log_path().as_deref());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let events = Events::default();
    progress::log_events(&events);
    let _ = vlan::create(host, &config); // set up; who gives them addresses is this machine's business
    let setup = Setup {
        host: host.clone(),
        config,
        events,
        log: logging.ring,
        managers,
        leased_time_servers: Vec::new(),
        keep_trying: false,
    };
    match to_the_end(setup, told_to_stop) {
        // As ironic-python-agent: its service manager sees the marker, and does not start it again.
        Ok(None | Some(Ending::Rescue)) => Exit::Success,
        // Going away would have a service manager start the agent anew.
        Ok(Some(Ending::Lockdown)) => match stay_locked_down(host) {
            Ok(()) => Exit::Success,
            Err(error) => {
                complain(&error);
                Exit::Failure
            }
        },
        Err(error) => {
            complain(&error);
            Exit::Failure
        }
    }
}

/// Takes the network down and waits for a signal.
fn stay_locked_down(host: &Host) -> Result<(), Ended> {
    lockdown::disconnect(host);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Ended::Runtime)?;
    runtime.block_on(told_to_stop());
    Ok(())
}

/// Runs the agent until it fails, until a command ends its service (which then is returned), or until `told_to_stop` ends.
pub(super) fn to_the_end<Told: Future<Output = ()>>(
    setup: Setup,
    told_to_stop: impl FnOnce() -> Told,
) -> Result<Option<Ending>, Ended> {
    let Setup { host, mut config, events, log, mut managers, leased_time_servers, keep_trying } = setup;
    mdns::discover(&host, &mut config, keep_trying, &events)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(Ended::Runtime)?;
    let deployment = hardware_managers::Deployment::new(config.hardware_settings());
    managers.extend(hardware_managers::builtin(&deployment));
    let agent = Agent { host, config, events, log, managers, deployment, leased_time_servers, keep_trying };
    let ended = runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let stopping = async {
            told_to_stop().await;
            tracing::info!("stopping");
            stop.send_replace(true);
            tokio::time::sleep(STOP_PATIENCE).await;
        };
        tokio::select! { ended = startup::run(agent, stopped) => ended, () = stopping => Ok(None) }
    });
    runtime.shutdown_timeout(Duration::from_secs(1)); // a command that runs is cut off: the process ends
    Ok(ended.map_err(Box::new)?)
}

/// Ends at the first SIGTERM or SIGINT.
async fn told_to_stop() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        }
        _ => {
            tracing::warn!("signals can not be watched; the agent ends when it is killed");
            std::future::pending().await
        }
    }
}

/// Writes an error with its causes for a person.
pub(super) fn complain(error: &dyn std::error::Error) {
    let _ = writeln!(std::io::stderr().lock(), "ferric-agent: {}", hwm::chain(error)); // nowhere left to complain
}
