//! How both clients of DHCP ask: how long they wait for an answer, how often they try, when silence is told.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use sys::Host;

use super::link::Link;

/// Requests for an offered address before it is given up.
pub(super) const REQUEST_TRIES: u32 = 3;
/// How long to leave a socket alone that failed.
pub(super) const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);
/// How long to wait between attempts to keep a lease whose server is silent.
pub(super) const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
/// Rounds without an answer before it is reported.
pub(super) const SILENT_ROUNDS: u32 = 3;
/// The longest wait for an answer, in seconds.
const LONGEST_WAIT: u32 = 16;

/// 1, 2, 4, 8, 16, 16, ... seconds, give or take an eighth by `random`: machines that are switched on together shall not ask
/// together.
pub(super) fn patience(random: u32, round: u32) -> Duration {
    let seconds = 1_u32.checked_shl(round).unwrap_or(LONGEST_WAIT).clamp(1, LONGEST_WAIT);
    let eighth = random % 251; // milliseconds a second: 0 to 250
    Duration::from_millis(u64::from(seconds) * u64::from(875 + eighth))
}

/// A number that other machines do not have.
pub(super) fn random() -> u32 {
    // The standard library seeds these keys from the kernel; a DHCP transaction asks for no more.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(0);
    let [a, b, c, d, ..] = hasher.finish().to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// Whether the interface is there still.
pub(super) fn is_there(host: &Host, link: &Link) -> bool {
    host.path(format!("/sys/class/net/{}", link.name)).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_differ_by_an_eighth() {
        let millis = |random, round| patience(random, round).as_millis();
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 40].map(|round| millis(125, round)),
            [1, 2, 4, 8, 16, 16, 16].map(|s| s * 1000)
        );
        assert_eq!((millis(0, 3), millis(250, 3), millis(251, 3)), (7000, 9000, 7000));
    }
}
