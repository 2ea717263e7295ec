//! Waiting between two renewals, with an eye on what happens to the network meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sys::Host;

use crate::init::network::link::{self, Link};

/// How often to look at the cable.
const LOOK: Duration = Duration::from_millis(500);
/// How often to look around while the machine is expected to move to another network.
const RESTLESS: Duration = Duration::from_secs(10);

/// Whether the machine is about to be moved to another network. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::init::network) struct Moving(Arc<AtomicBool>);

impl Moving {
    /// From now on it is.
    pub(in crate::init::network) fn expect(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_expected(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The time was over.
    Due,
    /// The cable was out and is in again, or a move is expected: the network may be another one.
    LookAround,
}

/// Waits for the time to renew, for a cable, or for the next look around.
pub(super) struct Vigil<'a> {
    host: &'a Host,
    link: &'a Link,
    moving: &'a Moving,
    /// Changes of the carrier so far, as the kernel counts them.
    changes: Option<u64>,
    looked_around: Option<Instant>,
    /// The machine has moved already.
    settled: bool,
}

impl<'a> Vigil<'a> {
    pub(super) fn new(host: &'a Host, link: &'a Link, moving: &'a Moving) -> Self {
        let mut vigil = Self { host, link, moving, changes: None, looked_around: None, settled: false };
        vigil.changes = vigil.carrier_changes();
        vigil
    }

    /// Waits at most `patience`; for ever without one.
    pub(super) fn keep(&mut self, patience: Option<Duration>) -> Woken {
        let begun = Instant::now();
        loop {
            if self.is_reconnected() || self.is_restless() {
                self.looked_around = Some(Instant::now());
                return Woken::LookAround;
            }
            let left = match patience {
                None => LOOK,
                Some(patience) => patience.saturating_sub(begun.elapsed()),
            };
            if left.is_zero() {
                return Woken::Due;
            }
            thread::sleep(left.min(LOOK));
        }
    }

    /// Another address was found: the move is over.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    fn is_reconnected(&mut self) -> bool {
        let changes = self.carrier_changes();
        let reconnected = changes != self.changes && link::has_carrier(self.host, &self.link.name);
        if reconnected {
            self.changes = changes;
        }
        reconnected
    }

    fn is_restless(&self) -> bool {
        let is_time = self.looked_around.is_none_or(|last| last.elapsed() >= RESTLESS);
        self.moving.is_expected() && !self.settled && is_time
    }

    fn carrier_changes(&self) -> Option<u64> {
        self.host.number(format!("/sys/class/net/{}/carrier_changes", self.link.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::network::mac::Mac;

    #[test]
    fn a_cable_that_was_out_and_an_expected_move_end_the_wait() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/class/net/eth0");
        std::fs::create_dir_all(&folder).unwrap();
        let cable = |carrier: &str, changes: &str| {
            std::fs::write(folder.join("carrier"), carrier).unwrap();
            std::fs::write(folder.join("carrier_changes"), changes).unwrap();
        };
        cable("1", "2");
        let host = sys::fake::host(root.path());
        let link = Link::new("eth0".into(), Mac([2; 6]));
        let moving = Moving::default();
        let mut vigil = Vigil::new(&host, &link, &moving);
        let short = Some(Duration::from_millis(10));
        assert_eq!(vigil.keep(short), Woken::Due);
        cable("0", "3");
        assert_eq!(vigil.keep(short), Woken::Due, "out: there is nobody to ask");
        cable("1", "4");
        assert_eq!(vigil.keep(short), Woken::LookAround);
        assert_eq!(vigil.keep(short), Woken::Due);
        moving.expect();
        let mut other = Vigil::new(&host, &link, &moving);
        assert_eq!(other.keep(None), Woken::LookAround);
        assert_eq!(other.keep(short), Woken::Due, "not at once again");
        let mut settled = Vigil::new(&host, &link, &moving);
        settled.settle();
        assert_eq!(settled.keep(short), Woken::Due);
    }
}
