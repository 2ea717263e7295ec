//! A DHCPv6 client's side of the conversation (RFC 8415, section 18): solicit, advertise, request, reply; renewal; information.
//!
//! Pure of sockets and clocks: those are behind [`Wire`], so that a test can play server.

use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::super::asking;
use super::super::mac::Mac;
use super::message::{Granted, Kind, Message, client_id, identity_association, option};

/// An address whose server names no time to renew is renewed at half its life, and by anybody at four fifths (RFC 8415, 14.2).
const DEFAULT_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The way to the servers of the link and the time on it.
pub(super) trait Wire {
    /// Sends a message to all servers.
    fn send(&mut self, message: &[u8]) -> io::Result<()>;
    /// The next message; nothing when none came in time.
    fn receive(&mut self, patience: Duration) -> io::Result<Option<Vec<u8>>>;
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    /// A number that other clients do not have.
    fn random(&mut self) -> u32;
}

/// What a server told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Lease {
    /// Addresses; none when only information was asked for.
    pub addresses: Vec<Granted>,
    pub name_servers: Vec<Ipv6Addr>,
    pub search: Vec<String>,
    pub time_servers: Vec<Ipv6Addr>,
    /// When to ask to keep the addresses: their server, and anybody.
    pub renew: Duration,
    pub rebind: Duration,
    server: Vec<u8>,
}

/// One interface's client.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub mac: Mac,
}

impl Client {
    /// One round: asks who gives an address, waits longer the later the round, and takes the first offer.
    pub(super) fn ask(&self, wire: &mut impl Wire, round: u32) -> io::Result<Option<Lease>> {
        let mut solicit = self.message(Kind::Solicit, wire, &[]);
        solicit.options.push((option::RAPID_COMMIT, Vec::new()));
        let patience = asking::patience(wire.random(), round);
        let wanted = |answer: &Message| {
            let rapid = answer.kind == Kind::Reply && answer.get(option::RAPID_COMMIT).is_some();
            (rapid || answer.kind == Kind::Advertise) && answer.association(self.association_id()).is_some()
        };
        let Some(offer) = self.exchange(wire, &solicit, patience, wanted)? else { return Ok(None) };
        if offer.kind == Kind::Reply {
            return Ok(self.lease(&offer));
        }
        let addresses = offer.association(self.association_id()).unwrap_or_default().addresses;
        let server = offer.get(option::SERVER_ID).unwrap_or_default().to_vec();
        let mut request = self.message(Kind::Request, wire, &addresses);
        request.options.push((option::SERVER_ID, server));
        for attempt in 0..asking::REQUEST_TRIES {
            let patience = asking::patience(wire.random(), attempt);
            if let Some(reply) =
                self.exchange(wire, &request, patience, |answer| answer.kind == Kind::Reply)?
            {
                return Ok(self.lease(&reply));
            }
        }
        Ok(None)
    }

    /// Asks for everything but addresses.
    pub(super) fn inform(&self, wire: &mut impl Wire, round: u32) -> io::Result<Option<Lease>> {
        let mut question = self.message(Kind::InformationRequest, wire, &[]);
        question.options.retain(|(code, _)| *code != option::IA_NA);
        let patience = asking::patience(wire.random(), round);
        let reply = self.exchange(wire, &question, patience, |answer| answer.kind == Kind::Reply)?;
        Ok(reply.map(|reply| told(&reply)))
    }

    /// Asks to keep the addresses: their own server, or any server once that one has been silent for too long. `None` when
    /// nobody granted them anew.
    pub(super) fn renew(
        &self,
        wire: &mut impl Wire,
        lease: &Lease,
        anybody: bool,
    ) -> io::Result<Option<Lease>> {
        let kind = if anybody { Kind::Rebind } else { Kind::Renew };
        let mut question = self.message(kind, wire, &lease.addresses);
        if !anybody {
            question.options.push((option::SERVER_ID, lease.server.clone()));
        }
        let patience = asking::patience(wire.random(), 3);
        let reply = self.exchange(wire, &question, patience, |answer| answer.kind == Kind::Reply)?;
        Ok(reply.and_then(|reply| self.lease(&reply)))
    }

    /// The last bytes of the hardware address: unique on the machine and the same at each boot.
    fn association_id(&self) -> [u8; 4] {
        let Mac([_, _, a, b, c, d]) = self.mac;
        [a, b, c, d]
    }

