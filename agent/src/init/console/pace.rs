//! How often progress is worth a line on a console.

use std::time::{Duration, Instant};

use events::Phase;

/// A serial line at 9600 baud has better things to do than to show every percent.
const INTERVAL: Duration = Duration::from_secs(2);
const MIB: f64 = 1024.0 * 1024.0;

/// Remembers the last progress line.
#[derive(Default)]
pub(super) struct Pace {
    last: Option<(Phase, u64, Instant)>,
}

impl Pace {
    /// The line for this progress, if one is due.
    pub(super) fn progress(
        &mut self,
        phase: Phase,
        done: u64,
        total: Option<u64>,
        now: Instant,
    ) -> Option<String> {
        let before = self.last.filter(|(last, ..)| *last == phase);
        if before.is_some_and(|(.., at)| now.saturating_duration_since(at) < INTERVAL) {
            return None;
        }
        self.last = Some((phase, done, now));
        let mut text = format!("{phase}: {}", mebibytes(done));
        if let Some(total) = total.filter(|total| *total > 0) {
            let percent = u128::from(done) * 100 / u128::from(total);
            text.push_str(&format!(" of {} MiB ({percent} %)", mebibytes(total)));
        } else {
            text.push_str(" MiB");
        }
        if let Some((_, earlier, at)) = before {
            let seconds = now.saturating_duration_since(at).as_secs_f64();
            text.push_str(&format!(", {:.1} MiB/s", float(done.saturating_sub(earlier)) / MIB / seconds));
        }
        Some(text)
    }

    /// Another event came between: the next progress may be shown at once.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}

/// For display only: what is lost beyond 2^53 bytes a second nobody sees.
#[allow(clippy::cast_precision_loss)]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_appears_every_two_seconds_with_its_rate() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let mib = 1024 * 1024;
        assert_eq!(
            pace.progress(Phase::Write, 0, Some(400 * mib), start).as_deref(),
            Some("write: 0 of 400 MiB (0 %)")
        );
        assert_eq!(pace.progress(Phase::Write, mib, None, start + Duration::from_secs(1)), None);
        let later = start + Duration::from_secs(4);
        assert_eq!(
            pace.progress(Phase::Write, 100 * mib, Some(400 * mib), later).as_deref(),
            Some("write: 100 of 400 MiB (25 %), 25.0 MiB/s")
        );
        assert!(pace.progress(Phase::Verify, 0, None, later).is_some());
    }
}
