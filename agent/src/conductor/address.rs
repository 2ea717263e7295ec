//! The address at which the conductor reaches the agent: the source address of the route to the conductor.
//!
//! Source: agent protocol page, 4.7. Every URL is asked over HTTP whether anybody is there; the names of those that answer are
//! resolved, IPv4 and IPv6; the routing table is asked by connecting a UDP socket, which sends nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::join_all;
use sys::Host;

use super::error::Error;

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
#[derive(Clone)]
pub struct AddressSearch {
    /// The machine.
    pub host: Host,
    /// The configured address: ends the search.
    pub configured: Option<String>,
    /// The configured interface: its address ends the search.
    pub interface: Option<String>,
    /// URLs of the conductor, as configured.
    pub urls: Vec<String>,
    /// Rounds.
    pub attempts: NonZeroU32,
    /// Pause between rounds.
    pub pause: Duration,
    /// Limit for a URL to answer.
    pub request_timeout: Duration,
}

/// The host part of the callback URL, without brackets.
///
/// Upstream gives up at once when no URL answers; here that is one more reason for another round, because the one who asks
/// holds a token that nobody gives out twice.
pub async fn find_address(search: &AddressSearch) -> Result<String, NoAddress> {
    if let Some(host) = &search.configured {
        return Ok(host.trim_matches(['[', ']']).to_owned());
    }
    let mut reachable = Vec::new();
    for round in 1..=search.attempts.get() {
        let found = match &search.interface {
            Some(interface) => of_interface(&search.host, interface),
            None => {
                if reachable.is_empty() {
                    reachable = reachable_urls(&search.urls, search.request_timeout).await;
                }
                towards(&reachable).await
            }
        };
        if let Some(address) = found {
            return Ok(address.to_string());
        }
        if round < search.attempts.get() {
            tracing::warn!(round, "no local address has a route to the conductor yet; trying again");
            tokio::time::sleep(search.pause).await;
        }
    }
    Err(NoAddress { urls: search.urls.iter().map(|url| without_login(url)).collect::<Vec<_>>().join(", ") })
}

/// The first IPv4 address of an interface, or its first IPv6 one that is good for more than its link.
fn of_interface(host: &Host, interface: &str) -> Option<IpAddr> {
    let all = match host.kernel().interface_addresses() {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(%error, "listing the addresses of the interfaces failed");
            return None;
        }
    };
    let own: Vec<_> =
        all.into_iter().filter(|(name, _)| name == interface).map(|(_, address)| address).collect();
    let v4 = own.iter().find(|address| address.is_ipv4());
    v4.or_else(|| own.iter().find(|address| !is_link_local(**address))).copied()
}

/// The URLs that answer, whatever they answer and whoever they are, in their order.
async fn reachable_urls(urls: &[String], limit: Duration) -> Vec<String> {
    let http = match anybody(limit) {
        Ok(http) => http,
        Err(error) => {
            tracing::warn!(error = tls::chain(&error), "URLs are taken unasked");
            return urls.to_vec();
        }
    };
    let answers = join_all(urls.iter().map(|url| http.get(without_login(url)).send())).await;
    let mut reachable = Vec::new();
    for (url, answer) in urls.iter().zip(answers) {
        match answer {
            Ok(_) => reachable.push(url.clone()),
            Err(error) => {
                let error = tls::chain(&error.without_url());
                tracing::warn!(
                    url = without_login(url),
                    error,
                    "this API URL does not answer; the search for an address leaves it out"
                );
            }
        }
    }
    reachable
}

/// The URL without user and password: whoever answers has not shown yet who it is.
fn without_login(url: &str) -> String {
    let Ok(mut parsed) = reqwest::Url::parse(url) else { return url.to_owned() };
    // They only fail for URLs without a host.
    if parsed.set_username("").is_err() || parsed.set_password(None).is_err() {
        return url.to_owned();
    }
    parsed.into()
}

/// A client that asks anybody, and tells nothing.
fn anybody(limit: Duration) -> Result<reqwest::Client, Error> {
    let settings = tls::ClientSettings { insecure: true, ..tls::ClientSettings::default() };
    reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls::client_config(&settings).map_err(Error::Tls)?)
        .dns_resolver(dns::Resolver::system())
        .redirect(reqwest::redirect::Policy::none())
        .timeout(limit)
        .build()
        .map_err(Error::Build)
}

