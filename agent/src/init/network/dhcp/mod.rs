//! DHCPv4 on one interface: gets an address, keeps it for as long as the machine runs.

mod client;
mod datagram;
mod lease;
mod message;
mod vigil;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use sys::Host;
use sys::net::packet::PacketSocket;

use client::{Client, Renewal, Wire};
pub(super) use lease::{Lease, LeasedRoute};
pub(super) use message::is_name;
pub(super) use vigil::Moving;
use vigil::{Vigil, Woken};

use super::asking::{self, PAUSE_AFTER_ERROR, RENEWAL_PAUSE, SILENT_ROUNDS, is_there};
use super::link::{self, Link};

/// Reads a packet as the client does, down to the lease. For whoever tries to break the reader; says whether it is one.
pub(super) fn reads(packet: &[u8]) -> bool {
    let payload = datagram::decode(packet).map_or(packet, |(_, payload)| payload);
    let message = message::Message::decode(payload);
    let again = message.as_ref().map(|message| message::Message::decode(&message.encode()).is_some());
    debug_assert_ne!(again, Some(false), "a message that is not read again");
    message.and_then(|message| Lease::from_ack(&message, [2, 0, 0, 0, 0, 1])).is_some()
}

/// How often a cable is looked for.
const CARRIER_LOOK: Duration = Duration::from_millis(100);
/// The largest packet an Ethernet without jumbo frames carries, and then some.
const LARGEST_PACKET: usize = 2048;

/// What happens to an interface.
#[derive(Debug)]
pub(super) enum Progress<'a> {
    /// There is no cable in it, or nothing at the other end.
    NoCarrier,
    /// A cable is in, and servers are being asked.
    Asking,
    /// Nobody has offered an address yet.
    NoAnswer,
    /// An address was granted, or granted anew with these options.
    Leased(&'a Lease),
    /// The address was taken back.
    Refused(&'a Lease),
}

/// Runs the client for as long as the machine runs; returns when the interface is gone. The caller applies what is reported.
pub(super) fn run(
    host: &Host,
    link: &Link,
    interface: u32,
    moving: &Moving,
    mut report: impl FnMut(Progress<'_>),
) {
    let mut vigil = Vigil::new(host, link, moving);
    let client = Client { mac: link.mac };
    while is_there(host, link) {
        let Some(lease) = acquire(host, link, interface, &client, &mut report) else { return };
        report(Progress::Leased(&lease));
        keep(&mut vigil, link, interface, &client, lease, &mut report);
    }
}

/// Asks until somebody grants an address. `None` when the interface is gone.
fn acquire(
    host: &Host,
    link: &Link,
    interface: u32,
    client: &Client,
    report: &mut impl FnMut(Progress<'_>),
) -> Option<Lease> {
    let mut round = 0;
    loop {
        if !link::has_carrier(host, &link.name) {
            report(Progress::NoCarrier);
            while !link::has_carrier(host, &link.name) {
                if !is_there(host, link) {
                    return None;
                }
                thread::sleep(CARRIER_LOOK);
            }
            round = 0;
        }
        if round == 0 {
            report(Progress::Asking);
        }
        match Socket::open(interface).and_then(|mut socket| client.ask(&mut socket, round)) {
            Ok(Some(lease)) => return Some(lease),
            Ok(None) => tracing::debug!(interface = link.name, round, "no address yet"),
            Err(error) => {
                tracing::warn!(interface = link.name, %error, "asking for an address");
                thread::sleep(PAUSE_AFTER_ERROR);
            }
        }
        round = round.saturating_add(1);
        if round == SILENT_ROUNDS {
            report(Progress::NoAnswer);
        }
    }
}

/// Renews a lease until it is refused. When no server answers the address stays: a machine in the middle of a deployment is
/// better off with an address that might be given away than with none. It goes once another network has given another one.
fn keep(
    vigil: &mut Vigil<'_>,
    link: &Link,
    interface: u32,
    client: &Client,
    mut lease: Lease,
    report: &mut impl FnMut(Progress<'_>),
) {
    let mut granted = Instant::now();
    let mut expired = false;
    let mut patience = lease.times.map(|times| times.renew);
    loop {
        let woken = vigil.keep(patience);
        // For ever: only a look around may find something else.
        let anybody = lease.times.is_some_and(|times| granted.elapsed() >= times.rebind);
        let answer = Socket::open(interface).and_then(|mut socket| match woken {
            Woken::Due => client.renew(&mut socket, &lease, anybody),
            Woken::LookAround => client.look_around(&mut socket, &lease),
        });
        match answer {
            Ok(Renewal::Granted(renewed)) => {
                tracing::debug!(interface = link.name, address = %renewed.address, "lease renewed");
                (granted, expired) = (Instant::now(), false);
                if renewed.address != lease.address {
                    report(Progress::Refused(&lease));
                    vigil.settle();
                }
                lease = renewed;
                report(Progress::Leased(&lease));
                patience = lease.times.map(|times| times.renew);
                continue;
            }
            Ok(Renewal::Refused) => {
                tracing::warn!(interface = link.name, address = %lease.address, "the server took the address back");
                report(Progress::Refused(&lease));
                vigil.settle();
                return;
            }
            Ok(Renewal::Silence) => tracing::debug!(interface = link.name, anybody, "no answer to a renewal"),
            Err(error) => tracing::debug!(interface = link.name, %error, "renewing a lease"),
        }
        let Some(times) = lease.times else { continue };
        if granted.elapsed() >= times.expire && !expired {
            expired = true;
            tracing::warn!(interface = link.name, address = %lease.address, "lease expired; keeping the address");
        }
        // RFC 2131: half of what is left until the next deadline, within reason.
        let next =
            [times.renew, times.rebind, times.expire].into_iter().find(|next| granted.elapsed() < *next);
        let left = next.unwrap_or(times.expire).saturating_sub(granted.elapsed());
        patience = Some((left / 2).clamp(PAUSE_AFTER_ERROR * 10, RENEWAL_PAUSE));
    }
}

/// A real interface. Opened for one exchange only: an open packet socket sees all that passes.
struct Socket {
    socket: PacketSocket,
    opened: Instant,
    buffer: Vec<u8>,
}

impl Socket {
    fn open(interface: u32) -> io::Result<Self> {
        let socket = PacketSocket::open(interface, client::CLIENT_PORT)?;
        Ok(Self { socket, opened: Instant::now(), buffer: vec![0; LARGEST_PACKET] })
    }
}

impl Wire for Socket {
    fn send(&mut self, station: [u8; 6], packet: &[u8]) -> io::Result<()> {
        self.socket.send(station, packet)
    }

    fn receive(&mut self, patience: Duration) -> io::Result<Option<(Vec<u8>, [u8; 6])>> {
        let received = self.socket.receive(&mut self.buffer, patience)?;
        Ok(received.and_then(|(length, station)| Some((self.buffer.get(..length)?.to_vec(), station))))
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    fn random(&mut self) -> u32 {
        asking::random()
    }
}
