//! DHCPv6 on one interface: gets addresses or only information, and keeps the addresses for as long as the machine runs.

mod client;
mod message;

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use sys::Host;

pub(super) use client::Lease;
use client::{Client, Wire};

use super::asking::{self, PAUSE_AFTER_ERROR, RENEWAL_PAUSE, SILENT_ROUNDS, is_there};
use super::ipv6::addresses;
use super::link::Link;

/// Reads a message as the client does. For whoever tries to break the reader; says whether it is one.
pub(super) fn reads(message: &[u8]) -> bool {
    let Some(message) = message::Message::decode(message) else { return false };
    let _ = (message.succeeded(), message.name_servers(), message.search(), message.time_servers());
    let _ = message.association([0, 0, 0, 1]);
    true
}

const CLIENT_PORT: u16 = 546;
/// `All_DHCP_Relay_Agents_and_Servers`.
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const SERVER_PORT: u16 = 547;
/// The largest message that is read.
const LARGEST: usize = 4096;
/// How long to wait for a link-local address, which the kernel first checks for duplicates.
const ADDRESS_LOOK: Duration = Duration::from_millis(200);
/// How often information is asked for anew.
const INFORMATION_AGE: Duration = Duration::from_secs(3600);

/// What is wanted of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// An address, and the rest.
    Addresses,
    /// The rest alone.
    Information,
}

/// What happens.
#[derive(Debug)]
pub(super) enum Progress<'a> {
    /// Nobody has answered yet.
    NoAnswer,
    /// A server answered, or answered anew.
    Told(&'a Lease),
    /// The addresses of this lease may not be used any more.
    Lost(&'a Lease),
}

/// Runs the client for as long as the interface is there. The caller applies what is reported.
pub(super) fn run(
    host: &Host,
    link: &Link,
    interface: u32,
    want: Want,
    mut report: impl FnMut(Progress<'_>),
) {
    let client = Client { mac: link.mac };
    let mut round = 0;
    while is_there(host, link) {
        let answer = Socket::open(host, link, interface).and_then(|mut socket| match want {
            Want::Addresses => client.ask(&mut socket, round),
            Want::Information => client.inform(&mut socket, round),
        });
        match answer {
            Ok(Some(lease)) => {
                round = 0;
                report(Progress::Told(&lease));
                match want {
                    Want::Addresses => keep(host, link, interface, &client, lease, &mut report),
                    Want::Information => thread::sleep(INFORMATION_AGE),
                }
                continue;
            }
            Ok(None) => tracing::debug!(interface = link.name, round, "no answer by DHCPv6 yet"),
            Err(error) => {
                tracing::debug!(interface = link.name, %error, "asking by DHCPv6");
                thread::sleep(PAUSE_AFTER_ERROR);
            }
        }
        round = round.saturating_add(1);
        if round == SILENT_ROUNDS {
            report(Progress::NoAnswer);
        }
    }
}

/// Renews until the addresses have run out: then they are asked for from the start.
fn keep(
    host: &Host,
    link: &Link,
    interface: u32,
    client: &Client,
    mut lease: Lease,
    report: &mut impl FnMut(Progress<'_>),
) {
    let mut granted = Instant::now();
    thread::sleep(lease.renew);
    while is_there(host, link) {
        let anybody = granted.elapsed() >= lease.rebind;
        let answer = Socket::open(host, link, interface)
            .and_then(|mut socket| client.renew(&mut socket, &lease, anybody));
        if let Ok(Some(renewed)) = answer {
            if renewed
                .addresses
                .iter()
                .map(|granted| granted.address)
                .ne(lease.addresses.iter().map(|old| old.address))
            {
                report(Progress::Lost(&lease));
            }
            (granted, lease) = (Instant::now(), renewed);
            report(Progress::Told(&lease));
            thread::sleep(lease.renew);
            continue;
        }
        // A machine in the middle of a deployment is better off with an address that might be given away than with none,
        // but a server that is back must find the client asking.
        let runs_out = lease.addresses.iter().filter_map(|granted| granted.valid).min();
        if runs_out.is_some_and(|life| granted.elapsed() >= life) {
            tracing::warn!(
                interface = link.name,
                "a DHCPv6 lease expired; keeping its addresses and asking anew"
            );
            return;
        }
        thread::sleep(RENEWAL_PAUSE.min(lease.renew.max(PAUSE_AFTER_ERROR)));
    }
}

/// A real interface. Opened for one exchange only.
struct Socket {
    socket: UdpSocket,
    interface: u32,
    opened: Instant,
}

impl Socket {
    /// Waits for the link-local address that servers answer to.
    fn open(host: &Host, link: &Link, interface: u32) -> io::Result<Self> {
        let own = || addresses::of(host, &link.name).into_iter().find(|address| !address.is_global());
        let own = loop {
            if let Some(own) = own() {
                break own;
            }
            if !is_there(host, link) {
                return Err(io::ErrorKind::NotFound.into());
            }
            thread::sleep(ADDRESS_LOOK);
        };
        let socket = UdpSocket::bind(SocketAddrV6::new(own.address, CLIENT_PORT, 0, interface))?;
        Ok(Self { socket, interface, opened: Instant::now() })
    }
}

impl Wire for Socket {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.socket.send_to(message, SocketAddrV6::new(SERVERS, SERVER_PORT, 0, self.interface)).map(drop)
    }

    fn receive(&mut self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        let mut buffer = vec![0; LARGEST];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Ok(buffer.get(..length).map(<[u8]>::to_vec)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    fn random(&mut self) -> u32 {
        asking::random()
    }
}
