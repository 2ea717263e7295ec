//! A DHCP client's side of the conversation (RFC 2131, section 4.4): discover, offer, request, acknowledgement; renewal.
//!
//! Pure of sockets and clocks: those are behind [`Wire`], so that a test can play server and let an hour pass.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::datagram::{self, Route};
use super::lease::Lease;
use super::message::{Kind, Message, option};
use crate::init::network::asking;
use crate::init::network::mac::Mac;

const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;
const EVERYBODY: [u8; 6] = sys::net::packet::BROADCAST;
/// From this round on servers are asked to answer by broadcast: some switch or hypervisor may know no better.
const BROADCAST_FROM: u32 = 2;
const WANTED: [u8; 10] = [
    option::MASK,
    option::ROUTES, // before the router: some servers send only one of the two, in this order
    option::ROUTER,
    option::DNS,
    option::HOST_NAME,
    option::DOMAIN,
    option::MTU,
    option::NTP,
    option::SEARCH,
    option::LEASE_TIME,
];

/// The way to a server and the time on it.
pub(super) trait Wire {
    /// Sends an IP packet to a station.
    fn send(&mut self, station: [u8; 6], packet: &[u8]) -> io::Result<()>;
    /// The next IP packet and the station it came from; nothing when none came in time.
    fn receive(&mut self, patience: Duration) -> io::Result<Option<(Vec<u8>, [u8; 6])>>;
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    /// A number that other clients do not have.
    fn random(&mut self) -> u32;
}

/// How an attempt to keep a lease ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// The server grants it anew, perhaps with other options.
    Granted(Lease),
    /// The server wants the address back.
    Refused,
    /// Nobody answered.
    Silence,
}

/// One interface's client.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub mac: Mac,
}

