//! Which interface leads to the conductor, on a machine with several.
//!
//! Two cards may both have an address and a router, and only one of them the conductor behind it. The kernel takes the router with
//! the lowest metric and asks nobody. So each interface is tried in turn until the conductor answers through one, and the routes
//! follow that one. A machine with one interface, and one whose conductor answers at once, change nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use sys::net::route::Route;

use super::plan::is_within;
use super::{Network, Up};

/// How long a server may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the start waits for the first round.
const FIRST_ROUND: Duration = Duration::from_secs(12);
/// The pause between two rounds.
const PAUSE: Duration = Duration::from_secs(5);
/// Metrics of the routes that lead to the conductor: better than those of any interface.
const HOST_METRIC: u32 = 10;
const DEFAULT_METRIC: u32 = 50;

impl Network {
    /// Looks for the interface that leads to one of these API URLs, in the background, until one answers. Waits for the first
    /// round, [`FIRST_ROUND`] at most: a call that is sent the wrong way would take longer to fail.
    pub fn find_way(&self, urls: &[String]) {
        let servers: Vec<(String, u16)> = urls.iter().filter_map(|url| server_of(url)).collect();
        if servers.is_empty() || self.shared.plan().is_off() {
            return;
        }
        let network = self.clone();
        let (done, first_round) = std::sync::mpsc::channel();
        super::super::spawn("way", move || {
            while !network.found_way(&servers) {
                let _ = done.send(()); // nobody waits for the later ones
                thread::sleep(PAUSE);
            }
        });
        let _ = first_round.recv_timeout(FIRST_ROUND); // found, not found, or still looking: the same from here on
    }

    /// One round. True when there is nothing left to look for.
    fn found_way(&self, servers: &[(String, u16)]) -> bool {
        let ups = self.interfaces();
        let mut names: Vec<&str> = ups.iter().map(|up| up.name.as_str()).collect();
        names.dedup();
        if names.len() < 2 {
            return false; // another one may still come
        }
        let resolver = dns::Resolver::system();
        let addresses: Vec<SocketAddr> = servers
            .iter()
            .flat_map(|(host, port)| resolver.resolve(host, *port).unwrap_or_default()) // the lookup reports it
            .collect();
        // As the routes are now: then nothing has to change.
        if addresses.iter().any(|server| TcpStream::connect_timeout(server, PATIENCE).is_ok()) {
            return true;
        }
        for server in &addresses {
            for up in ups.iter().filter(|up| up.address.is_ipv4() == server.is_ipv4()) {
                let index = sys::net::route::interface_index(&up.name);
                let reached = index.and_then(|index| {
                    sys::net::connect::connect_through(index, *server, PATIENCE).map(|_| index)
                });
                match reached {
                    Ok(index) => {
                        self.lead(index, up, *server);
                        return true;
                    }
                    Err(error) => tracing::debug!(interface = up.name, %server, %error, "no conductor there"),
                }
            }
        }
        false
    }

    /// Lets the routes follow an interface that leads to the conductor.
    fn lead(&self, interface: u32, up: &Up, server: SocketAddr) {
        let on_link = is_within(server.ip(), up.address, up.prefix);
        let whole: (IpAddr, u8) = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), 32),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), 128),
        };
        let to_server = Route {
            destination: server.ip(),
            prefix: whole.1,
            gateway: up.gateway.filter(|_| !on_link),
            interface,
            metric: HOST_METRIC,
        };
        let to_all =
            Route { destination: whole.0, prefix: 0, gateway: up.gateway, interface, metric: DEFAULT_METRIC };
        // Where the images lie is not known; a network that has the conductor is the likeliest to have them.
        for route in [Some(to_server), up.gateway.map(|_| to_all)].into_iter().flatten() {
            if let Err(error) = sys::net::route::add_route(&route) {
                tracing::warn!(interface = up.name, ?route, %error, "the way to the conductor cannot be set");
            }
        }
        self.notice(format!(
            "network: the conductor {server} answers through {}: the routes lead there now",
            up.name
        ));
    }
}

/// Host and port of a URL.
fn server_of(url: &str) -> Option<(String, u16)> {
    let url = reqwest::Url::parse(url).ok()?;
    Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_from_urls() {
        let server = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(server_of("http://ironic.lab:6385/v1"), server("ironic.lab", 6385));
        assert_eq!(server_of("https://192.0.2.1"), server("192.0.2.1", 443));
        assert_eq!(server_of("http://[2001:db8::1]:6385"), server("[2001:db8::1]", 6385));
        assert_eq!(server_of("mdns"), None);
    }
}
