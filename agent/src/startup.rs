//! The start-up story, in order. Source: agent protocol page, 5.1.
//!
//! set the clock -> probe the hardware managers -> wait for a network interface -> inspection, if wanted -> lookup -> address,
//! certificate (`door`) -> serve -> heartbeats -> until told to stop. Before it, `cli` has read the configuration (and `init` has
//! brought up the machine, as PID 1).

use std::sync::Arc;
use std::time::Duration;

use events::{EventKind, Events, Phase};
use hwm::{Context, HardwareManager, Registry};
use serde_json::Value;
use sys::Host;
use tokio::sync::watch;
use wire::{Interface, LookupReply};

use crate::api::{self, Api, Learned, Limits, Token};
use crate::clock::{self, TimeServers, Timekeeper};
use crate::command::{Deployment, Ending, Executor, Extensions, Machine};
use crate::conductor::{
    self, Client, Heartbeater, LookupLimits, Trigger, lookup, node_source, run_heartbeats,
};
use crate::config::Config;
use crate::door::{self, Door};
use crate::inspection;
use crate::logging::LogRing;
use crate::metrics::{Counted, Metrics};
use crate::rescue;

/// How long to wait for a network interface, and how often to look.
const NETWORK_LOOKS: u32 = 12;
const NETWORK_PAUSE: Duration = Duration::from_secs(5);
/// Pause before a lookup that failed for its whole time begins anew.
const LOOKUP_PAUSE: Duration = Duration::from_secs(30);

/// Pause before it is asked whether a lost token has been replaced.
const TOKEN_PAUSE: Duration = Duration::from_secs(60);

