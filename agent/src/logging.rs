//! Logging: lines on standard error or on the consoles, and the last ones kept in memory for `log.collect_system_logs`.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::init::Console;
use crate::log_line::{self, CleanWriter, Colours};
use crate::secrets::Secrets;

/// How much of the log is kept, in bytes: a whole deploy, with room, and little beside an image.
const RING_BYTES: usize = 512 * 1024;

/// The last lines of the log, without secrets; clones share them.
#[derive(Clone, Default)]
pub struct LogRing {
    ring: Arc<Mutex<Ring>>,
    secrets: Secrets,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Every line goes there as well.
    file: Option<File>,
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

    /// What no line may hold.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    fn push(&self, line: &[u8]) {
        // Cutting a line first could leave half of a secret.
        let line = log_line::clean(&self.secrets.hide(line), Colours::None).into_owned();
        let mut ring = self.lock();
        if let Some(file) = &mut ring.file
            && file.write_all(&line).is_err()
        {
            ring.file = None; // a full disk: not worth a line a line
        }
        ring.bytes = ring.bytes.saturating_add(line.len());
        ring.lines.push_back(line);
        while ring.bytes > RING_BYTES {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.bytes = ring.bytes.saturating_sub(oldest.len());
        }
    }

    /// Lets every line go to a file as well, those first that are there already.
    fn write_to(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        file.write_all(self.text().as_bytes())?;
        self.lock().file = Some(file);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
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

/// One log line on its way to people: it is passed on as a whole, without secrets.
struct Hiding<W: Write> {
    to: W,
    secrets: Secrets,
    line: Vec<u8>,
}

impl<W: Write> Hiding<W> {
    fn new(to: W, secrets: &Secrets) -> Self {
        Self { to, secrets: secrets.clone(), line: Vec::new() }
    }
}

impl<W: Write> Write for Hiding<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Drop for Hiding<W> {
    fn drop(&mut self) {
        // A closed terminal must not end the agent.
        let _ = self.to.write_all(&self.secrets.hide(&self.line)).and_then(|()| self.to.flush());
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

/// What is logged here is also told by events, which the consoles show.
const SHOWN_AS_EVENTS: [&str; 3] = ["ferric_agent::progress", "ferric_agent::command::executor", "imaging"];

/// Where people read the log.
#[derive(Clone, Debug)]
pub enum Output {
    /// Standard error: every line.
    Stderr,
    /// The consoles of a ramdisk: they show events in words of their own, so only what else is odd.
    Console(Console),
}

impl Output {
    fn targets(&self, filter: Option<&str>, debug: bool) -> Targets {
        match self {
            Output::Console(_) if filter.is_none() && !debug => SHOWN_AS_EVENTS
                .into_iter()
                .fold(Targets::new().with_default(Level::WARN), |targets, target| {
                    targets.with_target(target, LevelFilter::OFF)
                }),
            Output::Console(_) | Output::Stderr => targets(filter, debug),
        }
    }

    fn writer(&self, secrets: &Secrets) -> BoxMakeWriter {
        let secrets = secrets.clone();
        match self {
            Output::Stderr => {
                let colours = if self.is_terminal() { Colours::Keep } else { Colours::None };
                BoxMakeWriter::new(move || Hiding::new(CleanWriter { to: io::stderr(), colours }, &secrets))
            }
            Output::Console(console) => {
                let console = console.clone();
                BoxMakeWriter::new(move || {
                    let to = CleanWriter { to: console.log_writer(), colours: Colours::None };
                    Hiding::new(to, &secrets)
                })
            }
        }
    }

    fn is_terminal(&self) -> bool {
        match self {
            Output::Stderr => io::IsTerminal::is_terminal(&io::stderr()),
            Output::Console(_) => false,
        }
    }
}

/// Logging that runs.
pub struct Logging {
    /// The kept lines.
    pub ring: LogRing,
    /// Chooses anew which lines are wanted.
    refilter: Box<dyn Fn(bool) + Send>,
}

impl Logging {
    /// Applies what the configuration says, once it is known: how much to log, and a file to write to.
    pub fn configure(&self, debug: bool, file: Option<&Path>) {
        (self.refilter)(debug);
        if let Some(path) = file
            && let Err(error) = self.ring.write_to(path)
        {
            tracing::warn!(%error, file = %path.display(), "the log file (options log_file, log_dir) can not be written");
        }
    }
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(output: &Output, filter: Option<&str>, debug: bool) -> Logging {
    let ring = LogRing::default();
    let kept = ring.clone();
    let console =
        tracing_subscriber::fmt::layer().with_writer(output.writer(ring.secrets())).with_target(false);
    // Colours on a terminal only, and there the subscriber itself honours NO_COLOR.
    let console = if output.is_terminal() { console } else { console.with_ansi(false) };
    let memory = tracing_subscriber::fmt::layer()
        .with_writer(move || RingWriter { ring: kept.clone(), line: Vec::new() })
        .with_ansi(false);
    let (shown, show) = reload::Layer::new(output.targets(filter, debug));
    let (remembered, remember) = reload::Layer::new(targets(filter, debug));
    let started = tracing_subscriber::registry()
        .with(console.with_filter(shown))
        .with(memory.with_filter(remembered))
        .try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    let (output, filter) = (output.clone(), filter.map(str::to_owned));
    let refilter = Box::new(move |debug| {
        // An error says that logging has ended.
        let _ = show.reload(output.targets(filter.as_deref(), debug));
        let _ = remember.reload(targets(filter.as_deref(), debug));
    });
    Logging { ring, refilter }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_show_what_is_odd_and_nothing_twice() {
        let console = Console::to_writer(&events::Events::default(), io::sink());
        let output = Output::Console(console);
        let quiet = output.targets(None, false);
        assert!(quiet.would_enable("ferric_agent::startup", &Level::WARN));
        assert!(!quiet.would_enable("ferric_agent::startup", &Level::INFO));
        assert!(!quiet.would_enable("imaging::source::http", &Level::WARN));
        assert!(!quiet.would_enable("ferric_agent::progress", &Level::ERROR));
        assert!(output.targets(None, true).would_enable("imaging", &Level::DEBUG));
        assert!(!targets(None, true).would_enable("hyper", &Level::INFO));
        assert!(targets(Some("hyper=trace"), false).would_enable("hyper", &Level::TRACE));
    }

    #[test]
    fn no_line_holds_a_known_secret() {
        let ring = LogRing::default();
        ring.secrets().add("0123456789abcdef");
        ring.push(b"token 0123456789abcdef received\n");
        assert_eq!(ring.text(), "token *** received\n");
        let mut shown = Vec::new();
        Hiding::new(&mut shown, ring.secrets())
            .write_all(b"calling https://u:p@h/ 0123456789abcdef\n")
            .unwrap();
        assert_eq!(shown, b"calling https://***@h/ ***\n");
    }

    #[test]
    fn a_log_file_gets_the_lines_from_before_it_was_named_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/agent.log");
        let ring = LogRing::default();
        ring.push(b"early\n");
        ring.write_to(&path).unwrap();
        ring.push(b"late\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "early\nlate\n");
    }

    #[test]
    fn kept_lines_hold_no_control_characters() {
        let ring = LogRing::default();
        let mut writer = RingWriter { ring: ring.clone(), line: Vec::new() };
        writer.write_all(b"answer: \x1b]0;x\x07\n2026-01-01 INFO forged\n").unwrap();
        drop(writer);
        assert_eq!(ring.text(), "answer: \\u{1b}]0;x\\u{7}\\n2026-01-01 INFO forged\n");
    }

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
