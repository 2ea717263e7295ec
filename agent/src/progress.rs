//! Listens to events and writes log lines: every milestone, and progress once a second at the most.
//!
//! Events go to people three ways: these lines, the console (`init::console`), and the event endpoint (`api`).

use std::sync::Mutex;
use std::time::{Duration, Instant};

use events::{Event, EventKind, Events};

const PROGRESS_DISTANCE: Duration = Duration::from_secs(1);

/// Writes a log line for each event from now on.
pub fn log_events(events: &Events) {
    let last = Mutex::new(None);
    events.listen(move |event| {
        if matches!(event.kind, EventKind::Progress { .. }) && !due(&last) {
            return;
        }
        log(event);
    });
}

/// Whether a second has passed since it was last due.
fn due(last: &Mutex<Option<Instant>>) -> bool {
    let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let now = Instant::now();
    if last.is_some_and(|last| now.duration_since(last) < PROGRESS_DISTANCE) {
        return false;
    }
    *last = Some(now);
    true
}

fn log(event: &Event) {
    match &event.kind {
        EventKind::AgentStarted { version } => tracing::info!(version, "agent started"),
        EventKind::Notice { message } => tracing::info!("{message}"),
        // The executor logs commands itself.
        EventKind::CommandStarted { .. } | EventKind::CommandFinished { .. } | EventKind::Unknown => {}
        EventKind::PhaseStarted { phase, subject } => tracing::info!(%phase, subject, "phase started"),
        EventKind::Progress { phase, done, total, written: _ } => match total.filter(|total| *total > 0) {
            Some(total) => {
                let percent = done.saturating_mul(100) / total;
                tracing::info!(%phase, done, total, percent, "progress");
            }
            None => tracing::info!(%phase, done, "progress"),
        },
        EventKind::PhaseFinished { phase, seconds, bytes } => {
            tracing::info!(%phase, seconds, bytes, "phase finished");
        }
        EventKind::Retrying { phase, reason, attempt, attempts: _, delay_seconds, resume_at } => {
            tracing::warn!(%phase, reason, attempt, delay_seconds, resume_at, "retrying");
        }
        EventKind::Failed { phase, message } => tracing::error!(%phase, message, "failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_due_once_a_second() {
        let last = Mutex::new(None);
        assert!(due(&last));
        assert!(!due(&last));
        *last.lock().unwrap() = Instant::now().checked_sub(PROGRESS_DISTANCE);
        assert!(due(&last));
    }
}
