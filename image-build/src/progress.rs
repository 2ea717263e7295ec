//! Talk on standard error: what is being done, and a bar (or, away from a terminal, a line now and then) for what takes long.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Away from a terminal, a line at the most this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Somebody to tell about progress.
#[derive(Debug, Clone, Copy)]
pub struct Talk {
    speaks: bool,
}

impl Talk {
    /// Speaks on standard error.
    pub fn stderr() -> Talk {
        Talk { speaks: true }
    }

    /// Says nothing.
    pub fn quiet() -> Talk {
        Talk { speaks: false }
    }

    /// One line.
    pub fn say(&self, text: &str) {
        if self.speaks {
            eprintln!("{text}");
        }
    }

    /// One line about something that is odd, but can go on.
    pub fn warn(&self, text: &str) {
        self.say(&format!("warning: {text}"));
    }

    /// Starts a bar over `total` bytes.
    pub fn bar(&self, what: &str, total: u64) -> Bar {
        let on_terminal = self.speaks && std::io::stderr().is_terminal();
        let target = if on_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {eta} left") {
            bar.set_style(style.progress_chars("=> "));
        }
        Bar {
            talk: *self,
            what: what.to_owned(),
            total,
            done: 0,
            bar,
            on_terminal,
            last_line: Instant::now(),
        }
    }
}

/// Progress of one thing. Disappears when dropped.
#[derive(Debug)]
pub struct Bar {
    talk: Talk,
    what: String,
    total: u64,
    done: u64,
    bar: ProgressBar,
    on_terminal: bool,
    last_line: Instant,
}

impl Bar {
    /// `bytes` more are done.
    pub fn advance(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        self.bar.set_position(self.done);
        if !self.on_terminal && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let percent = self.done.saturating_mul(100).checked_div(self.total).unwrap_or(100);
            self.talk.say(&format!("{}: {percent} %", self.what));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
