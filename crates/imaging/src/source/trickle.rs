//! A body that comes, but so slowly that nobody would wait for it. Pure.
//!
//! A server that sends a byte now and then never runs into the time limit of a single read. Only the time spent waiting
//! for the network counts: a slow disk makes nobody suspicious.

use std::time::Duration;

/// Bytes a second below which a body counts as stalled. A modem of 1990 is faster; an image of 1 GB would take 12 days.
const LEAST: u64 = 1024;

/// What came in the current window.
#[derive(Default)]
pub(super) struct Trickle {
    waited: Duration,
    bytes: u64,
}

impl Trickle {
    /// Counts `bytes` that were waited for so long. Gives what came in a whole window of `limit`, if that is too little.
    pub(super) fn count(&mut self, bytes: usize, waited: Duration, limit: Duration) -> Option<u64> {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.waited < limit {
            return None;
        }
        let Trickle { waited, bytes } = std::mem::take(self);
        (u128::from(bytes) < waited.as_millis() * u128::from(LEAST) / 1000).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_byte_a_second_is_found_out_after_the_limit() {
        let mut trickle = Trickle::default();
        for _ in 0..59 {
            assert_eq!(trickle.count(1, Duration::from_secs(1), LIMIT), None);
        }
        assert_eq!(trickle.count(1, Duration::from_secs(1), LIMIT), Some(60));
        assert_eq!(trickle.count(1, Duration::from_secs(1), LIMIT), None, "counted anew");
    }

    #[test]
    fn long_pauses_between_good_bursts_are_forgiven() {
        let mut trickle = Trickle::default();
        for _ in 0..100 {
            assert_eq!(trickle.count(100_000, Duration::from_secs(59), LIMIT), None);
        }
    }
}
