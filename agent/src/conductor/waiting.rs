//! What the console says while the conductor does not answer: a line when something changes, and one a minute.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::span;

/// How often the same reason is told again.
const AGAIN: Duration = Duration::from_secs(60);
/// Two reasons that take turns (two URLs, say) are not told more often than this.
const SHORTEST: Duration = Duration::from_secs(10);

/// Remembers since when the conductor does not answer, and what was told about it.
#[derive(Default)]
pub(super) struct Waiting {
    since: Option<Instant>,
    attempts: u32,
    told: Option<(Instant, String)>,
}

impl Waiting {
    /// Another failure; returns the line that is due, if one is.
    pub(super) fn failed(&mut self, reason: &str) -> Option<String> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        self.attempts = self.attempts.saturating_add(1);
        let due = match &self.told {
            None => true,
            Some((at, before)) => now.duration_since(*at) >= if before == reason { AGAIN } else { SHORTEST },
        };
        if !due {
            return None;
        }
        self.told = Some((now, reason.to_owned()));
        let waited = now.duration_since(since).as_secs();
        Some(match waited {
            0 => format!("waiting for the conductor: {reason}"),
            _ => format!(
                "still waiting for the conductor, for {} ({} attempts): {reason}",
                span(waited),
                self.attempts
            ),
        })
    }

    /// It answers; returns the line that is due, if its silence was told.
    pub(super) fn succeeded(&mut self) -> Option<String> {
        let Waiting { since, told, .. } = std::mem::take(self);
        let waited = Instant::now().duration_since(since?).as_secs();
        told.map(|_| format!("the conductor answers again, after {}", span(waited)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reason_is_told_once_a_minute_and_a_new_one_soon() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.succeeded(), None);
        assert_eq!(waiting.failed("refused").as_deref(), Some("waiting for the conductor: refused"));
        let mut lines = Vec::new();
        for second in 1..=600 {
            tokio::time::advance(Duration::from_secs(1)).await;
            lines.extend(waiting.failed(if second < 300 { "refused" } else { "timed out" }));
        }
        assert!((9..=11).contains(&lines.len()), "{lines:#?}");
        assert!(lines[0].contains("for 1 min (61 attempts): refused"), "{}", lines[0]);
        assert!(lines.last().unwrap().contains("timed out"));
        assert_eq!(waiting.succeeded().as_deref(), Some("the conductor answers again, after 10 min"));
        assert_eq!(waiting.succeeded(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn reasons_that_take_turns_do_not_flood() {
        let mut waiting = Waiting::default();
        let mut lines = 0;
        for second in 0..120 {
            lines += usize::from(waiting.failed(if second % 2 == 0 { "a" } else { "b" }).is_some());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!((8..=13).contains(&lines), "{lines}");
    }
}
