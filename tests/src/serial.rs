//! Watching a machine's serial console through the file that QEMU writes it to.
//!
//! A file, not a pipe: the whole log is there to read when a test has failed, and the same watcher serves machines that
//! the controller started. Terminal escapes (grub, firmware and iPXE are full of them) are taken out of the lines.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How many lines of the log an error shows.
const TAIL_LINES: usize = 40;

/// One line of the console, without line end and terminal escapes.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was seen complete; at most a tenth of a second after it was written.
    pub at: Instant,
    /// The text.
    pub text: String,
}

impl Line {
    /// The value of a `key=value` word in the line; values in double quotes may hold spaces.
    pub fn field(&self, key: &str) -> Option<&str> {
        let start = self.text.match_indices(key).find_map(|(at, _)| {
            let before = self.text.get(..at)?;
            let after = self.text.get(at + key.len()..)?.strip_prefix('=')?;
            (before.is_empty() || before.ends_with(' ')).then_some(after)
        })?;
        match start.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => start.split(' ').next(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    /// The line that has no end yet: a login prompt never gets one.
    partial: String,
    stop: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows a serial log file from its beginning; the file need not exist yet.
#[derive(Debug)]
pub struct Serial {
    path: PathBuf,
    shared: Arc<Shared>,
    follower: Option<JoinHandle<()>>,
}

impl Serial {
    /// Starts following `path` on a thread of its own.
    pub fn follow(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let shared = Arc::new(Shared::default());
        let follower = std::thread::spawn({
            let (path, shared) = (path.clone(), Arc::clone(&shared));
            move || follow(&path, &shared)
        });
        Self { path, shared, follower: Some(follower) }
    }

    /// The log file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many complete lines there are: the `from` of a later [`Self::wait_after`].
    pub fn len(&self) -> usize {
        self.shared.lock().lines.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first line so far that contains `text`.
    pub fn find(&self, text: &str) -> Option<Line> {
        self.shared.lock().lines.iter().find(|line| line.text.contains(text)).cloned()
    }

    /// Waits until a line contains `text`; lines from before the call count.
    ///
    /// # Errors
    /// `limit` has passed; the error shows the end of the console and where the whole of it is.
    pub fn wait_for(&self, text: &str, limit: Duration) -> Result<Line> {
        self.wait_after(0, text, limit)
    }

    /// As [`Self::wait_for`], looking only at the lines from number `from` on.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub fn wait_after(&self, from: usize, text: &str, limit: Duration) -> Result<Line> {
        let start = Instant::now();
        let mut next = from;
        let mut state = self.shared.lock();
        loop {
            if let Some(line) = state.lines.iter().skip(next).find(|line| line.text.contains(text)) {
                return Ok(line.clone());
            }
            next = next.max(state.lines.len());
            if state.lines.len() >= from && state.partial.contains(text) {
                return Ok(Line { at: Instant::now(), text: state.partial.clone() });
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                drop(state);
                bail!(
                    "waited {} s in vain for {text:?} on the serial console\n{}",
                    limit.as_secs(),
                    self.tail()
                );
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last lines, framed for an error message.
    pub fn tail(&self) -> String {
        let state = self.shared.lock();
        let skipped = state.lines.len().saturating_sub(TAIL_LINES);
        let mut text = format!("--- end of {} ({skipped} lines before it)\n", self.path.display());
        for line in state.lines.iter().skip(skipped) {
            let _ = writeln!(text, "| {}", line.text); // writing to a String can not fail
        }
        let _ = write!(text, "| {}\n---", state.partial);
        text
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        if let Some(follower) = self.follower.take() {
            let _ = follower.join(); // it ends within a tenth of a second; a panic of its own has been printed
        }
    }
}

fn follow(path: &Path, shared: &Shared) {
    let mut file = None;
    let mut buffer = vec![0; 64 * 1024];
    let mut cleaner = Cleaner::default();
    loop {
        if shared.lock().stop {
            return;
        }
        if file.is_none() {
            file = File::open(path).ok(); // not there yet
        }
        let count = match file.as_mut().map(|file| file.read(&mut buffer)) {
            Some(Ok(count)) => count,
            Some(Err(error)) if error.kind() != ErrorKind::Interrupted => return,
            _ => 0,
        };
        if count == 0 {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        let mut state = shared.lock();
        for byte in buffer.iter().take(count) {
            match cleaner.clean(*byte) {
                Some('\n') => {
                    let text = std::mem::take(&mut state.partial);
                    state.lines.push(Line { at: Instant::now(), text });
                }
                Some(character) => state.partial.push(character),
                None => {}
            }
        }
        shared.changed.notify_all();
    }
}

/// Takes terminal escapes and control characters out of a byte stream.
#[derive(Debug, Default)]
enum Cleaner {
    #[default]
    Text,
    Escape,
    /// Within `ESC [ ...`, which ends with a letter (ECMA-48, 5.4).
    Sequence,
}

impl Cleaner {
    fn clean(&mut self, byte: u8) -> Option<char> {
        match (&*self, byte) {
            (_, 0x1b) => *self = Self::Escape,
            (Self::Escape, b'[') => *self = Self::Sequence,
            (Self::Escape, _) | (Self::Sequence, 0x40..=0x7e) => *self = Self::Text,
            (Self::Sequence, _) => {}
            (Self::Text, b'\n') => return Some('\n'),
            (Self::Text, b'\t') => return Some(' '),
            (Self::Text, 0x20..=0x7e) => return Some(char::from(byte)),
            // Continuation bytes of UTF-8 are dropped, so that a character outside ASCII shows as one mark.
            (Self::Text, 0xc0..=0xff) => return Some('?'),
            (Self::Text, _) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, File, Serial) {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::create(dir.path().join("serial.log")).unwrap();
        file.write_all(bytes).unwrap();
        let serial = Serial::follow(dir.path().join("serial.log"));
        (dir, file, serial)
    }

    #[test]
    fn lines_come_without_escapes_and_line_ends() {
        let (_dir, _file, serial) = written(b"\x1b[2J\x1b[01;01Hone\r\n\x1bctwo \xe2\x94\x82\n");
        assert_eq!(serial.wait_for("one", Duration::from_secs(5)).unwrap().text, "one");
        assert_eq!(serial.wait_for("two", Duration::from_secs(5)).unwrap().text, "two ?");
    }

    #[test]
    fn a_prompt_without_line_end_is_found() {
        let (_dir, _file, serial) = written(b"booting\nnode-1 login: ");
        assert_eq!(serial.wait_for("login:", Duration::from_secs(5)).unwrap().text, "node-1 login: ");
    }

    #[test]
    fn what_is_written_later_is_found_and_what_was_before_from_is_not() {
        let (_dir, mut file, serial) = written(b"ready\n");
        serial.wait_for("ready", Duration::from_secs(5)).unwrap();
        let from = serial.len();
        assert!(serial.wait_after(from, "ready", Duration::from_millis(300)).is_err());
        file.write_all(b"ready again\n").unwrap();
        assert_eq!(serial.wait_after(from, "ready", Duration::from_secs(5)).unwrap().text, "ready again");
    }

    #[test]
    fn a_wait_in_vain_shows_the_end_of_the_console() {
        let (_dir, _file, serial) = written(b"Kernel panic - not syncing\n");
        serial.wait_for("panic", Duration::from_secs(5)).unwrap();
        let error = serial.wait_for("login:", Duration::from_millis(10)).unwrap_err().to_string();
        assert!(error.contains("\"login:\"") && error.contains("| Kernel panic - not syncing"), "{error}");
    }

    #[test]
    fn fields_are_whole_words() {
        let line = Line {
            at: Instant::now(),
            text: "DONE myroot=a root=/dev/vda3 message=\"two words\" end=".into(),
        };
        assert_eq!(line.field("root"), Some("/dev/vda3"));
        assert_eq!(line.field("message"), Some("two words"));
        assert_eq!(line.field("end"), Some(""));
        assert_eq!(line.field("oot"), None);
    }
}
