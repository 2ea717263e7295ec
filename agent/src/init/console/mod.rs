//! What a person in front of the machine reads: who it is, which controller it belongs to, what it is doing, what failed.
//!
//! Every line goes to every console the kernel knows (`/sys/class/tty/console/active`), for `/dev/console` is only the last
//! of them: a failure must be readable on the screen and on the serial line. Each console has a thread and a bounded
//! queue of its own, so that a serial line that nobody drains holds nobody up. Plain lines only, no cursor tricks.

mod describe;
mod identity;
mod pace;
mod sink;

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use events::{EventKind, Events};
use sys::Host;

pub use identity::Identity;
use pace::Pace;
use sink::Sink;

/// How long a fatal message may take to leave through a slow serial line.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// The longest line that is shown; longer ones are cut.
const LONGEST_LINE: usize = 1000;

/// The consoles of this machine. Clones share them.
#[derive(Clone)]
pub struct Console(Arc<Shared>);

struct Shared {
    sinks: Vec<Sink>,
    pace: Mutex<Pace>,
    started: Instant,
    uptime: Duration,
}

impl Console {
    /// Opens every console and shows each event on them from now on. Needs a mounted `/dev` and `/sys`.
    pub fn start(host: &Host, events: &Events) -> Self {
        let sinks = names(host).iter().filter_map(|name| Sink::start(host, name)).collect();
        let console = Self::new(sinks, uptime(host));
        let listening = console.clone();
        events.listen(move |event| listening.show(&event.kind));
        console
    }

    /// Consoles that write somewhere else: for an agent that is no init, and for tests.
    pub fn to_writer(events: &Events, writer: impl Write + Send + 'static) -> Self {
        let console = Self::new(Sink::writing_to("writer", writer).into_iter().collect(), Duration::ZERO);
        let listening = console.clone();
        events.listen(move |event| listening.show(&event.kind));
        console
    }

    fn new(sinks: Vec<Sink>, uptime: Duration) -> Self {
        Self(Arc::new(Shared { sinks, pace: Mutex::default(), started: Instant::now(), uptime }))
    }

    /// One dated line: what the agent is doing now.
    pub fn line(&self, text: &str) {
        let seconds = (self.0.uptime + self.0.started.elapsed()).as_secs_f64();
        for line in text.lines() {
            self.raw(&format!("[{seconds:8.1}] {line}"));
        }
    }

    /// Who this machine is, in a block that stands out.
    pub fn banner(&self, identity: &Identity) {
        for line in identity.lines() {
            self.raw(&line);
        }
    }

    /// A writer for log lines, each of which appears as it is. For `tracing_subscriber`'s `with_writer`.
    pub fn log_writer(&self) -> LogWriter {
        LogWriter { console: self.clone(), partial: Vec::new() }
    }

    /// Waits until all lines have left, two seconds at most.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_LIMIT;
        for sink in &self.0.sinks {
            sink.flush(deadline);
        }
    }

    /// Shows panics on the consoles, whichever thread they happen on.
    pub fn show_panics(&self) {
        let console = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            tracing::error!(thread, %panic, "panic");
            console.line(&format!("PANIC in thread {thread}: {panic}"));
            console.line("this is a defect of ferric-agent: please report it with these lines");
        }));
    }

    /// One line without a date.
    fn raw(&self, line: &str) {
        let line: Arc<str> = clean(line).into();
        for sink in &self.0.sinks {
            sink.send(line.clone());
        }
    }

    fn show(&self, kind: &EventKind) {
        let text = {
            let mut pace = self.0.pace.lock().unwrap_or_else(PoisonError::into_inner);
            match kind {
                EventKind::Progress { phase, done, total, .. } => {
                    pace.progress(*phase, *done, *total, Instant::now())
                }
                other => {
                    pace.reset();
                    describe::event(other)
                }
            }
        };
        if let Some(text) = text {
            self.line(&text);
        }
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.sinks.iter().map(Sink::name)).finish()
    }
}

