//! The address at which the conductor reaches the agent: the source address of the route to the conductor.
//!
//! Source: agent protocol page, 4.7. Upstream asks each URL over HTTP first whether it answers; here lookup has just put the
//! one that answers to the front, and the routing table is asked by connecting a UDP socket, which sends nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::time::Duration;

/// No address was found.
#[derive(Debug, thiserror::Error)]
#[error(
    "no local address has a route to {urls}; check the network, or give the address with ipa-advertise-host=ADDRESS"
)]
pub struct NoAddress {
    /// The URLs.
    urls: String,
}

/// What is known when the search begins.
#[derive(Clone, Debug)]
pub struct AddressSearch {
    /// The configured address: ends the search.
    pub configured: Option<String>,
    /// The address of the configured interface: ends the search.
    pub of_interface: Option<String>,
    /// URLs of the conductor, the most promising first.
    pub urls: Vec<String>,
    /// Rounds.
    pub attempts: NonZeroU32,
    /// Pause between rounds.
    pub pause: Duration,
}

/// The host part of the callback URL, without brackets.
pub async fn find_address(search: AddressSearch) -> Result<String, NoAddress> {
    if let Some(host) = search.configured.or(search.of_interface) {
        return Ok(host.trim_matches(['[', ']']).to_owned());
    }
    for round in 1..=search.attempts.get() {
        for url in &search.urls {
            for target in resolve(url).await {
                if let Some(source) = source_address(target) {
                    return Ok(source.to_string());
                }
            }
        }
        if round < search.attempts.get() {
            tracing::warn!(round, "no local address has a route to the conductor yet; trying again");
            tokio::time::sleep(search.pause).await;
        }
    }
    Err(NoAddress { urls: search.urls.join(", ") })
}

async fn resolve(url: &str) -> Vec<SocketAddr> {
    let Ok(url) = reqwest::Url::parse(url) else { return Vec::new() };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Vec::new() };
    match tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            tracing::warn!(host, %error, "the conductor's name can not be resolved");
            Vec::new()
        }
    }
}

/// The address that packets to `target` would come from; none without a route, or when only a link-local one fits.
fn source_address(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    let source = socket.local_addr().ok()?.ip();
    let link_local = match source {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    (!link_local && !source.is_unspecified()).then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(urls: &[&str]) -> AddressSearch {
        AddressSearch {
            configured: None,
            of_interface: None,
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            attempts: NonZeroU32::MIN,
            pause: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn the_address_is_the_one_that_the_route_leaves_from() {
        assert_eq!(find_address(search(&["http://127.0.0.1:6385"])).await.unwrap(), "127.0.0.1");
        let unusable = ["nonsense", "http://127.0.0.1:1"];
        assert_eq!(find_address(search(&unusable)).await.unwrap(), "127.0.0.1");
        let error = find_address(search(&["nonsense"])).await.unwrap_err().to_string();
        assert!(error.contains("ipa-advertise-host"), "{error}");
    }

    #[tokio::test]
    async fn what_is_configured_beats_what_is_found() {
        let mut search = search(&["http://127.0.0.1"]);
        search.of_interface = Some("192.0.2.9".into());
        assert_eq!(find_address(search.clone()).await.unwrap(), "192.0.2.9");
        search.configured = Some("[2001:db8::1]".into());
        assert_eq!(find_address(search).await.unwrap(), "2001:db8::1");
    }
}