    fn message(&self, kind: Kind, wire: &mut impl Wire, addresses: &[Granted]) -> Message {
        let wanted = [option::DNS, option::SEARCH, option::SNTP, option::NTP];
        let options = vec![
            (option::CLIENT_ID, client_id(self.mac)),
            (option::IA_NA, identity_association(self.association_id(), addresses)),
            (option::REQUESTED, wanted.iter().flat_map(|code| code.to_be_bytes()).collect()),
            (option::ELAPSED, vec![0, 0]),
        ];
        Message { kind, transaction: wire.random() & 0x00ff_ffff, options }
    }

    /// Sends a message and waits for an answer to it that is wanted.
    fn exchange(
        &self,
        wire: &mut impl Wire,
        message: &Message,
        patience: Duration,
        wanted: impl Fn(&Message) -> bool,
    ) -> io::Result<Option<Message>> {
        wire.send(&message.encode())?;
        let deadline = wire.now() + patience;
        loop {
            let left = deadline.saturating_sub(wire.now());
            if left.is_zero() {
                return Ok(None);
            }
            let Some(bytes) = wire.receive(left)? else { continue };
            let answer = Message::decode(&bytes)
                .filter(|answer| answer.transaction == message.transaction)
                .filter(|answer| answer.get(option::CLIENT_ID) == Some(client_id(self.mac).as_slice()))
                .filter(|answer| answer.get(option::SERVER_ID).is_some());
            // When a server was chosen, another one's word does not count.
            let chosen = message.get(option::SERVER_ID);
            let answer = answer.filter(|answer| chosen.is_none() || answer.get(option::SERVER_ID) == chosen);
            if let Some(answer) = answer.filter(|answer| wanted(answer)) {
                return Ok(Some(answer));
            }
        }
    }

    /// The lease of a reply that grants addresses.
    fn lease(&self, reply: &Message) -> Option<Lease> {
        let association = reply.association(self.association_id()).filter(|_| reply.succeeded())?;
        let shortest = association.addresses.iter().filter_map(|granted| granted.valid).min();
        let life = shortest.unwrap_or(DEFAULT_LIFE);
        let renew = association.renew.unwrap_or(life / 2).min(life);
        let rebind = association.rebind.unwrap_or(life.mul_f64(0.8)).min(life).max(renew);
        Some(Lease { addresses: association.addresses, renew, rebind, ..told(reply) })
    }
}