/// Writes log lines to the consoles: a line at a time, whatever the pieces it gets.
#[derive(Debug)]
pub struct LogWriter {
    console: Console,
    partial: Vec<u8>,
}

impl Clone for LogWriter {
    fn clone(&self) -> Self {
        self.console.log_writer() // what one log line has begun does not belong to another
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            self.partial.extend_from_slice(piece);
            if pieces.peek().is_some() {
                self.flush()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.partial.is_empty() {
            self.console.raw(&String::from_utf8_lossy(&self.partial));
            self.partial.clear();
        }
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let _ = self.flush(); // writes into memory only
    }
}

/// The consoles the kernel writes to, or `/dev/console` where it does not say.
fn names(host: &Host) -> Vec<String> {
    let active = host.attribute("/sys/class/tty/console/active").unwrap_or_default();
    let names: Vec<_> = active.split_whitespace().map(str::to_owned).collect();
    if names.is_empty() { vec!["console".into()] } else { names }
}

fn uptime(host: &Host) -> Duration {
    let text = host.attribute("/proc/uptime").unwrap_or_default();
    let seconds = text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0);
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Takes out what would move a cursor or change a terminal's mode: error texts quote servers and programs.
fn clean(line: &str) -> String {
    let mut clean: String =
        line.chars().take(LONGEST_LINE).map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect();
    clean.push('\n');
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::Phase;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn events_become_lines_and_control_characters_do_not_get_through() {
        let (events, screen) = (Events::default(), Screen::default());
        let console = Console::to_writer(&events, screen.clone());
        events.emit(EventKind::Notice { message: "hello \x1b[2Jworld".into() });
        for done in 0..100 {
            events.emit(EventKind::Progress { phase: Phase::Write, done, total: Some(100), written: None });
        }
        console.flush();
        let text = screen.text();
        assert!(text.contains("hello  [2Jworld\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.contains("write:")).count(), 1, "{text}");
    }

    #[test]
    fn log_lines_come_whole_whatever_their_pieces() {
        let screen = Screen::default();
        let console = Console::to_writer(&Events::default(), screen.clone());
        let mut writer = console.log_writer();
        writer.write_all(b"one\ntw").unwrap();
        writer.write_all(b"o\n").unwrap();
        writer.write_all(b"three").unwrap();
        drop(writer);
        console.flush();
        assert_eq!(screen.text(), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_console_that_nobody_drains_holds_nobody_up() {
        struct Stuck;
        impl Write for Stuck {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                loop {
                    std::thread::park();
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let console = Console::to_writer(&Events::default(), Stuck);
        let started = Instant::now();
        for number in 0..5000 {
            console.line(&number.to_string());
        }
        console.flush();
        assert!(started.elapsed() < FLUSH_LIMIT + Duration::from_secs(5));
    }

    #[test]
    fn every_console_of_the_kernel_is_used() {
        let root = tempfile::tempdir().unwrap();
        let tty = root.path().join("sys/class/tty/console");
        std::fs::create_dir_all(&tty).unwrap();
        std::fs::create_dir_all(root.path().join("dev")).unwrap();
        std::fs::write(tty.join("active"), "tty0 ttyS0\n").unwrap();
        for name in ["tty0", "ttyS0"] {
            std::fs::write(root.path().join("dev").join(name), "").unwrap();
        }
        let events = Events::default();
        let console = Console::start(&sys::fake::host(root.path()), &events);
        events.emit(EventKind::Failed { phase: Phase::Verify, message: "digest differs".into() });
        console.flush();
        for name in ["tty0", "ttyS0"] {
            let text = std::fs::read_to_string(root.path().join("dev").join(name)).unwrap();
            assert!(text.contains("FAILED") && text.contains("digest differs"), "{name}: {text}");
        }
    }
}
