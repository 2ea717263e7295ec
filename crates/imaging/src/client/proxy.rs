//! Which proxy a URL is fetched through, if any. Pure, but for the environment that is read once.
//!
//! `no_proxy` is read as curl and requests read it, together: hosts, domains with or without a leading dot or `*.`,
//! addresses, networks, `*`; each with a port or without.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};
use wire::Secret;

use super::percent_decoded;
use crate::request::Proxies;

/// The proxies of one client.
pub(crate) struct ProxyRules {
    http: Option<ProxyServer>,
    https: Option<ProxyServer>,
    exempt: Vec<Exempt>,
}

/// One proxy.
#[derive(Clone, Debug)]
pub(crate) struct ProxyServer {
    /// Without user and password.
    pub(super) url: Url,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<Secret>,
}

impl ProxyRules {
    /// Reads what the caller says; where it names no proxy, what the environment says.
    ///
    /// # Errors
    /// The proxy that cannot be used, and why; without its password.
    #[allow(clippy::disallowed_methods)] // the variables that every HTTP client of an operator's machine reads
    pub(crate) fn new(proxies: &Proxies) -> Result<Self, (String, String)> {
        Self::read(proxies, |name| std::env::var(name).ok())
    }

    fn read(
        proxies: &Proxies,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, (String, String)> {
        let variable = |names: &[&str]| {
            names.iter().find_map(|name| environment(name)).filter(|value| !value.trim().is_empty())
        };
        let (mut http, mut https) = (proxies.http.clone(), proxies.https.clone());
        let mut exempt = proxies.no_proxy.clone();
        if http.is_none() && https.is_none() {
            http = variable(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]);
            https = variable(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]);
            exempt = exempt.or_else(|| variable(&["no_proxy", "NO_PROXY"]));
        }
        let server = |text: Option<String>| text.map(|text| ProxyServer::parse(&text)).transpose();
        let exempt = exempt.unwrap_or_default();
        Ok(Self {
            http: server(http)?,
            https: server(https)?,
            exempt: exempt.split([',', ' ', '\t', '\n']).filter_map(Exempt::parse).collect(),
        })
    }

    /// Returns the proxy for a URL.
    pub(super) fn of(&self, url: &Url) -> Option<&ProxyServer> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        };
        proxy.filter(|_| !self.exempt.iter().any(|exempt| exempt.has(url)))
    }
}

impl ProxyServer {
    fn parse(text: &str) -> Result<Self, (String, String)> {
        let text = text.trim();
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let shown = |url: &Url| crate::source::shown(url);
        let mut url = Url::parse(&full).map_err(|error| ("(not a URL)".to_owned(), error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            let reason = format!("a proxy of scheme {:?} is not supported; use http or https", url.scheme());
            return Err((shown(&url), reason));
        }
        let authorization = basic(&url);
        // Both fail only for URLs that cannot have them.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, authorization })
    }
}

/// Returns the header for the user and the password in a URL.
pub(super) fn basic(url: &Url) -> Option<Secret> {
    let (user, password) = (url.username(), url.password());
    if user.is_empty() && password.is_none() {
        return None;
    }
    let mut pair = percent_decoded(user);
    pair.push(b':');
    pair.extend(percent_decoded(password.unwrap_or_default()));
    Some(Secret::new(format!("Basic {}", STANDARD.encode(pair))))
}

/// A destination that is reached directly.
#[derive(Debug, PartialEq, Eq)]
enum Exempt {
    All,
    /// Addresses with these first bits.
    Network(IpAddr, u8),
    /// A host, and with `below` the hosts of its domain.
    Name {
        name: String,
        port: Option<u16>,
    },
    Address(IpAddr, Option<u16>),
}

impl Exempt {
    fn parse(text: &str) -> Option<Self> {
        // Some write it as a URL.
        let text = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/').trim();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Exempt::All);
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = bare(address).parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= most)?;
            return Some(Exempt::Network(address, bits));
        }
        if let Ok(address) = bare(text).parse() {
            return Some(Exempt::Address(address, None));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (text, None),
        };
        if let Ok(address) = bare(name).parse() {
            return Some(Exempt::Address(address, port));
        }
        let name = name.strip_prefix('*').unwrap_or(name).trim_matches('.').to_ascii_lowercase();
        (!name.is_empty()).then_some(Exempt::Name { name, port })
    }

    fn has(&self, url: &Url) -> bool {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => None,
        };
        let is_port = |port: &Option<u16>| port.is_none() || *port == url.port_or_known_default();
        match self {
            Exempt::All => true,
            Exempt::Network(network, bits) => {
                address.is_some_and(|address| shares_bits(address, *network, *bits))
            }
            Exempt::Address(known, port) => address == Some(*known) && is_port(port),
            Exempt::Name { name, port } => {
                let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
                let is_below = host
                    .strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                is_below && is_port(port)
            }
        }
    }
}

