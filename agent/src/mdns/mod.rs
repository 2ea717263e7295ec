//! Finds the conductor's services on the local network by multicast DNS, where the configuration asks for it.
//!
//! Source: ironic-python-agent `mdns.py` (agent protocol page, 5.8). Own resolver: it only asks, for two names, and the one library
//! at hand is a daemon with caches and threads ten times its size. Whoever answers on the local network is believed, which is why nothing
//! is asked unless somebody configured it, and why an answer may change the options of `mdns.allowed_overrides` alone.

mod message;
mod resolver;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use events::{EventKind, Events};
use sys::Host;

use crate::config::Config;
use message::{Data, Kind, Record};
use resolver::Resolver;

const API: &str = "baremetal";
const INSPECTION: &str = "baremetal-introspection";
/// How long one question is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause after the first failure; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Pause before a search that failed begins anew.
const SEARCH_PAUSE: Duration = Duration::from_secs(30);

/// A service can not be found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers, or nobody with an address.
    #[error(
        "no answer to {attempts} mDNS questions for {service}: is its announcement on this network? A conductor needs \
         [conductor]enable_mdns=true; ipa-api-url=http://... does without"
    )]
    NotFound {
        /// The name that was asked for.
        service: String,
        /// How often.
        attempts: u32,
    },
    /// The network can not be asked.
    #[error("asking the local network by mDNS")]
    Network(#[from] std::io::Error),
}

/// Where a service is, and what its announcement says besides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    url: String,
    properties: BTreeMap<String, String>,
}

/// How many records there are in an answer; `None` where it is none, or damaged. For whoever tries to break the reader.
pub fn records(packet: &[u8]) -> Option<usize> {
    message::answer(packet).map(|records| records.len())
}

/// Looks for what the configuration leaves to mDNS, and sets it there. `keep_trying`: for ever, because nobody would start the
/// agent again.
pub fn discover(host: &Host, config: &mut Config, keep_trying: bool, events: &Events) -> Result<(), Error> {
    if config.api_url.is_mdns() {
        let endpoint = loop {
            match find(host, config, API) {
                Err(error) if keep_trying => {
                    let message = format!("{}; trying again", hwm::chain(&error));
                    tracing::warn!("{message}");
                    events.emit(EventKind::Notice { message });
                    std::thread::sleep(SEARCH_PAUSE);
                }
                found => break found?,
            }
        };
        take("api_url", &endpoint, "", config, events);
    } else if config.api_url.is_empty() && *config.mdns_use {
        match find(host, config, API) {
            Ok(endpoint) => take("api_url", &endpoint, "", config, events),
            Err(error) => tracing::warn!(error = hwm::chain(&error), "no conductor found by mDNS"),
        }
    }
    if config.inspection_callback_url.as_deref() == Some("mdns") {
        match find(host, config, INSPECTION) {
            Ok(endpoint) => take("inspection_callback_url", &endpoint, "/v1/continue", config, events),
            Err(error) => {
                tracing::error!(
                    error = hwm::chain(&error),
                    "no inspection service found by mDNS; no inspection"
                );
                config.override_by_mdns("inspection_callback_url", "");
            }
        }
    }
    Ok(())
}

/// Sets an option to an endpoint, and then what the endpoint may override.
fn take(option: &str, endpoint: &Endpoint, path: &str, config: &mut Config, events: &Events) {
    let url = format!("{}{path}", endpoint.url);
    tracing::info!(option, url, properties = ?endpoint.properties, "found by mDNS");
    events.emit(EventKind::Notice { message: format!("found by mDNS: {option} {url}") });
    config.override_by_mdns(option, &url);
    for (key, value) in &endpoint.properties {
        let allowed = |name: &&str| config.mdns_allowed_overrides.iter().any(|allowed| allowed == name);
        match key.strip_prefix("ipa_") {
            Some(name) if allowed(&name) => config.override_by_mdns(name, value),
            Some(name) => {
                tracing::warn!(name, "an mDNS answer may not set this option (mdns.allowed_overrides)")
            }
            None => tracing::debug!(key, "an mDNS answer says something that is not for the agent"),
        }
    }
}

