//! Logging: lines on standard error, and the last ones kept in memory for `log.collect_system_logs`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How much of the log is kept, in bytes: a whole deploy, with room, and little beside an image.
const RING_BYTES: usize = 512 * 1024;

/// The last lines of the log; clones share them.
#[derive(Clone, Default)]
pub struct LogRing(Arc<Mutex<Ring>>);

#[derive(Default)]
struct Ring {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl LogRing {
    /// The kept lines.
    pub fn text(&self) -> String {
        let ring = self.lock();
        let mut text = String::with_capacity(ring.bytes);
        for line in &ring.lines {
            text.push_str(&String::from_utf8_lossy(line));
        }
        text
    }

    fn push(&self, line: &[u8]) {
        let mut ring = self.lock();
        ring.bytes = ring.bytes.saturating_add(line.len());
        ring.lines.push_back(line.to_vec());
        while ring.bytes > RING_BYTES {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.bytes = ring.bytes.saturating_sub(oldest.len());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One log line on its way into the ring.
struct RingWriter {
    ring: LogRing,
    line: Vec<u8>,
}

impl Write for RingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for RingWriter {
    fn drop(&mut self) {
        self.ring.push(&self.line);
    }
}

/// Which lines are wanted: a filter such as `info,ferric_agent=debug`, else by `debug`.
fn targets(filter: Option<&str>, debug: bool) -> Targets {
    if let Some(parsed) = filter.and_then(|text| text.parse().ok()) {
        return parsed;
    }
    let level = if debug { Level::DEBUG } else { Level::INFO };
    // Libraries talk only when something is odd.
    let ours = ["ferric_agent", "hardware_managers", "hwm", "imaging", "disk", "boot", "sys", "events"];
    Targets::new().with_default(Level::WARN).with_targets(ours.map(|name| (name, level)))
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(filter: Option<&str>, debug: bool) -> LogRing {
    let ring = LogRing::default();
    let kept = ring.clone();
    let terminal = io::IsTerminal::is_terminal(&io::stderr());
    let console =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(terminal).with_target(false);
    let memory = tracing_subscriber::fmt::layer()
        .with_writer(move || RingWriter { ring: kept.clone(), line: Vec::new() })
        .with_ansi(false);
    let started = tracing_subscriber::registry()
        .with(console.with_filter(targets(filter, debug)))
        .with(memory.with_filter(targets(filter, debug)))
        .try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    ring
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_last_lines_within_its_bound() {
        let ring = LogRing::default();
        let line = vec![b'x'; 1000];
        for _ in 0..2000 {
            let mut writer = RingWriter { ring: ring.clone(), line: Vec::new() };
            writer.write_all(&line).unwrap();
            writer.write_all(b"\n").unwrap();
        }
        let mut last = RingWriter { ring: ring.clone(), line: Vec::new() };
        last.write_all(b"the end").unwrap();
        drop(last);
        let text = ring.text();
        assert!(text.len() <= RING_BYTES && text.len() > RING_BYTES / 2, "{}", text.len());
        assert!(text.ends_with("\nthe end"));
    }
}