/// An address without the brackets of a URL.
fn bare(text: &str) -> &str {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text)
}

fn shares_bits(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let shared = |a: u128, b: u128, width: u32| {
        let shift = width.saturating_sub(u32::from(bits));
        a.checked_shr(shift) == b.checked_shr(shift)
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => shared(u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => shared(a.to_bits(), b.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_proxied(url: &str, no_proxy: &str) -> bool {
        let proxies = Proxies {
            http: Some("http://proxy:3128".into()),
            https: Some("proxy:3129".into()),
            no_proxy: Some(no_proxy.into()),
        };
        let rules = ProxyRules::read(&proxies, |_| None).unwrap();
        rules.of(&Url::parse(url).unwrap()).is_some()
    }

    #[test]
    fn no_proxy_names_hosts_domains_addresses_networks_and_ports() {
        for (url, no_proxy, proxied) in [
            ("http://images.example/", "images.example", false),
            ("http://images.example./", "Images.Example", false),
            ("http://images.example/", "other, images.example ", false),
            ("http://images.example/", "other images.example", false),
            ("http://images.example/", ".example", false),
            ("http://images.example/", "*.example", false),
            ("http://images.example/", "ages.example", true),
            ("http://images.example/", "images.example:80", false),
            ("http://images.example/", "images.example:8080", true),
            ("http://images.example:8080/", ".example:8080", false),
            ("https://images.example/", "images.example:443", false),
            ("https://images.example/", "images.example:80", true),
            ("http://images.example/", "images.example:http", true),
            ("http://images.example/", "*", false),
            ("http://images.example/", "", true),
            ("http://10.1.2.3/", "10.1.2.3", false),
            ("http://10.1.2.3:81/", "10.1.2.3:81", false),
            ("http://10.1.2.3:82/", "10.1.2.3:81", true),
            ("http://10.1.2.3/", "10.0.0.0/8", false),
            ("http://11.1.2.3/", "10.0.0.0/8", true),
            ("http://11.1.2.3/", "0.0.0.0/0", false),
            ("http://11.1.2.3/", "10.0.0.0/64", true),
            ("http://[fd00::5]/", "[fd00::5]", false),
            ("http://[fd00::5]:81/", "[fd00::5]:81", false),
            ("http://[fd00::5]:82/", "[fd00::5]:81", true),
            ("http://[fd00::5]/", "fd00::5", false),
            ("http://[fd00::5]/", "fd00::/8", false),
            ("http://[fe80::5]/", "fd00::/8", true),
            ("http://images.example/", "http://images.example/", false),
        ] {
            assert_eq!(is_proxied(url, no_proxy), proxied, "{url} {no_proxy:?}");
        }
    }

    #[test]
    fn the_environment_counts_where_the_image_names_no_proxy() {
        let environment = |name: &str| match name {
            "http_proxy" => Some("http://low:1".to_owned()),
            "HTTP_PROXY" => Some("http://UP:1".to_owned()),
            "ALL_PROXY" => Some("http://all:1".to_owned()),
            "NO_PROXY" => Some("direct.example".to_owned()),
            _ => None,
        };
        let host = |proxies: &Proxies, url: &str| {
            let rules = ProxyRules::read(proxies, environment).unwrap();
            let proxy = rules.of(&Url::parse(url).unwrap())?;
            proxy.url.host_str().map(str::to_owned)
        };
        let none = Proxies::default();
        assert_eq!(host(&none, "http://h/").as_deref(), Some("low"));
        assert_eq!(host(&none, "https://h/").as_deref(), Some("all"));
        assert_eq!(host(&none, "http://direct.example/"), None);
        let own = Proxies { http: Some("http://own:1".into()), ..Proxies::default() };
        assert_eq!(host(&own, "http://direct.example/").as_deref(), Some("own"));
        assert_eq!(host(&own, "https://h/"), None);
        let exempt = Proxies { no_proxy: Some("h".into()), ..Proxies::default() };
        assert_eq!(host(&exempt, "http://h/"), None);
    }

    #[test]
    fn a_proxy_may_have_a_password_and_no_scheme_but_must_speak_http() {
        let proxy = ProxyServer::parse("user:p%40ss@proxy:3128").unwrap();
        assert_eq!(proxy.url.as_str(), "http://proxy:3128/");
        assert_eq!(proxy.authorization.unwrap().expose(), "Basic dXNlcjpwQHNz");
        let (shown, reason) = ProxyServer::parse("socks5://user:secret@proxy:1080").unwrap_err();
        assert!(!shown.contains("secret") && reason.contains("socks5"), "{shown} {reason}");
    }
}
