//! Showing the progress of `ferric-agent write`: JSON lines on stdout, or a bar on stderr. Listens to events; decides
//! nothing.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::ValueEnum;
use events::{Event, EventKind, Events, Phase};

use super::offline::{human_bytes, print_json, talk};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// One JSON object per event on stdout.
    Json,
    /// A line on stderr that redraws itself, with the events worth keeping above it.
    Bar,
    /// Not at all.
    None,
}

impl ProgressMode {
    /// A bar where somebody can see it.
    pub(crate) fn or_default(mode: Option<Self>) -> Self {
        mode.unwrap_or(if io::stderr().is_terminal() { Self::Bar } else { Self::None })
    }

    /// Shows the events of a stream from now on.
    pub(crate) fn follow(self, events: &Events) {
        match self {
            Self::Json => events.listen(|event| {
                // A reader that went away must not stop a write that is under way.
                let _ = print_json(event, false);
            }),
            Self::Bar => {
                let bar = Mutex::new(Bar::default());
                events.listen(move |event| bar.lock().unwrap_or_else(PoisonError::into_inner).show(event));
            }
            Self::None => {}
        }
    }
}

/// The line that redraws itself.
#[derive(Default)]
struct Bar {
    phase: Option<(Phase, Instant)>,
    drawn: bool,
}

impl Bar {
    fn show(&mut self, event: &Event) {
        match &event.kind {
            EventKind::PhaseStarted { phase, subject } => {
                self.phase = Some((*phase, Instant::now()));
                self.keep(&format!("{phase}: {subject}"));
            }
            EventKind::Progress { phase, done, total, .. } => {
                let seconds = self.phase.map_or(0.0, |(_, since)| since.elapsed().as_secs_f64());
                let line = progress_line(*phase, *done, *total, seconds);
                // To the start of the line, and clear what is longer.
                let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
                self.drawn = true;
            }
            EventKind::PhaseFinished { phase, seconds, bytes } => {
                let bytes = bytes.map(|bytes| format!(", {}", human_bytes(bytes))).unwrap_or_default();
                self.keep(&format!("{phase}: done in {seconds:.1} s{bytes}"));
            }
            EventKind::Retrying { phase, reason, attempt, attempts, delay_seconds, resume_at } => {
                let from = human_bytes(*resume_at);
                self.keep(&format!(
                    "{phase}: {reason}; attempt {attempt} of {attempts} in {delay_seconds:.0} s, from {from}"
                ));
            }
            EventKind::Notice { message } => self.keep(message),
            // The error itself is printed at the end, with its exit code.
            EventKind::Failed { .. } => self.clear(),
            EventKind::AgentStarted { .. }
            | EventKind::CommandStarted { .. }
            | EventKind::CommandFinished { .. }
            | EventKind::Unknown => {}
        }
    }

    fn keep(&mut self, line: &str) {
        self.clear();
        talk(line);
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

const WIDTH: u64 = 30;

fn progress_line(phase: Phase, done: u64, total: Option<u64>, seconds: f64) -> String {
    let rate = if seconds > 0.0 { bytes_per_second(done, seconds) } else { 0 };
    let speed = format!("{}/s", human_bytes(rate));
    match total.filter(|total| *total > 0) {
        None => format!("{phase}: {} {speed}", human_bytes(done)),
        Some(total) => {
            let done = done.min(total);
            let part =
                |of: u64| u64::try_from(u128::from(done) * u128::from(of) / u128::from(total)).unwrap_or(of);
            let filled = usize::try_from(part(WIDTH)).unwrap_or(0);
            let left = usize::try_from(WIDTH).unwrap_or(0).saturating_sub(filled);
            let eta = (total - done).checked_div(rate).map(|s| format!(", {s} s left")).unwrap_or_default();
            format!(
                "{phase}: [{}{}] {:>3} % of {} {speed}{eta}",
                "#".repeat(filled),
                ".".repeat(left),
                part(100),
                human_bytes(total),
            )
        }
    }
}

fn bytes_per_second(bytes: u64, seconds: f64) -> u64 {
    let milliseconds = std::time::Duration::from_secs_f64(seconds.clamp(0.001, 1e9)).as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / milliseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_part_rate_and_time_left() {
        assert_eq!(
            progress_line(Phase::Write, 512 << 20, Some(1 << 30), 4.0),
            "write: [###############...............]  50 % of 1.0 GiB 128.0 MiB/s, 4 s left"
        );
        assert_eq!(progress_line(Phase::Write, 1 << 20, None, 1.0), "write: 1.0 MiB 1.0 MiB/s");
        let full = progress_line(Phase::Verify, 20, Some(10), 0.0);
        assert!(full.contains("100 %"), "{full}");
    }
}
