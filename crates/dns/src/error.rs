//! Why a name has no address, in words: which server was asked for which name and what it answered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Why a lookup failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The text can be neither a name nor an address.
    #[error("`{name}` is neither a host name nor an IP address; correct it")]
    NotAName {
        /// The text.
        name: String,
    },
    /// The name is reserved for names that do not exist.
    #[error(
        "the name {name} does not exist: `.invalid` is reserved for names without an address; correct it"
    )]
    NeverExists {
        /// The name.
        name: String,
    },
    /// No name server is known.
    #[error(
        "the name {name} does not resolve: no name server is known; give nameserver=ADDRESS on the kernel command line, \
         let DHCP give one (option 6), or use an address"
    )]
    NoServer {
        /// The name.
        name: String,
    },
    /// No server knows an address.
    #[error(
        "the name {name} does not resolve: {}; check the name and the name servers, or use an address",
        list(said)
    )]
    NoAddress {
        /// The name.
        name: String,
        /// What each server answered, in the order of asking.
        said: Vec<Said>,
    },
    /// The servers took too long, all together.
    #[error("the name {name} does not resolve: no name server gave an address within {} s; check the name servers, or use an address", limit.as_secs())]
    TimedOut {
        /// The name.
        name: String,
        /// The limit.
        limit: Duration,
    },
    /// Asking was not possible at all.
    #[error("looking up the name {name}")]
    Setup {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
}

/// What one server answered to the questions for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The server.
    pub server: SocketAddr,
    /// The name that was asked for: with a search domain, perhaps.
    pub name: String,
    /// The answer to the question for IPv4 addresses.
    pub ipv4: Answered,
    /// The answer to the question for IPv6 addresses.
    pub ipv6: Answered,
}

/// An answer without an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The name exists and has no such address.
    NoData,
    /// The name does not exist.
    NoSuchName,
    /// The server failed or refused, with its response code (RFC 1035, 4.1.1).
    Code(u8),
    /// No answer came within this time.
    Nothing(Duration),
    /// The packet could not be sent or read, or what came was no answer.
    Broken(String),
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answered::NoData => f.write_str("no such address"),
            Answered::NoSuchName => f.write_str("NXDOMAIN (no such name)"),
            Answered::Code(1) => f.write_str("FORMERR"),
            Answered::Code(2) => f.write_str("SERVFAIL"),
            Answered::Code(4) => f.write_str("NOTIMP"),
            Answered::Code(5) => f.write_str("REFUSED"),
            Answered::Code(code) => write!(f, "error {code}"),
            Answered::Nothing(limit) => write!(f, "nothing within {:.1} s", limit.as_secs_f64()),
            Answered::Broken(reason) => f.write_str(reason),
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Said { server, name, ipv4, ipv6 } = self;
        let server = if server.port() == super::PORT { server.ip().to_string() } else { server.to_string() };
        if ipv4 == ipv6 {
            write!(f, "name server {server} answered for {name}: {ipv4}")
        } else {
            write!(f, "name server {server} answered for {name}: IPv4 {ipv4}, IPv6 {ipv6}")
        }
    }
}

fn list(said: &[Said]) -> String {
    said.iter().map(Said::to_string).collect::<Vec<_>>().join("; ")
}
