//! Asks time servers: one exchange with each of their addresses, and the checks that a simple client owes.
//!
//! Source: RFC 4330 (section 5), RFC 5905 (figures 8 and 24), and RFC 9109 for the random port and transmit timestamp. Times
//! of arrival are measured with the monotonic clock, so that a step of the machine's clock does not count.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::BUILT;

/// Where time servers listen.
pub const PORT: u16 = 123;
/// Length of a packet without extensions.
const PACKET: usize = 48;
/// Leap indicator unknown, version 4, mode client.
const REQUEST: u8 = 0b1110_0011;
/// How long to wait for one answer, and how often to ask.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 2;
/// Most addresses that are asked at a time.
const MOST_SERVERS: usize = 8;
/// Seconds between 1900 and 1970.
const NTP_TO_UNIX: i64 = 2_208_988_800;
/// Length of an era: the seconds wrap around in 2036.
const ERA: i64 = 1 << 32;
/// RFC 5905, MAXDISP: a server that is less sure of its time is not synchronised, in 16.16 fixed point seconds.
const WORST_DISPERSION: u32 = 16 << 16;

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Who said it.
    pub server: SocketAddr,
    /// Seconds that this machine's clock is behind; negative when it is ahead.
    pub offset: f64,
    /// Seconds that the exchange spent on the network.
    pub delay: f64,
}

/// Why a server is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It did not answer in time.
    Silent,
    /// The network said no.
    Network(String),
    /// What came is no answer to what was asked.
    Malformed(&'static str),
    /// It tells clients to go away; with its code (`RATE`, `DENY`).
    KissOfDeath(String),
    /// It does not know the time itself.
    Unsynchronised,
    /// It believes in a time before this program was made.
    TooEarly,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Silent => write!(f, "did not answer within {} s", PATIENCE.as_secs()),
            Refusal::Network(text) => f.write_str(text),
            Refusal::Malformed(what) => write!(f, "answered nonsense: {what}"),
            Refusal::KissOfDeath(code) => write!(f, "refuses to serve us: {code}"),
            Refusal::Unsynchronised => f.write_str("does not know the time itself"),
            Refusal::TooEarly => f.write_str("believes in a time before this program was made"),
        }
    }
}

/// No server gave the time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is none.
    #[error("`{0}` is no name or address of a time server; correct ntp_server")]
    Name(String),
    /// The name does not lead to an address.
    #[error("resolving the time server {name}")]
    Resolve {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: dns::Error,
    },
    /// Nobody gave a usable answer.
    #[error("no time server gave the time ({reasons})")]
    NoAnswer {
        /// Each server with what was wrong.
        reasons: String,
    },
}

/// Whether a text may be an `ntp_server`: an address, or up to 253 letters, digits and `. : _ -` (agent protocol page, 5.5).
pub fn is_server_name(text: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '_' | '-');
    text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.len() <= 253 && text.chars().all(usual))
}

/// The addresses of a server's name, IPv4 and IPv6. Blocks as long as name resolution does.
pub fn resolve(name: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let bare = name.trim_matches(['[', ']']);
    if !is_server_name(bare) {
        return Err(Error::Name(name.to_owned()));
    }
    dns::Resolver::system()
        .resolve(bare, port)
        .map_err(|source| Error::Resolve { name: name.to_owned(), source })
}

/// Asks all servers at once and returns the answer to go by: the one in the middle of three or more, else the one that came
/// by the shortest way. Takes four seconds at most.
pub fn ask(servers: &[SocketAddr]) -> Result<Sample, Error> {
    let asked = servers.get(..MOST_SERVERS).unwrap_or(servers);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            asked.iter().map(|server| (*server, scope.spawn(move || ask_patiently(*server)))).collect();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or(Err(Refusal::Malformed("asking it panicked")))
        };
        threads.into_iter().map(|(server, thread)| (server, joined(thread))).collect()
    });
    let samples: Vec<_> = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok().copied()).collect();
    choose(samples).ok_or_else(|| {
        let reasons = answers.iter().filter_map(|(server, answer)| {
            answer.as_ref().err().map(|refusal| format!("{} {refusal}", server.ip()))
        });
        let reasons: Vec<_> = reasons.collect();
        let reasons = if reasons.is_empty() { "there is none to ask".into() } else { reasons.join(", ") };
        Error::NoAnswer { reasons }
    })
}

