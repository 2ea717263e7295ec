//! The time that certificates are judged by: the system's clock, corrected by what was learnt about it.
//!
//! The correction is zero as long as the system's clock is believed, and again once it has been set right. It is for a
//! process that knows the time better than the machine and may not set the machine's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// A clock; clones share its correction.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    /// The time, as far as it is known.
    pub fn now(&self) -> SystemTime {
        self.correct(SystemTime::now())
    }

    /// Milliseconds that the system's clock is behind; negative when it is ahead.
    pub fn correction_millis(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }

    /// Believes the system's clock to be behind by so many milliseconds from now on.
    pub fn set_correction_millis(&self, millis: i64) {
        self.0.store(millis, Ordering::Release);
    }

    fn correct(&self, system: SystemTime) -> SystemTime {
        let millis = self.correction_millis();
        let distance = Duration::from_millis(millis.unsigned_abs());
        let corrected = if millis < 0 { system.checked_sub(distance) } else { system.checked_add(distance) };
        corrected.unwrap_or(system)
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        self.now().duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_moves_every_clone_and_nonsense_moves_none() {
        let clock = Clock::default();
        let other = clock.clone();
        clock.set_correction_millis(-3_600_000);
        let apart = SystemTime::now().duration_since(other.now()).unwrap();
        assert!((3599..=3601).contains(&apart.as_secs()), "{apart:?}");
        clock.set_correction_millis(i64::MIN);
        let _ = other.now();
    }
}
