//! The agent as `/init`: what has to happen between the kernel's last line and an ordinary process's first one.
//!
//! The ramdisk holds nothing but this program, so all of it happens in here: [`prepare`] mounts the kernel's file systems
//! and takes over the duties of process 1; [`bring_up`] loads the drivers the hardware asks for and brings the network up;
//! [`console::Console`] talks to whoever stands in front of the machine. `main` calls them in that order, before it starts
//! its async runtime. Nothing here runs when the agent is an ordinary process, and no disk is touched.

pub mod complete;
pub mod console;
mod fatal;
mod modules;
mod mounts;
pub mod network;
mod reaper;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use events::{EventKind, Events, Phase};
use sys::Host;

use crate::cmdline::Cmdline;
use crate::config::{Config, Overrides};
use crate::secrets::is_secret_name;
use crate::virtual_media::{self, Media};
use crate::vlan;
pub use console::{Console, Identity};
pub use fatal::{OnFatal, fatal, supervise};
pub use modules::helper::{is_helper_call, run_helper};
pub use network::{Network, Up};

/// How long drivers may take to find their devices before start-up goes on without waiting for them.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// How long virtual media may take to appear: a BMC plugs it in over USB.
const MEDIA_LIMIT: Duration = Duration::from_secs(20);
/// How long start-up waits for a first address; after that the network goes on trying in the background.
const ADDRESS_LIMIT: Duration = Duration::from_secs(60);

/// Why the machine could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This is no ramdisk, or not its first process: going on would change the machine that runs here.
    #[error("refusing to set up this machine: ferric-agent is not process 1 of a ramdisk")]
    NotInit,
    /// A file system of the kernel's could not be mounted.
    #[error("mounting {filesystem} on {}", target.display())]
    Mount {
        /// Its type.
        filesystem: String,
        /// Where.
        target: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that every Linux has could not be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel did not unpack the whole ramdisk.
    #[error("the ramdisk is incomplete: {mebibytes} MiB of memory do not hold it (root file system {root})")]
    Incomplete {
        /// The machine's memory, in MiB; 0 if unknown.
        mebibytes: u64,
        /// `tmpfs`, which holds half of the memory, or `ramfs`.
        root: &'static str,
    },
    /// Virtual media is there and can not be used.
    #[error(transparent)]
    VirtualMedia(#[from] virtual_media::Error),
}

/// Whether this process is the first one of its process id namespace: of a ramdisk, of a container.
pub fn is_init() -> bool {
    sys::pid1::is_first_process()
}

/// Whether this process has to do all that `init` is about: it is the first one, and `/` lies in memory. A container, whose
/// first process the agent may be as well, has been set up by others.
fn is_first_of_ramdisk() -> bool {
    is_init() && sys::pid1::root_is_in_memory()
}

/// Mounts the kernel's file systems, takes over the duties of process 1 (orphans, Ctrl-Alt-Del) and returns the kernel
/// command line. Call it first of all, on the main thread: until it has run there is no `/proc` and no `/dev`.
///
/// Refuses unless this is process 1 and `/` lies in memory.
pub fn prepare(host: &Host) -> Result<Cmdline, Error> {
    if !is_first_of_ramdisk() {
        return Err(Error::NotInit);
    }
    // The kernel made variables of the parameters that it does not know; they are read from /proc/cmdline.
    sys::pid1::hide_environment(|name, value| {
        is_secret_name(name) || (value.contains("://") && value.contains('@') && !is_proxy(name))
    });
    mounts::mount_basics(host)?;
    let path = host.path("/proc/cmdline");
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
    let cmdline = Cmdline::parse(&text);

    let console = host.path("/dev/console");
    if let Err(error) = sys::console::attach_standard_streams(&console) {
        tracing::debug!(%error, "no console to attach to");
    }
    quiet_the_kernel(host, &cmdline);
    reaper::start(host);
    modules::helper::install(host);
    Ok(cmdline)
}

/// Whether a variable names a proxy: container engines need it as it is.
fn is_proxy(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with("_proxy")
}

/// The machine once it is up.
#[derive(Debug)]
pub struct Machine {
    /// Its network.
    pub network: Network,
    /// The kernel command line, and the parameters of virtual media that go before it.
    pub cmdline: Cmdline,
}

/// Loads the drivers that the hardware asks for, reads virtual media where the kernel command line says that there is some, and
/// brings the network up. Blocks until there is a first address, a minute at most: without one it returns as well, with a
/// warning on the console, and goes on trying in the background.
///
/// Needs [`prepare`] first. Configuration files may have come from virtual media: read them after this.
pub fn bring_up(host: &Host, cmdline: &Cmdline, events: &Events) -> Result<Machine, Error> {
    if !is_first_of_ramdisk() {
        return Err(Error::NotInit);
    }
    let started = std::time::Instant::now();
    events.emit(EventKind::PhaseStarted { phase: Phase::Network, subject: "loading drivers".into() });
    let drivers = modules::start(host, cmdline);
    let mut cmdline = cmdline.clone();
    // Virtual media may say how to reach the network, so the network has to wait for it; without it nothing waits.
    let media = if virtual_media::is_used(&cmdline) {
        drivers.settle(SETTLE_LIMIT);
        let media = virtual_media::take(host, &mut cmdline, MEDIA_LIMIT)?;
        for notice in &media.notices {
            tracing::info!("{notice}");
            events.emit(EventKind::Notice { message: notice.clone() });
        }
        media
    } else {
        Media::default()
    };
    // What makes no sense in the configuration is reported once there is a network to report it by.
    let config = Config::load(host, &cmdline, &Overrides::default()).map(|(config, _)| config);
    let vlans = config.as_ref().map(vlan::explicit).unwrap_or_default();
    let network = Network::start(host, &cmdline, media.network_data.as_deref(), vlans, events);
    drivers.settle(SETTLE_LIMIT);
    mounts::mount_efivars(host);
    network.wait(ADDRESS_LIMIT);
    network.set_hostname(host);
    if !network.interfaces().is_empty() {
        let seconds = started.elapsed().as_secs_f64();
        events.emit(EventKind::PhaseFinished { phase: Phase::Network, seconds, bytes: None });
    }
    Ok(Machine { network, cmdline })
}

/// Keeps the kernel's chatter off the console: errors stay, the rest is in its log. Whoever asked for more gets it.
fn quiet_the_kernel(host: &Host, cmdline: &Cmdline) {
    let asked = ["debug", "ignore_loglevel"].iter().any(|flag| cmdline.has_flag(flag));
    if asked || cmdline.get("loglevel").is_some() {
        return;
    }
    if let Err(error) = std::fs::write(host.path("/proc/sys/kernel/printk"), "4\n") {
        tracing::debug!(%error, "the kernel's messages stay on the console");
    }
}

/// Starts a named thread that nobody joins: it lives as long as the machine, or ends by itself in bounded time.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(work) {
        tracing::error!(%error, name, "no memory for a thread");
    }
}
