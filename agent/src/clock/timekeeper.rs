//! Keeps what is known about the time, and sets the machine's clock by it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use events::{EventKind, Events};
use sys::Host;
use tls::utc;

use super::date::{self, Trust, Verdict};
use super::sntp::{self, Sample};

/// Offsets below this are left alone, in seconds.
const WORTH_SETTING: f64 = 0.01;
/// Offsets from this on are worth a line on the console, in seconds.
const WORTH_TELLING: f64 = 2.0;

/// Whom to ask for the time.
#[derive(Clone, Debug)]
pub struct TimeServers {
    /// The option `ntp_server`: a name or an address.
    pub configured: Option<String>,
    /// Those of the DHCP lease (option 42): asked when none is configured, or when that one does not help.
    pub leased: Vec<IpAddr>,
    /// Where they listen: 123 but in tests.
    pub port: u16,
}

impl Default for TimeServers {
    fn default() -> Self {
        Self { configured: None, leased: Vec::new(), port: sntp::PORT }
    }
}

/// The clock could not be set, where it has to be.
#[derive(Debug, thiserror::Error)]
#[error("setting the clock by a time server; correct ntp_server, or let fail_if_clock_not_set be false")]
pub struct Error(#[source] sntp::Error);

/// The time of this machine. Clones share it.
#[derive(Clone)]
pub struct Timekeeper(Arc<Shared>);

struct Shared {
    host: Host,
    events: Events,
    servers: TimeServers,
    must_be_set: bool,
    clock: tls::Clock,
    /// Whether a time server or a trusted reply has confirmed or corrected the clock.
    settled: AtomicBool,
    /// Whether a date that was not believed has been told.
    complained: AtomicBool,
}

impl Timekeeper {
    /// Believes the machine's clock until it learns more. `must_be_set`: the option `fail_if_clock_not_set`.
    pub fn new(host: Host, events: Events, servers: TimeServers, must_be_set: bool) -> Self {
        let (settled, complained) = (AtomicBool::new(false), AtomicBool::new(false));
        let clock = tls::Clock::default();
        Self(Arc::new(Shared { host, events, servers, must_be_set, clock, settled, complained }))
    }

    /// The time by which certificates are judged and issued.
    pub fn clock(&self) -> tls::Clock {
        self.0.clock.clone()
    }

    /// Whether something better than the machine's clock has told the time.
    pub fn is_settled(&self) -> bool {
        self.0.settled.load(Ordering::Acquire)
    }

    /// Asks the time servers, where there are any, and sets the clock. Blocks: a few seconds, and as long as resolving a name
    /// takes. A failure is only logged, unless `fail_if_clock_not_set` makes it one. Source: agent protocol page, 5.5.
    pub fn synchronise(&self) -> Result<(), Error> {
        match self.ask() {
            Ok(None) => Ok(()),
            Ok(Some(sample)) => {
                self.0.settled.store(true, Ordering::Release);
                self.step(sample.offset, &format!("the time server {}", sample.server.ip()));
                Ok(())
            }
            Err(error) if self.0.must_be_set => Err(Error(error)),
            Err(error) => {
                self.tell(format!("the clock was not set: {}", hwm::chain(&error)));
                Ok(())
            }
        }
    }

    fn ask(&self) -> Result<Option<Sample>, sntp::Error> {
        let TimeServers { configured, leased, port } = &self.0.servers;
        let leased: Vec<_> = leased.iter().map(|ip| (*ip, *port).into()).collect();
        let Some(name) = configured.as_deref().filter(|name| !name.is_empty()) else {
            return if leased.is_empty() { Ok(None) } else { sntp::ask(&leased).map(Some) };
        };
        let answer = sntp::resolve(name, *port).and_then(|servers| sntp::ask(&servers));
        match answer {
            Err(error) if !leased.is_empty() => {
                tracing::warn!(
                    error = hwm::chain(&error),
                    "asking the time servers of the DHCP lease instead"
                );
                sntp::ask(&leased).map(Some)
            }
            other => other.map(Some),
        }
    }

    /// Considers the date of a reply, Unix seconds, and says whether the clock was corrected by it. Once the clock is settled
    /// only a date that comes with a failed handshake (`Trust::VerifiedThen`) is considered.
    pub fn consider(&self, date: i64, trust: Trust, source: &str) -> bool {
        if self.is_settled() && trust != Trust::VerifiedThen {
            return false;
        }
        let now = seconds(self.0.clock.now());
        let verdict = date::judge(now, date, trust);
        match verdict {
            Verdict::Agrees => self.0.settled.store(true, Ordering::Release),
            Verdict::Correct => {
                self.0.settled.store(true, Ordering::Release);
                // The date is cut off to whole seconds.
                let system =
                    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
                self.step(float(date) + 0.5 - system, &format!("the date in a reply of {source}"));
            }
            Verdict::TooEarly | Verdict::Backwards => self.complain(verdict, now, date, source),
        }
        verdict == Verdict::Correct
    }

    fn complain(&self, verdict: Verdict, now: i64, date: i64, source: &str) {
        if self.0.complained.swap(true, Ordering::AcqRel) {
            return;
        }
        let why = match verdict {
            Verdict::Backwards => "an expired certificate is no reason to turn a clock back",
            _ => "that is before this program was made",
        };
        self.tell(format!(
            "the clock says {}, {source} says {}: not believed, {why}; give ipa-ntp-server=ADDRESS, or set the right one",
            utc(now),
            utc(date)
        ));
    }

    /// Moves the clock by seconds, counted from the machine's own: the machine's where that is allowed, else only ours.
    fn step(&self, offset: f64, source: &str) {
        let before = seconds(self.0.clock.now());
        let distance = Duration::try_from_secs_f64(offset.abs()).unwrap_or_default();
        let system = SystemTime::now();
        let target = if offset < 0.0 { system.checked_sub(distance) } else { system.checked_add(distance) };
        let Some(target) = target else { return };
        let after = seconds(target);
        if offset.abs() < WORTH_SETTING {
            self.0.clock.set_correction_millis(0);
            tracing::info!(source, offset, "the clock is right");
            return;
        }
        let off =
            format!("{} {}", span(before.abs_diff(after)), if before < after { "behind" } else { "ahead" });
        let told = match self.0.host.kernel().set_clock(target) {
            Ok(()) => {
                self.0.clock.set_correction_millis(0);
                format!("the clock was {off}; set to {} by {source}", utc(after))
            }
            Err(error) => {
                self.0.clock.set_correction_millis(millis(offset));
                format!(
                    "this machine's clock is {off}, says {source}; it stays as it is ({error}), and certificates are judged by the \
                     right time"
                )
            }
        };
        if float(i64::try_from(before.abs_diff(after)).unwrap_or(i64::MAX)) < WORTH_TELLING {
            tracing::info!("{told}");
        } else {
            self.tell(told);
        }
    }

    /// On the console and in the log.
    fn tell(&self, message: String) {
        self.0.events.emit(EventKind::Notice { message });
    }
}

/// A span of time as a person says it: its two greatest units.
pub fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 5] = [(365 * 86_400, "y"), (86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, name) in UNITS {
        if rest >= unit {
            parts.push(format!("{} {name}", rest / unit));
            rest %= unit;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0 s".into() } else { parts.join(" ") }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[allow(clippy::cast_precision_loss)] // dates of this millennium are exact
fn float(seconds: i64) -> f64 {
    seconds as f64
}

#[allow(clippy::cast_possible_truncation)] // saturates: 290 million years
fn millis(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BUILT;
    use std::net::{Ipv4Addr, UdpSocket};
    use sys::fake::{Call, FakeRunner, RecordingKernel};

    const YEAR: i64 = 365 * 24 * 3600;

    struct Scene {
        kernel: Arc<RecordingKernel>,
        keeper: Timekeeper,
        told: Events,
    }

    /// A machine whose clock is off by so many seconds (faked by a correction that nobody made).
    fn scene(off: i64, servers: TimeServers, may_set: bool, must: bool) -> Scene {
        let mut kernel = RecordingKernel::default();
        kernel.clock_fails = (!may_set).then_some(std::io::ErrorKind::PermissionDenied);
        let kernel = Arc::new(kernel);
        let host = Host::new("/nonexistent", Arc::new(FakeRunner::default()), kernel.clone());
        let told = Events::default();
        let keeper = Timekeeper::new(host, told.clone(), servers, must);
        keeper.clock().set_correction_millis(off * 1000);
        Scene { kernel, keeper, told }
    }

    impl Scene {
        fn set_to(&self) -> Vec<i64> {
            let set = |call: &Call| if let Call::SetClock(time) = call { Some(seconds(*time)) } else { None };
            self.kernel.calls().iter().filter_map(set).collect()
        }

        fn text(&self) -> String {
            let page = self.told.after(0, 100);
            page.events.iter().map(|event| format!("{:?}\n", event.kind)).collect()
        }
    }

    fn near(a: i64, b: i64) -> bool {
        a.abs_diff(b) <= 2
    }

    #[test]
    fn the_first_trusted_date_sets_the_clock_and_later_ones_change_nothing() {
        let now = seconds(SystemTime::now());
        let scene = scene(-25 * YEAR, TimeServers::default(), true, false);
        assert!(scene.keeper.consider(now, Trust::Obeyed, "http://conductor"));
        assert!(near(scene.set_to()[0], now));
        assert!(near(seconds(scene.keeper.clock().now()), now));
        assert!(
            scene.text().contains("25 y behind") && scene.text().contains("http://conductor"),
            "{}",
            scene.text()
        );
        assert!(!scene.keeper.consider(now + YEAR, Trust::Verified, "http://conductor"));
        assert_eq!(scene.set_to().len(), 1);
    }

    #[test]
    fn where_the_clock_may_not_be_set_only_the_agent_knows_better() {
        let now = seconds(SystemTime::now());
        let scene = scene(0, TimeServers::default(), false, false);
        assert!(scene.keeper.consider(now + YEAR, Trust::Verified, "https://conductor"));
        assert!(near(seconds(scene.keeper.clock().now()), now + YEAR));
        assert!(scene.text().contains("it stays as it is"), "{}", scene.text());
    }

    #[test]
    fn a_date_that_is_not_believed_is_told_once_and_changes_nothing() {
        let scene = scene(0, TimeServers::default(), true, false);
        let now = seconds(SystemTime::now());
        for _ in 0..3 {
            assert!(!scene.keeper.consider(BUILT - 1, Trust::Obeyed, "http://conductor"));
            assert!(!scene.keeper.consider(now - 3600, Trust::VerifiedThen, "https://conductor"));
        }
        assert_eq!(scene.set_to(), [0_i64; 0]);
        assert_eq!(scene.text().matches("not believed").count(), 1, "{}", scene.text());
        assert!(!scene.keeper.is_settled());
    }

    /// A time server that is ahead by so many seconds.
    fn time_server(ahead: u64) -> u16 {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buffer = [0; 48];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                let whole = (now.as_secs() + ahead + 2_208_988_800) & 0xffff_ffff;
                let stamp = ((whole << 32) | (u64::from(now.subsec_nanos()) * (1 << 32) / 1_000_000_000))
                    .to_be_bytes();
                let mut answer = [0; 48];
                (answer[0], answer[1]) = (0b0010_0100, 1);
                answer[24..32].copy_from_slice(&buffer[40..48]);
                answer[32..40].copy_from_slice(&stamp);
                answer[40..48].copy_from_slice(&stamp);
                let _ = socket.send_to(&answer, peer);
            }
        });
        port
    }

    #[test]
    fn a_time_server_settles_the_clock_configured_or_leased() {
        let now = seconds(SystemTime::now());
        let port = time_server(7200);
        let configured = TimeServers { configured: Some("127.0.0.1".into()), leased: vec![], port };
        let leased = TimeServers { configured: None, leased: vec![Ipv4Addr::LOCALHOST.into()], port };
        let both = TimeServers { configured: Some("a b".into()), ..leased.clone() };
        for servers in [configured, leased, both] {
            let scene = scene(0, servers, true, true);
            scene.keeper.synchronise().unwrap();
            assert!(near(scene.set_to()[0], now + 7200));
            assert!(scene.keeper.is_settled());
            assert!(
                !scene.keeper.consider(now, Trust::Verified, "https://conductor"),
                "the server counts for more"
            );
        }
    }

    #[test]
    fn a_failure_is_told_and_is_an_error_only_where_it_must_be() {
        let servers = TimeServers { configured: Some("no name".into()), ..TimeServers::default() };
        let lax = scene(0, servers.clone(), true, false);
        lax.keeper.synchronise().unwrap();
        assert!(lax.text().contains("the clock was not set"), "{}", lax.text());
        let strict = scene(0, servers, true, true);
        let error = hwm::chain(&strict.keeper.synchronise().unwrap_err());
        assert!(error.contains("no name") && error.contains("fail_if_clock_not_set"), "{error}");
        scene(0, TimeServers::default(), true, true).keeper.synchronise().unwrap(); // nobody to ask
    }

    #[test]
    fn spans_are_told_in_their_greatest_units() {
        assert_eq!(span(0), "0 s");
        assert_eq!(span(3661), "1 h 1 min");
        assert_eq!(span(25 * 365 * 86_400 + 86_400 + 5), "25 y 1 d");
    }
}