fn choose(mut samples: Vec<Sample>) -> Option<Sample> {
    if samples.len() >= 3 {
        samples.sort_by(|a, b| a.offset.total_cmp(&b.offset));
        return samples.get(samples.len() / 2).copied();
    }
    if let [a, b] = samples.as_slice()
        && (a.offset - b.offset).abs() > 1.0
    {
        tracing::warn!(one = %a.server, other = %b.server, apart = (a.offset - b.offset).abs(), "two time servers disagree");
    }
    samples.into_iter().min_by(|a, b| a.delay.total_cmp(&b.delay))
}

fn ask_patiently(server: SocketAddr) -> Result<Sample, Refusal> {
    let mut last = Refusal::Silent;
    for _ in 0..ATTEMPTS {
        match ask_once(server) {
            Err(refusal @ (Refusal::Silent | Refusal::Malformed(_))) => last = refusal,
            settled => return settled,
        }
    }
    Err(last)
}

fn ask_once(server: SocketAddr) -> Result<Sample, Refusal> {
    let network = |error: io::Error| Refusal::Network(error.to_string());
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).map_err(network)?;
    socket.connect(server).map_err(network)?; // packets from elsewhere do not come through
    let (nonce, _) = uuid::Uuid::new_v4().as_u64_pair();
    let mut request = [0; PACKET];
    request[0] = REQUEST;
    request[40..].copy_from_slice(&nonce.to_be_bytes());
    let (sent_at, sent) = (SystemTime::now(), Instant::now());
    socket.send(&request).map_err(network)?;
    let mut buffer = [0; 512];
    loop {
        let left = PATIENCE.saturating_sub(sent.elapsed());
        if left.is_zero() {
            return Err(Refusal::Silent);
        }
        socket.set_read_timeout(Some(left)).map_err(network)?;
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let round_trip = sent.elapsed().as_secs_f64();
                match read(buffer.get(..length).unwrap_or_default(), nonce, BUILT) {
                    // Somebody else's, or a late one: the right one may still come.
                    Err(Refusal::Malformed(_)) => {}
                    Err(refusal) => return Err(refusal),
                    Ok(answer) => return Ok(answer.sample(server, unix(sent_at), round_trip)),
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(Refusal::Silent);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(network(error)),
        }
    }
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// When a server received a request and when it answered, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answer {
    received: f64,
    answered: f64,
}

impl Answer {
    /// RFC 4330, section 5: t = ((T2 - T1) + (T3 - T4)) / 2, with T4 = T1 + the round trip.
    fn sample(self, server: SocketAddr, sent: f64, round_trip: f64) -> Sample {
        let Answer { received, answered } = self;
        let offset = f64::midpoint(received - sent, answered - (sent + round_trip));
        Sample { server, offset, delay: (round_trip - (answered - received)).max(0.0) }
    }
}

