//! Turns names into addresses: `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
//!
//! The C library of the static agent (musl) gives up a name when a server answers the question for one family of addresses and
//! refuses the one for the other. Here an answer of either family counts, each name server that fails is followed by the next,
//! and an error names each server that was asked and what it answered. It keeps no cache and reads both files at every call: the
//! network of a ramdisk changes while the machine runs.
//!
//! - [`Resolver`] holds the lookup: [`Resolver::resolve`] blocks, [`Resolver::lookup`] is async, and reqwest takes it as its
//!   `dns_resolver`.
//! - `files` reads the two files, `message` the packets, `exchange` asks one server one question, `ask` decides which questions
//!   go where, `order` sorts the addresses.
//!
//! It sends no multicast and knows no `nsswitch.conf`.

mod ask;
mod error;
mod exchange;
mod files;
mod http;
mod message;
mod order;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

pub use error::{Answered, Error, Said};

/// The longest that one lookup takes, whatever its servers do.
pub const LIMIT: Duration = Duration::from_secs(20);
/// The port of name servers.
const PORT: u16 = 53;
/// The longest name, in characters (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;

/// Looks names up.
#[derive(Clone, Debug)]
pub struct Resolver {
    root: PathBuf,
    port: u16,
}

impl Resolver {
    /// Uses the files of this machine.
    pub fn system() -> Self {
        Self { root: "/".into(), port: PORT }
    }

    /// Uses `etc/hosts` and `etc/resolv.conf` below `root`, and asks name servers at `port`: for tests.
    pub fn of(root: impl Into<PathBuf>, port: u16) -> Self {
        Self { root: root.into(), port }
    }

    /// The addresses of a name (or the address that it is), each with `port`, the best first. Never empty.
    ///
    /// Blocks, [`LIMIT`] at most. Call it from any thread but one that runs async tasks.
    ///
    /// # Errors
    /// When the text is no name, when there is no name server, and when none of them knows an address.
    pub fn resolve(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        if let Some(known) = self.without_asking(name, port) {
            return known;
        }
        // A thread of its own: this one may belong to another runtime, which must not be entered twice.
        let asking = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime =
                runtime.map_err(|source| Error::Setup { name: name.to_owned(), source: source.into() })?;
            runtime.block_on(self.lookup(name, port))
        };
        std::thread::scope(|scope| scope.spawn(asking).join()).unwrap_or_else(|_| {
            Err(Error::Setup { name: name.to_owned(), source: std::io::Error::other("it panicked").into() })
        })
    }

    /// The same as [`Resolver::resolve`], for async code.
    ///
    /// # Errors
    /// Those of [`Resolver::resolve`].
    pub async fn lookup(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        if let Some(known) = self.without_asking(name, port) {
            return known;
        }
        let settings = files::Settings::read(&self.root);
        let found = ask::ask(&settings, name, self.port, LIMIT).await?;
        Ok(order::best_first(found).into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// What needs no server: addresses, names in `/etc/hosts`, `localhost`, and what can never have an address.
    fn without_asking(&self, name: &str, port: u16) -> Option<Result<Vec<SocketAddr>, Error>> {
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Ok(vec![SocketAddr::new(address, port)]));
        }
        if bare.contains('%') {
            // An address of one link, `fe80::1%eth0`: the system knows the number of the interface.
            let known = (bare, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            return Some(known.map_err(|_| Error::NotAName { name: name.to_owned() }));
        }
        let plain = bare.strip_suffix('.').unwrap_or(bare);
        if plain.len() > LONGEST_NAME || message::labels(plain).is_none() {
            return Some(Err(Error::NotAName { name: name.to_owned() }));
        }
        let mut found = files::hosts(&self.root.join("etc/hosts"), plain);
        let lower = plain.to_ascii_lowercase();
        let is_below = |top: &str| lower == top || lower.ends_with(&format!(".{top}"));
        if found.is_empty() && is_below("localhost") {
            found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]; // RFC 6761, 6.3
        }
        if found.is_empty() && is_below("invalid") {
            return Some(Err(Error::NeverExists { name: name.to_owned() })); // RFC 6761, 6.4
        }
        if found.is_empty() {
            return None;
        }
        let sorted = order::best_first(found);
        Some(Ok(sorted.into_iter().map(|address| SocketAddr::new(address, port)).collect()))
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::system()
    }
}