fn told(reply: &Message) -> Lease {
    Lease {
        name_servers: reply.name_servers(),
        search: reply.search(),
        time_servers: reply.time_servers(),
        server: reply.get(option::SERVER_ID).unwrap_or_default().to_vec(),
        ..Lease::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const MAC: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
    const SERVER: [u8; 4] = *b"serv";

    /// A server by script: for each message the client sends, the answers it gets.
    struct Server<F> {
        answer: F,
        sent: Vec<Message>,
        on_the_way: VecDeque<Message>,
        clock: Duration,
    }

    impl<F: FnMut(usize, &Message) -> Vec<Message>> Server<F> {
        fn new(answer: F) -> Self {
            Self { answer, sent: Vec::new(), on_the_way: VecDeque::new(), clock: Duration::ZERO }
        }
    }

    impl<F: FnMut(usize, &Message) -> Vec<Message>> Wire for Server<F> {
        fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
            let message = Message::decode(bytes).unwrap();
            self.on_the_way.extend((self.answer)(self.sent.len(), &message));
            self.sent.push(message);
            Ok(())
        }
        fn receive(&mut self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
            let next = self.on_the_way.pop_front();
            self.clock += if next.is_some() { Duration::from_millis(1) } else { patience };
            Ok(next.map(|message| message.encode()))
        }
        fn now(&self) -> Duration {
            self.clock
        }
        fn random(&mut self) -> u32 {
            0xff00_0007 + u32::try_from(self.sent.len()).unwrap()
        }
    }

    fn answer(to: &Message, kind: Kind, server: &[u8]) -> Message {
        let mut association = vec![0, 1, 2, 3, 0, 0, 0, 50, 0, 0, 0, 80];
        let address = "2001:db8::9".parse::<Ipv6Addr>().unwrap().octets();
        association.extend([&[0, 5, 0, 24], address.as_slice(), &[0, 0, 0, 60, 0, 0, 0, 100]].concat());
        let mut options = vec![
            (option::CLIENT_ID, client_id(MAC)),
            (option::SERVER_ID, server.to_vec()),
            (option::DNS, "2001:db8::53".parse::<Ipv6Addr>().unwrap().octets().to_vec()),
        ];
        if to.get(option::IA_NA).is_some() {
            options.push((option::IA_NA, association));
        }
        Message { kind, transaction: to.transaction, options }
    }

    fn friendly(to: &Message) -> Vec<Message> {
        let kind = if to.kind == Kind::Solicit { Kind::Advertise } else { Kind::Reply };
        vec![answer(to, kind, &SERVER)]
    }

    #[test]
    fn an_offer_is_requested_and_its_reply_is_the_lease() {
        let mut server = Server::new(|_, message: &Message| friendly(message));
        let lease = Client { mac: MAC }.ask(&mut server, 0).unwrap().unwrap();
        assert_eq!(lease.addresses[0].address, "2001:db8::9".parse::<Ipv6Addr>().unwrap());
        assert_eq!((lease.renew, lease.rebind), (Duration::from_secs(50), Duration::from_secs(80)));
        assert_eq!(lease.name_servers.len(), 1);
        let kinds: Vec<_> = server.sent.iter().map(|message| message.kind).collect();
        assert_eq!(kinds, [Kind::Solicit, Kind::Request]);
        assert_eq!(server.sent[1].get(option::SERVER_ID), Some(SERVER.as_slice()));
        assert_eq!(server.sent[1].association([0, 1, 2, 3]), None, "the client asks, without lifetimes");
    }

    #[test]
    fn a_server_in_a_hurry_needs_no_request() {
        let mut server = Server::new(|_, message: &Message| {
            let mut reply = answer(message, Kind::Reply, &SERVER);
            reply.options.push((option::RAPID_COMMIT, Vec::new()));
            vec![reply]
        });
        assert!(Client { mac: MAC }.ask(&mut server, 0).unwrap().is_some());
        assert_eq!(server.sent.len(), 1);
    }

    #[test]
    fn answers_to_others_from_servers_not_chosen_and_without_addresses_are_passed_over() {
        let mut server = Server::new(|_, message: &Message| {
            let right = friendly(message).remove(0);
            let mut other_client = right.clone();
            other_client.options[0].1 = client_id(Mac([1; 6]));
            let mut other_transaction = right.clone();
            other_transaction.transaction ^= 1;
            let mut empty = right.clone();
            empty.options.retain(|(code, _)| *code != option::IA_NA || message.kind == Kind::Request);
            let rival = answer(message, Kind::Reply, b"rival");
            vec![other_client, other_transaction, empty, rival, right]
        });
        let lease = Client { mac: MAC }.ask(&mut server, 0).unwrap().unwrap();
        assert_eq!(lease.server, SERVER);
        assert_eq!(server.sent.len(), 2);
    }

    #[test]
    fn information_is_asked_for_without_addresses() {
        let mut server = Server::new(|_, message: &Message| friendly(message));
        let told = Client { mac: MAC }.inform(&mut server, 0).unwrap().unwrap();
        assert!(told.addresses.is_empty() && told.name_servers.len() == 1);
        assert_eq!(server.sent[0].kind, Kind::InformationRequest);
        assert_eq!(server.sent[0].get(option::IA_NA), None);
    }

    #[test]
    fn renewal_names_the_server_rebinding_does_not_and_refusal_is_none() {
        let client = Client { mac: MAC };
        let mut server = Server::new(|_, message: &Message| friendly(message));
        let lease = client.ask(&mut server, 0).unwrap().unwrap();
        assert_eq!(client.renew(&mut server, &lease, false).unwrap(), Some(lease.clone()));
        assert_eq!(server.sent.last().unwrap().get(option::SERVER_ID), Some(SERVER.as_slice()));
        client.renew(&mut server, &lease, true).unwrap();
        let last = server.sent.last().unwrap();
        assert_eq!((last.kind, last.get(option::SERVER_ID)), (Kind::Rebind, None));

        let mut hostile = Server::new(|_, message: &Message| {
            let mut refusal = answer(message, Kind::Reply, &SERVER);
            refusal.options.push((option::STATUS, vec![0, 3])); // NoBinding
            vec![refusal]
        });
        assert_eq!(client.renew(&mut hostile, &lease, false).unwrap(), None);
        let mut silent = Server::new(|_, _: &Message| vec![]);
        assert_eq!(client.ask(&mut silent, 99).unwrap(), None);
        assert!(silent.clock <= Duration::from_secs(18), "{:?}", silent.clock);
    }
}