/// Why the agent can not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody took what the machine is made of.
    #[error("inspecting the machine")]
    Inspection(#[source] inspection::Error),
    /// The client towards the conductor can not be made.
    #[error("setting up the connection to the conductor")]
    Client(#[source] Box<conductor::Error>),
    /// Nobody said which node this is, for the whole time.
    #[error(
        "lookup failed for {seconds} seconds; is one of the addresses {addresses} a port of a node that is being deployed or cleaned?"
    )]
    Lookup {
        /// For how long.
        seconds: u64,
        /// MAC addresses of this machine.
        addresses: String,
        /// The last failure.
        #[source]
        source: Box<conductor::Error>,
    },
    /// The token of this boot was fetched by an earlier process.
    #[error(
        "the conductor has given out the token of this boot before, and this process does not know it; \
         power-cycle the node through its controller to start over"
    )]
    TokenLost,
    /// The agent can not be reached.
    #[error("opening the agent's door")]
    Door(#[from] door::Error),
    /// Nobody told the time, and it is needed.
    #[error("setting the clock")]
    Clock(#[source] clock::Error),
}

/// What an agent is made of.
pub struct Agent {
    /// The machine.
    pub host: Host,
    /// The configuration, before lookup.
    pub config: Config,
    /// What happens.
    pub events: Events,
    /// The log.
    pub log: LogRing,
    /// The hardware managers that may know this machine.
    pub managers: Vec<Box<dyn HardwareManager>>,
    /// The deployment of this boot.
    pub deployment: Arc<dyn Deployment>,
    /// Time servers that came with the machine's address.
    pub leased_time_servers: Vec<std::net::IpAddr>,
    /// Whether a lookup that failed for its whole time begins anew (as PID 1: nobody would start the agent again).
    pub keep_trying: bool,
}

/// Runs the agent until `stop` becomes true, or a command ends its service: then this returns which one, after the reply. A
/// command that still runs then is asked to stop at its next safe point.
pub async fn run(agent: Agent, stop: watch::Receiver<bool>) -> Result<Option<Ending>, Error> {
    let Agent { host, mut config, events, log, managers, deployment, leased_time_servers, keep_trying } =
        agent;
    if host.path(rescue::MARKER).exists() {
        tracing::warn!(
            "{} exists: this machine is being rescued, so the agent serves nothing",
            rescue::MARKER
        );
        told_to_stop(stop).await;
        return Ok(None);
    }
    let metrics = Metrics::new(&events);
    events.emit(EventKind::AgentStarted { version: env!("CARGO_PKG_VERSION").into() });
    let servers = TimeServers {
        configured: config.ntp_server.value.clone(),
        leased: leased_time_servers,
        ..TimeServers::default()
    };
    let keeper = Timekeeper::new(host.clone(), events.clone(), servers, *config.fail_if_clock_not_set);
    set_clock(&keeper, keep_trying, &events).await?;
    let registry = Arc::new(Registry::probe(&host, managers));
    tokio::time::sleep(*config.hardware_initialization_delay).await;
    let context = Context::new(host.clone(), events.clone());
    let interfaces = wait_for_network(&registry, &context).await;

    config.tell_secrets(log.secrets()); // an announcement on the local network may have brought more
    let token = Token::new(config.agent_token.value.clone());
    let client =
        Arc::new(Client::new(&host, &config, &keeper).map_err(|error| Error::Client(Box::new(error)))?);
    let inspected =
        inspection::Machine { registry: Arc::clone(&registry), context: context.clone(), log: log.clone() };
    let inspected = inspection::at_start(&inspected, &config, &keeper, keep_trying).await;
    let node_uuid = inspected.map_err(Error::Inspection)?;
    let found = loop {
        match find_node(&client, &config, &interfaces, node_uuid.as_deref(), &events).await {
            Ok(Some(reply))
                if keep_trying && token.learn(reply.config.agent_token.as_ref()) == Learned::Lost =>
            {
                // Nobody would start the agent again, and a conductor that powers the node forgets the old token.
                let message = hwm::chain(&Error::TokenLost);
                events.emit(EventKind::Failed { phase: Phase::Lookup, message });
                tokio::time::sleep(TOKEN_PAUSE).await;
            }
            Ok(found) => break found,
            Err(_) if keep_trying => tokio::time::sleep(LOOKUP_PAUSE).await, // reported as an event
            Err(error) => return Err(error),
        }
    };
    if let Some(reply) = &found {
        if let Ok(reply) = serde_json::to_value(reply) {
            log.secrets().add_json("", &reply);
        }
        apply(reply, &mut config, &token)?;
    }
    deployment.configure(&config);
    let addresses: Vec<_> = interfaces.iter().map(|interface| interface.mac_address.clone()).collect();
    let limits = LookupLimits { timeout: *config.lookup_timeout, interval: *config.lookup_interval };
    deployment.refresh_nodes_by(node_source(client.clone(), addresses, limits));

    let trigger = Trigger::default();
    let ramdisk = disk::Policy::detect(&host, None).in_ramdisk;
    let (ending, ended) = watch::channel(None);
    let (clock, work) = (keeper.clone(), context.clone());
    let machine = Machine { context, registry, deployment, ramdisk, log, clock, ending };
    let extensions = Arc::new(Extensions::new(machine));
    if let Some(reply) = &found {
        remember(&extensions, reply);
    }
    let forced = trigger.clone();
    let executor = Executor::new(extensions, events.clone(), move || forced.force());

    let door = Door::open(&host, &config, found.is_some().then_some(&*client), &keeper, &events).await?;
    let mut api = Api::new(executor, token.clone(), &events, door.scheme());
    api.body = api::body_limits(&host);
    api.metrics = metrics.clone();
    let (counted, settled, name) =
        (metrics.clone(), config.clone(), host.attribute("/proc/sys/kernel/hostname"));
    // Not awaited: a name that does not resolve must not hold the start up.
    tokio::task::spawn_blocking(move || counted.send_as_configured(&settled, name.as_deref()));
    let (closing, closed) = watch::channel(false);
    let end = tokio::spawn(async move {
        let ending = tokio::select! {
            () = told_to_stop(stop) => None,
            ending = ended_by_command(ended) => Some(ending),
        };
        closing.send_replace(true);
        // What still runs is cut off when the process ends: better at a safe point, and said in the log.
        work.cancel();
        ending
    });
    let notice = match &door.callback_url {
        Some(url) => format!("serving at {url}"),
        None => format!("serving at {} without a conductor", door.bound.address),
    };
    events.emit(EventKind::Notice { message: notice });
    let server = api::serve(door.bound, api.router(), door.tls, Limits::default(), closed.clone());
    let server = tokio::spawn(server);
    match (found, door.callback_url) {
        (Some(reply), Some(callback_url)) => {
            let heartbeater = Heartbeater {
                client,
                node_uuid: reply.node.uuid,
                callback_url,
                token: token.get(),
                certificate: door.certificate,
            };
            let timeout = Duration::from_secs(reply.config.heartbeat_timeout.max(1));
            let counted = Counted { sender: &heartbeater, metrics };
            run_heartbeats(&counted, timeout, &trigger, &events, closed).await;
        }
        _ => told_to_stop(closed).await,
    }
    if let Err(error) = server.await {
        tracing::error!(%error, "the API server ended badly");
    }
    Ok(end.await.unwrap_or_default())
}

async fn told_to_stop(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await; // the other end gone means the same
}

async fn ended_by_command(mut ended: watch::Receiver<Option<Ending>>) -> Ending {
    loop {
        if let Some(ending) = *ended.borrow_and_update() {
            return ending;
        }
        if ended.changed().await.is_err() {
            return std::future::pending().await; // nobody can end it any more
        }
    }
}

/// Asks the time servers. Where the clock must be set, and nobody would start the agent again, it is tried until it is.
async fn set_clock(keeper: &Timekeeper, keep_trying: bool, events: &Events) -> Result<(), Error> {
    loop {
        let asking = keeper.clone();
        let asked = tokio::task::spawn_blocking(move || asking.synchronise()).await;
        match asked {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if keep_trying => {
                let message = format!("{}; trying again", hwm::chain(&error));
                events.emit(EventKind::Notice { message });
                tokio::time::sleep(LOOKUP_PAUSE).await;
            }
            Ok(Err(error)) => return Err(Error::Clock(error)),
            Err(error) => {
                tracing::error!(%error, "asking the time servers panicked");
                return Ok(());
            }
        }
    }
}

/// The interfaces that have a MAC address, once there is one; after a minute whatever there is.
async fn wait_for_network(registry: &Arc<Registry>, context: &Context) -> Vec<Interface> {
    for look in 1..=NETWORK_LOOKS {
        let interfaces = interfaces(registry.clone(), context.clone()).await;
        if !interfaces.is_empty() {
            return interfaces;
        }
        if look == 1 {
            tracing::warn!("no network interface yet; waiting for one");
        }
        tokio::time::sleep(NETWORK_PAUSE).await;
    }
    tracing::warn!("no network interface with a MAC address; going on without");
    Vec::new()
}

async fn interfaces(registry: Arc<Registry>, context: Context) -> Vec<Interface> {
    let listing = move || registry.first("list_network_interfaces", |manager| manager.interfaces(&context));
    match tokio::task::spawn_blocking(listing).await {
        Ok(Ok(interfaces)) => interfaces,
        Ok(Err(error)) => {
            tracing::warn!(error = hwm::chain(&error), "listing the network interfaces failed");
            Vec::new()
        }
        Err(error) => {
            tracing::error!(%error, "listing the network interfaces panicked");
            Vec::new()
        }
    }
}

/// Asks the conductor which node this is; `None` without a conductor.
async fn find_node(
    client: &Client,
    config: &Config,
    interfaces: &[Interface],
    node_uuid: Option<&str>,
    events: &Events,
) -> Result<Option<LookupReply>, Error> {
    if config.api_url.is_empty() && inspection::Plan::of(config).is_some() {
        tracing::info!(
            "booted for inspection alone: no conductor is known, so there is no lookup and no heartbeat"
        );
        return Ok(None);
    }
    if config.api_url.is_empty() {
        tracing::error!(
            "no conductor is known, so no command will be accepted; give ipa-api-url=http://... on the kernel command line"
        );
        return Ok(None);
    }
    let addresses: Vec<_> = interfaces.iter().map(|interface| interface.mac_address.clone()).collect();
    let limits = LookupLimits { timeout: *config.lookup_timeout, interval: *config.lookup_interval };
    let begun = std::time::Instant::now();
    match lookup(client, &addresses, node_uuid, limits, events).await {
        Ok(reply) => {
            let (seconds, bytes) = (begun.elapsed().as_secs_f64(), None);
            events.emit(EventKind::PhaseFinished { phase: Phase::Lookup, seconds, bytes });
            events.emit(EventKind::Notice { message: format!("this machine is node {}", reply.node.uuid) });
            Ok(Some(reply))
        }
        Err(source) => {
            let seconds = limits.timeout.as_secs();
            let (addresses, source) = (addresses.join(", "), Box::new(source));
            let error = Error::Lookup { seconds, addresses, source };
            let message = tls::chain(&error);
            events.emit(EventKind::Failed { phase: Phase::Lookup, message });
            Err(error)
        }
    }
}

/// Takes the token and the configuration of a lookup.
fn apply(reply: &LookupReply, config: &mut Config, token: &Token) -> Result<(), Error> {
    config.apply_lookup(&reply.config);
    match token.learn(reply.config.agent_token.as_ref()) {
        Learned::New => tracing::debug!("token received"),
        Learned::Kept if token.get().is_some() => tracing::debug!("the token known before lookup stays"),
        Learned::Kept => tracing::error!(
            "the conductor gave no token, so no command can be accepted; it must speak API version 1.62 or later"
        ),
        Learned::Lost => return Err(Error::TokenLost),
    }
    Ok(())
}

fn remember(extensions: &Extensions, reply: &LookupReply) {
    let node: Result<Value, _> = serde_json::to_value(&reply.node);
    let remembered = node
        .map_err(|error| error.to_string())
        .and_then(|node| extensions.set_node(node).map_err(|failure| failure.to_string()));
    if let Err(error) = remembered {
        tracing::warn!(error, "the node of the lookup can not be used");
    }
}