/// The source address of the first route to any of these.
async fn towards(urls: &[String]) -> Option<IpAddr> {
    for url in urls {
        for target in resolve(url).await {
            if let Some(source) = source_address(target) {
                tracing::debug!(url = without_login(url), %target, %source, "the route to the conductor");
                return Some(source);
            }
        }
    }
    None
}

/// All addresses of a URL's host. A name that can not be resolved has none: the routing table knows no names.
async fn resolve(url: &str) -> Vec<SocketAddr> {
    let Ok(url) = reqwest::Url::parse(url) else { return Vec::new() };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Vec::new() };
    match dns::Resolver::system().lookup(host, port).await {
        Ok(addresses) => addresses,
        Err(error) => {
            tracing::warn!(error = tls::chain(&error), "the conductor's name cannot be resolved");
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
    (!is_link_local(source) && !source.is_unspecified()).then_some(source)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use sys::fake::{FakeRunner, RecordingKernel};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn search(urls: &[&str]) -> AddressSearch {
        crate::install_crypto_provider();
        AddressSearch {
            host: sys::fake::host("/nonexistent"),
            configured: None,
            interface: None,
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            attempts: NonZeroU32::MIN,
            pause: Duration::from_millis(50),
            request_timeout: Duration::from_secs(5),
        }
    }

    /// Somebody who answers HTTP with an error, at this address.
    async fn somebody(address: &str) -> String {
        let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answer(stream).await;
            }
        });
        url
    }

    async fn answer(mut stream: tokio::net::TcpStream) {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await;
        let _ = stream.shutdown().await;
    }

    #[tokio::test]
    async fn the_address_is_the_one_that_the_route_to_a_url_that_answers_leaves_from() {
        let url = somebody("127.0.0.1").await;
        assert_eq!(find_address(&search(&[&url])).await.unwrap(), "127.0.0.1");
        // Nobody answers at the first ones, so their routes do not count.
        let dead = ["nonsense", "http://127.0.0.1:1", "http://no.such.name.invalid", &url];
        assert_eq!(find_address(&search(&dead)).await.unwrap(), "127.0.0.1");
        let error = find_address(&search(&["http://127.0.0.1:1"])).await.unwrap_err().to_string();
        assert!(error.contains("ipa-advertise-host"), "{error}");
    }

    #[tokio::test]
    async fn ipv6_is_found_without_brackets() {
        if tokio::net::TcpListener::bind("[::1]:0").await.is_err() {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), b"SKIPPED: no IPv6 here\n"); // past cargo's capture: it counts
            return;
        }
        let url = somebody("::1").await;
        assert!(url.starts_with("http://[::1]:"), "{url}");
        assert_eq!(find_address(&search(&[&url])).await.unwrap(), "::1");
    }

    #[tokio::test]
    async fn a_conductor_that_comes_back_during_the_rounds_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let url = format!("http://{address}");
        let patient = AddressSearch { attempts: NonZeroU32::new(100).unwrap(), ..search(&[&url]) };
        let later = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            answer(listener.accept().await.unwrap().0).await;
        };
        let (found, ()) = tokio::join!(find_address(&patient), later);
        assert_eq!(found.unwrap(), "127.0.0.1");
    }

    #[tokio::test]
    async fn what_is_configured_beats_what_is_found() {
        let mut kernel = RecordingKernel::default();
        kernel.addresses =
            [("eth0", "fe80::1"), ("eth1", "192.0.2.8"), ("eth0", "2001:db8::9"), ("eth0", "192.0.2.9")]
                .map(|(name, address)| (name.to_owned(), address.parse().unwrap()))
                .to_vec();
        kernel.addresses.push(("eth6".into(), "fe80::6".parse().unwrap()));
        kernel.addresses.push(("eth6".into(), "2001:db8::6".parse().unwrap()));
        let host = Host::new("/nonexistent", Arc::new(FakeRunner::default()), Arc::new(kernel));
        let of = |interface: &str| {
            let interface = Some(interface.to_owned());
            AddressSearch { interface, host: host.clone(), ..search(&["http://127.0.0.1:1"]) }
        };
        assert_eq!(find_address(&of("eth0")).await.unwrap(), "192.0.2.9");
        assert_eq!(
            find_address(&of("eth6")).await.unwrap(),
            "2001:db8::6",
            "IPv6 where there is nothing else"
        );
        assert!(find_address(&of("eth7")).await.is_err());
        let configured = AddressSearch { configured: Some("[2001:db8::1]".into()), ..of("eth0") };
        assert_eq!(find_address(&configured).await.unwrap(), "2001:db8::1");
    }
}