/// Reads an answer to the request with this transmit timestamp. `pivot` (Unix seconds) tells which era of 136 years it is.
fn read(packet: &[u8], nonce: u64, pivot: i64) -> Result<Answer, Refusal> {
    let Some(packet) = packet.first_chunk::<PACKET>() else { return Err(Refusal::Malformed("too short")) };
    let word = |at: usize| {
        let bytes = packet.get(at..at + 8).and_then(|bytes| bytes.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
    };
    let half = |at: usize| u32::try_from(word(at) >> 32).unwrap_or(u32::MAX);
    let (leap, version, mode) = (packet[0] >> 6, (packet[0] >> 3) & 7, packet[0] & 7);
    if mode != 4 || !(3..=4).contains(&version) {
        return Err(Refusal::Malformed("no answer of a time server"));
    }
    if word(24) != nonce {
        return Err(Refusal::Malformed("an answer to another question"));
    }
    let stratum = packet[1];
    if stratum == 0 {
        let code = packet[12..16].iter().map(|byte| char::from(*byte)).filter(char::is_ascii_alphanumeric);
        return Err(Refusal::KissOfDeath(code.collect()));
    }
    if leap == 3 || stratum > 15 || half(4) > WORST_DISPERSION || half(8) > WORST_DISPERSION {
        return Err(Refusal::Unsynchronised);
    }
    if word(32) == 0 || word(40) == 0 {
        return Err(Refusal::Malformed("without a time"));
    }
    let (received, answered) = (seconds(word(32), pivot), seconds(word(40), pivot));
    if answered < received {
        return Err(Refusal::Malformed("answered before it was asked"));
    }
    #[allow(clippy::cast_precision_loss)] // dates of this millennium are exact
    if answered < pivot as f64 {
        return Err(Refusal::TooEarly);
    }
    Ok(Answer { received, answered })
}

/// A timestamp in Unix seconds, of the era that is nearest to `pivot`.
#[allow(clippy::cast_precision_loss)] // microseconds are lost: nobody misses them
fn seconds(timestamp: u64, pivot: i64) -> f64 {
    let mut whole = i64::try_from(timestamp >> 32).unwrap_or(0) - NTP_TO_UNIX;
    while whole + ERA / 2 < pivot {
        whole += ERA;
    }
    let fraction = (timestamp & 0xffff_ffff) as f64 / ERA as f64;
    whole as f64 + fraction
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: u64 = 0x0123_4567_89ab_cdef;
    const NOW: i64 = 1_795_237_200;

    fn stamp(unix: i64) -> u64 {
        u64::try_from((unix + NTP_TO_UNIX).rem_euclid(ERA)).unwrap() << 32
    }

    fn answer(received: i64, answered: i64) -> [u8; PACKET] {
        let mut packet = [0; PACKET];
        packet[0] = 0b0010_0100;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&NONCE.to_be_bytes());
        packet[32..40].copy_from_slice(&stamp(received).to_be_bytes());
        packet[40..48].copy_from_slice(&stamp(answered).to_be_bytes());
        packet
    }

    #[test]
    fn the_offset_is_between_the_two_ways() {
        let answer = read(&answer(NOW, NOW + 2), NONCE, BUILT).unwrap();
        let server = SocketAddr::from(([192, 0, 2, 1], PORT));
        let now = f64::from(u32::try_from(NOW).unwrap());
        let sample = answer.sample(server, now - 101.0, 4.0);
        assert!((sample.offset - 100.0).abs() < 1e-6, "{sample:?}");
        assert!((sample.delay - 2.0).abs() < 1e-6, "{sample:?}");
    }

    #[test]
    fn what_is_no_answer_or_no_time_is_refused() {
        let good = answer(NOW, NOW);
        let refusal = |change: &dyn Fn(&mut [u8; PACKET])| {
            let mut packet = good;
            change(&mut packet);
            read(&packet, NONCE, BUILT).unwrap_err()
        };
        assert!(matches!(refusal(&|p| p[0] = 0b0010_0011), Refusal::Malformed(_)), "a client");
        assert!(matches!(refusal(&|p| p[0] = 0b0000_1100), Refusal::Malformed(_)), "version 1");
        assert!(matches!(refusal(&|p| p[31] ^= 1), Refusal::Malformed(_)), "another question");
        assert_eq!(refusal(&|p| p[0] |= 0b1100_0000), Refusal::Unsynchronised);
        assert_eq!(refusal(&|p| p[1] = 16), Refusal::Unsynchronised);
        assert_eq!(refusal(&|p| p[4] = 1), Refusal::Unsynchronised);
        assert!(matches!(refusal(&|p| p[40..].fill(0)), Refusal::Malformed(_)));
        let kiss = refusal(&|p| {
            p[1] = 0;
            p[12..16].copy_from_slice(b"RATE");
        });
        assert_eq!(kiss, Refusal::KissOfDeath("RATE".into()));
        assert!(matches!(read(&good[..47], NONCE, BUILT), Err(Refusal::Malformed("too short"))));
        assert_eq!(read(&answer(0, 0), NONCE, BUILT), Err(Refusal::TooEarly));
    }

    #[test]
    fn the_second_era_begins_in_2036() {
        let later = 2_100_000_000; // 2036-07-18
        assert!(u64::try_from(later + NTP_TO_UNIX).unwrap() > u64::from(u32::MAX));
        let answer = read(&answer(later, later), NONCE, BUILT).unwrap();
        assert!((answer.received - 2_100_000_000.0).abs() < 1e-6);
    }

    #[test]
    fn names_are_checked_before_they_are_resolved() {
        for good in ["192.0.2.1", "2001:db8::1", "ntp.example", "a_b-c.d"] {
            assert!(is_server_name(good), "{good}");
        }
        for bad in ["", "a b", "ntp;reboot", "$(x)", &"a".repeat(254)] {
            assert!(!is_server_name(bad), "{bad}");
            assert!(matches!(resolve(bad, PORT), Err(Error::Name(_))));
        }
        assert_eq!(resolve("[::1]", 1123).unwrap(), [SocketAddr::from((Ipv6Addr::LOCALHOST, 1123))]);
    }

    #[test]
    fn the_middle_of_three_counts_and_of_two_the_nearer() {
        let sample = |offset, delay| Sample { server: SocketAddr::from(([192, 0, 2, 1], 1)), offset, delay };
        let three = vec![sample(5.0, 0.1), sample(1e9, 0.01), sample(5.1, 0.2)];
        assert_eq!(choose(three).unwrap().offset, 5.1);
        assert_eq!(choose(vec![sample(5.0, 0.2), sample(5.1, 0.1)]).unwrap().offset, 5.1);
        assert_eq!(choose(vec![]), None);
    }

    /// A server that answers each packet as it is told to, on its own thread.
    fn server(answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                for answer in answers(&buffer[..length]) {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        address
    }

    fn honest(request: &[u8]) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 1000;
        let now = i64::try_from(now).unwrap();
        let mut packet = answer(now, now).to_vec();
        packet[24..32].copy_from_slice(&request[40..48]);
        packet
    }

    #[test]
    fn servers_are_asked_over_the_network_and_stray_packets_are_passed_over() {
        let good = server(|request| vec![vec![1, 2, 3], vec![0; 48], honest(request)]);
        let sample = ask(&[good]).unwrap();
        assert!((sample.offset - 1000.0).abs() < 5.0, "{sample:?}");
        assert!(sample.delay < 2.0);
    }

    #[test]
    fn every_useless_server_is_named_with_its_reason() {
        let rude = server(|request| {
            let mut packet = honest(request);
            packet[1] = 0;
            packet[12..16].copy_from_slice(b"DENY");
            vec![packet]
        });
        let error = ask(&[rude]).unwrap_err().to_string();
        assert!(error.contains("127.0.0.1") && error.contains("DENY"), "{error}");
        let good = server(|request| vec![honest(request)]);
        assert!(ask(&[rude, good]).is_ok());
        assert!(ask(&[]).unwrap_err().to_string().contains("none to ask"));
    }

    proptest! {
        #[test]
        fn any_packet_is_read_without_panic(packet in proptest::collection::vec(any::<u8>(), 0..100), nonce: u64) {
            let _ = read(&packet, nonce, BUILT);
        }
    }
}