impl Client {
    /// One round: asks who offers an address, waits longer the later the round, and takes the first offer.
    pub(super) fn ask(&self, wire: &mut impl Wire, round: u32) -> io::Result<Option<Lease>> {
        let transaction = wire.random();
        let mut discover = self.message(Kind::Discover, transaction, round);
        discover.options.insert(option::PARAMETERS, WANTED.to_vec());
        let patience = asking::patience(wire.random(), round);
        let Some((offer, _)) =
            self.exchange(wire, &discover, &Path::broadcast(), patience, &[Kind::Offer])?
        else {
            return Ok(None);
        };

        let mut request = self.message(Kind::Request, transaction, round);
        request.options.insert(option::PARAMETERS, WANTED.to_vec());
        request.options.insert(option::REQUESTED_ADDRESS, offer.yours.octets().to_vec());
        if let Some(server) = offer.options.get(&option::SERVER) {
            request.options.insert(option::SERVER, server.clone());
        }
        for attempt in 0..asking::REQUEST_TRIES {
            let patience = asking::patience(wire.random(), attempt);
            let answer =
                self.exchange(wire, &request, &Path::broadcast(), patience, &[Kind::Ack, Kind::Nak])?;
            match answer {
                Some((ack, station)) if ack.kind() == Some(Kind::Ack) => {
                    return Ok(Lease::from_ack(&ack, station));
                }
                Some(_refused) => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    /// Asks to keep a lease: its own server, or any server once that one has been silent for too long.
    pub(super) fn renew(&self, wire: &mut impl Wire, lease: &Lease, anybody: bool) -> io::Result<Renewal> {
        let mut request = self.message(Kind::Request, wire.random(), 0);
        request.client = lease.address;
        request.options.insert(option::PARAMETERS, WANTED.to_vec());
        let path = if anybody {
            Path { source: lease.address, ..Path::broadcast() }
        } else {
            Path { source: lease.address, target: lease.server, station: lease.station }
        };
        let patience = asking::patience(wire.random(), 2);
        let answer = self.exchange(wire, &request, &path, patience, &[Kind::Ack, Kind::Nak])?;
        Ok(match answer {
            None => Renewal::Silence,
            Some((ack, station)) if ack.kind() == Some(Kind::Ack) => {
                Lease::from_ack(&ack, station).map_or(Renewal::Silence, Renewal::Granted)
            }
            Some(_refused) => Renewal::Refused,
        })
    }

    /// Looks where the machine is now, after the network may have become another one: any server may confirm the lease or
    /// take it back, and one that has never heard of it may offer another address.
    pub(super) fn look_around(&self, wire: &mut impl Wire, lease: &Lease) -> io::Result<Renewal> {
        match self.renew(wire, lease, true)? {
            Renewal::Silence => {
                Ok(self.ask(wire, BROADCAST_FROM)?.map_or(Renewal::Silence, Renewal::Granted))
            }
            answer @ (Renewal::Granted(_) | Renewal::Refused) => Ok(answer),
        }
    }

    fn message(&self, kind: Kind, transaction: u32, round: u32) -> Message {
        let client_id = [&[1], self.mac.0.as_slice()].concat(); // as iPXE sends it, so that the lease is the same one
        let options = BTreeMap::from([
            (option::TYPE, vec![kind as u8]),
            (option::LARGEST, 1472_u16.to_be_bytes().to_vec()),
            (option::VENDOR_CLASS, b"ferric-agent".to_vec()),
            (option::CLIENT_ID, client_id),
        ]);
        Message {
            is_reply: false,
            transaction,
            seconds: u16::try_from(round.saturating_mul(4)).unwrap_or(u16::MAX), // relays and backup servers wait for it to grow
            broadcast: round >= BROADCAST_FROM,
            client: Ipv4Addr::UNSPECIFIED,
            yours: Ipv4Addr::UNSPECIFIED,
            mac: self.mac,
            options,
        }
    }

    /// Sends a message and waits for an answer to it of one of these kinds.
    fn exchange(
        &self,
        wire: &mut impl Wire,
        message: &Message,
        path: &Path,
        patience: Duration,
        kinds: &[Kind],
    ) -> io::Result<Option<(Message, [u8; 6])>> {
        let route = Route {
            source: path.source,
            source_port: CLIENT_PORT,
            target: path.target,
            target_port: SERVER_PORT,
        };
        let packet = datagram::encode(route, &message.encode()).ok_or(io::ErrorKind::InvalidData)?;
        wire.send(path.station, &packet)?;
        let deadline = wire.now() + patience;
        loop {
            let left = deadline.saturating_sub(wire.now());
            if left.is_zero() {
                return Ok(None);
            }
            let Some((packet, station)) = wire.receive(left)? else { continue };
            let answer = datagram::decode(&packet)
                .filter(|(route, _)| route.target_port == CLIENT_PORT)
                .and_then(|(_, payload)| Message::decode(payload))
                .filter(|answer| answer.is_reply && answer.transaction == message.transaction)
                .filter(|answer| answer.mac == self.mac)
                .filter(|answer| answer.kind().is_some_and(|kind| kinds.contains(&kind)));
            // When a server was chosen, another one's word does not count.
            let chosen = message.options.get(&option::SERVER);
            match answer {
                Some(answer) if chosen.is_none() || answer.options.get(&option::SERVER) == chosen => {
                    return Ok(Some((answer, station)));
                }
                _ => {}
            }
        }
    }
}

/// Between which addresses a message travels.
struct Path {
    source: Ipv4Addr,
    target: Ipv4Addr,
    station: [u8; 6],
}

impl Path {
    fn broadcast() -> Self {
        Self { source: Ipv4Addr::UNSPECIFIED, target: Ipv4Addr::BROADCAST, station: EVERYBODY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const MAC: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
    const SERVER: [u8; 4] = [10, 0, 0, 1];

    /// A server by script: for each message the client sends, the answers it gets.
    struct Server<F> {
        answer: F,
        sent: Vec<(Message, Route, [u8; 6])>,
        on_the_way: VecDeque<Vec<u8>>,
        clock: Duration,
    }

    impl<F: FnMut(usize, &Message) -> Vec<Message>> Server<F> {
        fn new(answer: F) -> Self {
            Self { answer, sent: Vec::new(), on_the_way: VecDeque::new(), clock: Duration::ZERO }
        }
    }

    impl<F: FnMut(usize, &Message) -> Vec<Message>> Wire for Server<F> {
        fn send(&mut self, station: [u8; 6], packet: &[u8]) -> io::Result<()> {
            let (route, payload) = datagram::decode(packet).unwrap();
            let message = Message::decode(payload).unwrap();
            for answer in (self.answer)(self.sent.len(), &message) {
                let back =
                    Route { source: SERVER.into(), source_port: 67, target: answer.yours, target_port: 68 };
                self.on_the_way.push_back(datagram::encode(back, &answer.encode()).unwrap());
            }
            self.sent.push((message, route, station));
            Ok(())
        }
        fn receive(&mut self, patience: Duration) -> io::Result<Option<(Vec<u8>, [u8; 6])>> {
            let next = self.on_the_way.pop_front();
            self.clock += if next.is_some() { Duration::from_millis(1) } else { patience };
            Ok(next.map(|packet| (packet, [7; 6])))
        }
        fn now(&self) -> Duration {
            self.clock
        }
        fn random(&mut self) -> u32 {
            4711 + u32::try_from(self.sent.len()).unwrap()
        }
    }

    fn answer(to: &Message, kind: Kind) -> Message {
        let options = BTreeMap::from([
            (option::TYPE, vec![kind as u8]),
            (option::SERVER, SERVER.to_vec()),
            (option::MASK, vec![255, 255, 255, 0]),
            (option::LEASE_TIME, vec![0, 0, 1, 0]),
        ]);
        Message { is_reply: true, yours: Ipv4Addr::new(10, 0, 0, 9), options, ..to.clone() }
    }

    fn friendly(to: &Message) -> Vec<Message> {
        match to.kind() {
            Some(Kind::Discover) => vec![answer(to, Kind::Offer)],
            _ => vec![answer(to, Kind::Ack)],
        }
    }

    #[test]
    fn an_offer_is_requested_and_its_acknowledgement_is_the_lease() {
        let mut server = Server::new(|_, message: &Message| friendly(message));
        let lease = Client { mac: MAC }.ask(&mut server, 0).unwrap().unwrap();
        assert_eq!((lease.address, lease.prefix, lease.station), (Ipv4Addr::new(10, 0, 0, 9), 24, [7; 6]));
        let (request, route, station) = server.sent.last().unwrap();
        assert_eq!(request.kind(), Some(Kind::Request));
        assert_eq!(request.address(option::REQUESTED_ADDRESS), Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(request.address(option::SERVER), Some(SERVER.into()));
        assert_eq!((route.target, *station), (Ipv4Addr::BROADCAST, [0xff; 6]));
    }

    #[test]
    fn lost_requests_are_repeated_and_silence_ends_the_round_in_time() {
        let mut deaf = Server::new(|sent, message: &Message| match sent {
            1 | 2 => vec![],
            _ => friendly(message),
        });
        assert!(Client { mac: MAC }.ask(&mut deaf, 0).unwrap().is_some());
        assert_eq!(deaf.sent.len(), 4);

        let mut silent = Server::new(|_, _: &Message| vec![]);
        assert_eq!(Client { mac: MAC }.ask(&mut silent, 99).unwrap(), None);
        assert!(silent.clock <= Duration::from_secs(18), "{:?}", silent.clock);
        assert!(silent.sent.last().unwrap().0.broadcast);
    }

    #[test]
    fn answers_to_others_and_from_servers_not_chosen_are_passed_over() {
        let mut server = Server::new(|_, message: &Message| {
            let mut wrong = friendly(message);
            let mut answers = wrong.clone();
            wrong[0].transaction ^= 1;
            let mut other = answers[0].clone();
            other.mac = Mac([1; 6]);
            answers.insert(0, wrong.remove(0));
            answers.insert(0, other);
            if message.kind() == Some(Kind::Request) {
                let mut rival = answer(message, Kind::Nak);
                rival.options.insert(option::SERVER, vec![10, 0, 0, 66]);
                answers.insert(0, rival);
            }
            answers
        });
        assert!(Client { mac: MAC }.ask(&mut server, 0).unwrap().is_some());
        assert_eq!(server.sent.len(), 2);
    }

    #[test]
    fn a_refused_request_ends_the_round_at_once() {
        let mut server = Server::new(|_, message: &Message| match message.kind() {
            Some(Kind::Discover) => friendly(message),
            _ => vec![answer(message, Kind::Nak)],
        });
        assert_eq!(Client { mac: MAC }.ask(&mut server, 0).unwrap(), None);
        assert_eq!(server.sent.len(), 2);
    }

    #[test]
    fn renewal_goes_to_the_server_and_rebinding_to_everybody() {
        let client = Client { mac: MAC };
        let mut server = Server::new(|_, message: &Message| friendly(message));
        let lease = client.ask(&mut server, 0).unwrap().unwrap();
        assert_eq!(client.renew(&mut server, &lease, false).unwrap(), Renewal::Granted(lease.clone()));
        let (request, route, station) = server.sent.last().unwrap().clone();
        assert_eq!((request.client, route.source), (lease.address, lease.address));
        assert_eq!((route.target, station), (Ipv4Addr::from(SERVER), [7; 6]));
        assert_eq!(request.options.get(&option::SERVER), None, "RFC 2131, 4.3.2: must not be filled in");

        client.renew(&mut server, &lease, true).unwrap();
        assert_eq!(server.sent.last().unwrap().1.target, Ipv4Addr::BROADCAST);

        let mut hostile = Server::new(|_, message: &Message| vec![answer(message, Kind::Nak)]);
        assert_eq!(client.renew(&mut hostile, &lease, true).unwrap(), Renewal::Refused);
        let mut silent = Server::new(|_, _: &Message| vec![]);
        assert_eq!(client.renew(&mut silent, &lease, false).unwrap(), Renewal::Silence);
    }

    #[test]
    fn in_another_network_another_address_is_found() {
        let client = Client { mac: MAC };
        let mut first = Server::new(|_, message: &Message| friendly(message));
        let lease = client.ask(&mut first, 0).unwrap().unwrap();
        // The tenant's server knows nothing of the lease: it ignores the request, and offers what it has.
        let mut tenant = Server::new(|_, message: &Message| {
            let mut answers = friendly(message);
            answers[0].yours = Ipv4Addr::new(192, 168, 7, 7);
            if message.client.is_unspecified() { answers } else { vec![] }
        });
        let Renewal::Granted(moved) = client.look_around(&mut tenant, &lease).unwrap() else { panic!() };
        assert_eq!(moved.address, Ipv4Addr::new(192, 168, 7, 7));
        let mut silent = Server::new(|_, _: &Message| vec![]);
        assert_eq!(client.look_around(&mut silent, &lease).unwrap(), Renewal::Silence);
        assert_eq!(client.look_around(&mut first, &lease).unwrap(), Renewal::Granted(lease));
    }
}
