//! Progress of one image write, as events: phases with their times, and at most four figures a second between them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use events::{EventKind, Events, Phase};

/// Least time between two progress events.
const INTERVAL: Duration = Duration::from_millis(250);

/// A phase that has begun. Dropped without [`Running::finish`], it ends silently: the failure is reported by the caller.
pub(crate) struct Running<'a> {
    events: &'a Events,
    phase: Phase,
    since: Instant,
}

pub(crate) fn start(events: &Events, phase: Phase, subject: impl Into<String>) -> Running<'_> {
    events.emit(EventKind::PhaseStarted { phase, subject: subject.into() });
    Running { events, phase, since: Instant::now() }
}

impl Running<'_> {
    pub(crate) fn finish(self, bytes: Option<u64>) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.events.emit(EventKind::PhaseFinished { phase: self.phase, seconds, bytes });
    }
}

/// The running figures of the write phase. Counted on the hashing thread, told by the writing one.
pub(crate) struct Meter<'a> {
    events: &'a Events,
    total: Option<u64>,
    received: AtomicU64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(events: &'a Events, total: Option<u64>) -> Self {
        Self { events, total, received: AtomicU64::new(0) }
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn teller(&self) -> Teller<'_> {
        Teller { meter: self, last: Instant::now(), told: None }
    }
}

/// Tells a [`Meter`]'s figures now and then.
pub(crate) struct Teller<'m> {
    meter: &'m Meter<'m>,
    last: Instant,
    told: Option<(u64, u64)>,
}

impl Teller<'_> {
    /// Emits the figures if they changed and the last ones are old enough. `written` is what of the disk is covered.
    pub(crate) fn tell(&mut self, written: u64) {
        if self.last.elapsed() >= INTERVAL {
            self.tell_now(written);
        }
    }

    pub(crate) fn tell_now(&mut self, written: u64) {
        let done = self.meter.received.load(Ordering::Relaxed);
        if self.told == Some((done, written)) {
            return;
        }
        self.told = Some((done, written));
        self.last = Instant::now();
        let total = self.meter.total;
        self.meter.events.emit(EventKind::Progress {
            phase: Phase::Write,
            done,
            total,
            written: Some(written),
        });
    }
}

/// Tells how far a phase is, of which the total is known.
pub(crate) struct Pace<'a> {
    events: &'a Events,
    phase: Phase,
    total: u64,
    last: Instant,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(events: &'a Events, phase: Phase, total: u64) -> Self {
        Self { events, phase, total, last: Instant::now() }
    }

    /// Emits the figure if the last one is old enough, or if it is the last.
    pub(crate) fn tell(&mut self, done: u64) {
        if self.last.elapsed() >= INTERVAL || done >= self.total {
            self.last = Instant::now();
            let (phase, total) = (self.phase, Some(self.total));
            self.events.emit(EventKind::Progress { phase, done, total, written: None });
        }
    }
}