fn find(host: &Host, config: &Config, service: &str) -> Result<Endpoint, Error> {
    let name = format!("{service}._openstack._tcp.local");
    let attempts = config.mdns_lookup_attempts.get();
    let mut pause = FIRST_PAUSE;
    for attempt in 1..=attempts {
        // Opened anew each time: interfaces get their addresses meanwhile.
        let resolver = Resolver::open(host, &config.mdns_interfaces)?;
        let complete = |records: &[Record]| endpoint(&name, records, has_route).is_some();
        let mut records = resolver.ask(&name, &[Kind::Srv, Kind::Txt, Kind::Ptr], PATIENCE, complete)?;
        if let Some(target) = target(&name, &records).filter(|_| !complete(&records)) {
            let more = |records: &[Record]| records.iter().any(|record| record.name == target);
            records.extend(resolver.ask(&target, &[Kind::A, Kind::Aaaa], PATIENCE, more)?);
        }
        if let Some(endpoint) = endpoint(&name, &records, has_route) {
            return Ok(endpoint);
        }
        if attempt < attempts {
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(SEARCH_PAUSE);
        }
    }
    Err(Error::NotFound { service: name, attempts })
}

/// Whether a record is about the service: OpenStack's have the name of their kind, others may be instances of it.
fn is_about(record: &Record, service: &str) -> bool {
    record.name == service
        || record.name.strip_suffix(service).is_some_and(|instance| instance.ends_with('.'))
}

/// The host that serves it.
fn target(service: &str, records: &[Record]) -> Option<String> {
    records.iter().filter(|record| is_about(record, service)).find_map(|record| match &record.data {
        Data::Service { target, .. } => Some(target.clone()),
        Data::Address(_) | Data::Instance(_) | Data::Text(_) => None,
    })
}

/// The endpoint that records describe, once they do: the first address that `routable` likes, else the first one.
fn endpoint(service: &str, records: &[Record], routable: impl Fn(IpAddr) -> bool) -> Option<Endpoint> {
    let (instance, port, target) =
        records.iter().filter(|record| is_about(record, service)).find_map(|record| match &record.data {
            Data::Service { port, target } => Some((&record.name, *port, target)),
            Data::Address(_) | Data::Instance(_) | Data::Text(_) => None,
        })?;
    let mut properties = records
        .iter()
        .find_map(|record| match &record.data {
            Data::Text(values) if record.name == *instance => Some(values.clone()),
            Data::Text(_) | Data::Address(_) | Data::Instance(_) | Data::Service { .. } => None,
        })
        .unwrap_or_default();
    let addresses =
        records.iter().filter(|record| record.name == *target).filter_map(|record| match record.data {
            Data::Address(address) if !address.is_loopback() && !is_link_local(address) => Some(address),
            Data::Address(_) | Data::Instance(_) | Data::Text(_) | Data::Service { .. } => None,
        });
    let addresses: Vec<_> = addresses.collect();
    let address =
        addresses.iter().copied().find(|address| routable(*address)).or(addresses.first().copied())?;
    // A name in .local is known to mDNS alone, so the address stands for it.
    let host = match address {
        _ if !target.ends_with(".local") => target.clone(),
        IpAddr::V6(v6) => format!("[{v6}]"),
        IpAddr::V4(v4) => v4.to_string(),
    };
    let protocol = properties.remove("protocol").filter(|protocol| !protocol.is_empty());
    let protocol = protocol.unwrap_or_else(|| if port == 80 { "http" } else { "https" }.into());
    let path = properties.remove("path").unwrap_or_default();
    Some(Endpoint { url: format!("{protocol}://{host}:{port}{path}"), properties })
}

/// An address that only means something together with an interface has no place in a URL.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Connecting a UDP socket asks the routing table and sends nothing.
fn has_route(address: IpAddr) -> bool {
    let any = if address.is_ipv4() { IpAddr::from([0, 0, 0, 0]) } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 9))).is_ok()
}

#[cfg(test)]
mod tests;
