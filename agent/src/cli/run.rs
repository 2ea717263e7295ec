//! `ferric-agent run`: as an ordinary process, or as PID 1.

use std::io::Write;

use events::Events;
use hwm::HardwareManager;
use sys::Host;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{Exit, Options};
use crate::startup::{self, Agent};
use crate::{logging, progress};

/// Threads that answer HTTP.
const WORKERS: usize = 2;
/// Threads for blocking work: one command, names to resolve, files; not more than that at a time.
const BLOCKING_THREADS: usize = 16;

pub(super) fn run(host: &Host, options: &Options, managers: Vec<Box<dyn HardwareManager>>) -> Exit {
    let (config, warnings) = match options.load(host) {
        Ok(loaded) => loaded,
        Err(error) => {
            complain(&error);
            return Exit::Usage;
        }
    };
    let log = logging::start(options.log.as_deref(), *config.debug);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let events = Events::default();
    progress::log_events(&events);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&error);
            return Exit::Failure;
        }
    };
    let deployment = hardware_managers::Deployment::new(config.hardware_settings());
    let mut managers = managers;
    managers.extend(hardware_managers::builtin(&deployment));
    let agent = Agent { host: host.clone(), config, events, log, managers, deployment };
    let ended = runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        tokio::select! {
            ended = startup::run(agent, stopped) => ended,
            () = stop_on_signal(&stop) => Ok(()),
        }
    });
    match ended {
        Ok(()) => Exit::Success,
        Err(error) => {
            complain(&error);
            Exit::Failure
        }
    }
}

/// Sets `stop` at the first SIGTERM or SIGINT; ends some seconds later, or at the second signal.
async fn stop_on_signal(stop: &watch::Sender<bool>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals can not be watched; the agent ends when it is killed");
        return std::future::pending().await;
    };
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    tracing::info!("stopping");
    stop.send_replace(true);
    let patience = tokio::time::sleep(std::time::Duration::from_secs(5));
    tokio::select! { () = patience => {}, _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
}

/// Writes an error with its causes for a person.
pub(super) fn complain(error: &dyn std::error::Error) {
    let text = hwm::chain(error);
    tracing::error!("{text}");
    let _ = writeln!(std::io::stderr().lock(), "ferric-agent: {text}"); // nowhere left to complain
}
