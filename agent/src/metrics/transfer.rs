//! Bytes of images: read, written, verified. Progress events tell how far an image is; counters grow by the difference.

use std::sync::{Mutex, PoisonError};

use events::{EventKind, Phase};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

/// Counters of bytes.
pub(super) struct Transfer {
    read: Counter,
    written: Counter,
    verified: Counter,
    image: Mutex<Image>,
}

/// How far the image at hand is.
#[derive(Default)]
struct Image {
    read: u64,
    written: u64,
}

impl Transfer {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let counter = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Counter::default();
            registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
            counter
        };
        Self {
            read: counter(registry, "image_read", "Bytes of images read from their servers"),
            written: counter(registry, "image_written", "Bytes of disks covered by images"),
            verified: counter(registry, "image_verified", "Bytes of images whose digest was right"),
            image: Mutex::default(),
        }
    }

    pub(super) fn event(&self, kind: &EventKind) {
        // Numbers only: valid whatever happened under the lock.
        let mut image = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            EventKind::PhaseStarted { phase: Phase::Write, .. } => *image = Image::default(),
            EventKind::Progress { phase: Phase::Write, done, written, .. } => {
                advance(&self.read, &mut image.read, *done);
                advance(&self.written, &mut image.written, written.unwrap_or(*done));
            }
            EventKind::PhaseFinished { phase: Phase::Write, bytes: Some(bytes), .. } => {
                // The bytes of the disk; what was read since the last progress event is not told, and is the same or less.
                advance(&self.written, &mut image.written, *bytes);
            }
            EventKind::PhaseFinished { phase: Phase::Verify, .. } => {
                self.verified.inc_by(image.read);
            }
            _ => {}
        }
    }
}

/// Grows a counter to a new mark. A mark below the one before (a transfer that began anew) counts from there.
fn advance(counter: &Counter, mark: &mut u64, now: u64) {
    counter.inc_by(now.saturating_sub(*mark));
    *mark = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_grow_by_what_is_new() {
        let transfer = Transfer::register(&mut Registry::default());
        let progress = |done, written| {
            transfer.event(&EventKind::Progress { phase: Phase::Write, done, total: None, written });
        };
        let phase = |finished: Phase| {
            transfer.event(&EventKind::PhaseFinished { phase: finished, seconds: 1.0, bytes: None });
        };
        for _ in 0..2 {
            transfer.event(&EventKind::PhaseStarted { phase: Phase::Write, subject: "u".into() });
            progress(10, None);
            progress(30, Some(100));
            progress(20, Some(100)); // began anew
            progress(40, Some(200));
            phase(Phase::Write);
            phase(Phase::Verify);
        }
        assert_eq!((transfer.read.get(), transfer.written.get(), transfer.verified.get()), (100, 400, 80));
    }
}
