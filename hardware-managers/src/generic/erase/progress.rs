//! How far the disks of one step are written over, all together, and how long it will still take.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use disk::Target;
use disk::erase::Outcome;
use events::{EventKind, Phase};
use hwm::Context;

use super::options::EraseOptions;

const EVENT_DISTANCE: Duration = Duration::from_millis(500);
const NOTICE_DISTANCE: Duration = Duration::from_secs(60);

/// Counts what several threads write.
pub(super) struct Meter<'a> {
    cx: &'a Context,
    state: Mutex<State>,
}

struct State {
    /// Bytes that are to go over.
    total: u64,
    done: u64,
    /// When the first byte went over.
    begun: Option<Instant>,
    next_event: Instant,
    next_notice: Instant,
}

impl<'a> Meter<'a> {
    /// A meter for disks none of which has erased itself yet.
    pub(super) fn new(cx: &'a Context, targets: &[Target], options: &EraseOptions) -> Self {
        let total = targets.iter().map(|target| options.overwrite.work(target.size_bytes())).sum();
        let now = Instant::now();
        let state = State {
            total,
            done: 0,
            begun: None,
            next_event: now,
            next_notice: now + Duration::from_secs(10), // the first estimate comes early
        };
        Self { cx, state: Mutex::new(state) }
    }

    /// A disk that has erased itself needs no writing.
    pub(super) fn settle(
        &self,
        target: &Target,
        options: &EraseOptions,
        outcome: &Result<Outcome, disk::Error>,
    ) {
        if matches!(outcome, Ok(Outcome::Erased(_))) {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.total = state.total.saturating_sub(options.overwrite.work(target.size_bytes()));
        }
    }

    /// So many bytes more went over.
    pub(super) fn add(&self, bytes: u64) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = *state.begun.get_or_insert(now);
        state.done = state.done.saturating_add(bytes);
        let (done, total) = (state.done, state.total.max(state.done));
        if now >= state.next_event || done == total {
            state.next_event = now + EVENT_DISTANCE;
            let (total, written) = (Some(total), None);
            self.cx.events.emit(EventKind::Progress { phase: Phase::Erase, done, total, written });
        }
        if now >= state.next_notice {
            state.next_notice = now + NOTICE_DISTANCE;
            let message = estimate(done, total, now.duration_since(begun));
            self.cx.events.emit(EventKind::Notice { message });
        }
    }
}

/// `erasing: 25 % of 120 GiB written, 90 MiB a second, about 17 minutes left`.
fn estimate(done: u64, total: u64, elapsed: Duration) -> String {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    let seconds = elapsed.as_secs().max(1);
    let rate = (done / seconds).max(1);
    let left = (total - done.min(total)) / rate;
    let left = match left {
        0..120 => format!("{left} seconds"),
        120..7200 => format!("{} minutes", left.div_ceil(60)),
        _ => format!("{} hours", left.div_ceil(3600)),
    };
    format!(
        "erasing: {percent} % of {} GiB written, {} MiB a second, about {left} left",
        total.div_ceil(GIB),
        rate / MIB
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_in_units_that_people_use() {
        let gib = 1u64 << 30;
        assert_eq!(
            estimate(10 * gib, 40 * gib, Duration::from_secs(100)),
            "erasing: 25 % of 40 GiB written, 102 MiB a second, about 5 minutes left"
        );
        assert!(estimate(gib, 1000 * gib, Duration::from_secs(10)).ends_with("about 3 hours left"));
        assert!(estimate(gib, gib, Duration::ZERO).ends_with("about 0 seconds left"));
        assert!(estimate(0, 0, Duration::ZERO).contains("0 %"));
    }
}
