//! One console: a thread that writes lines from a bounded queue.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use sys::Host;

/// Lines kept for a console that is slower than the agent talks. At 115200 baud these are some five seconds.
const QUEUE_LINES: usize = 512;

/// Where lines for one console go in.
pub(super) struct Sink {
    name: String,
    queue: SyncSender<Arc<str>>,
    unwritten: Arc<Unwritten>,
    dropped: AtomicUsize,
}

/// How many lines are on their way.
#[derive(Default)]
struct Unwritten {
    lines: Mutex<usize>,
    changed: Condvar,
}

impl Sink {
    /// Opens a console by the kernel's name for it; `None` where there is no such device.
    pub(super) fn start(host: &Host, name: &str) -> Option<Self> {
        match sys::console::open(&host.path(format!("/dev/{name}"))) {
            Ok(device) => Self::writing_to(name, device),
            Err(error) => {
                tracing::debug!(name, %error, "a console can not be opened");
                None
            }
        }
    }

    pub(super) fn writing_to(name: &str, writer: impl Write + Send + 'static) -> Option<Self> {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let unwritten = Arc::new(Unwritten::default());
        let counter = unwritten.clone();
        std::thread::Builder::new()
            .name(format!("console-{name}"))
            .spawn(move || write_lines(writer, &lines, &counter))
            .ok()?;
        Some(Self { name: name.into(), queue, unwritten, dropped: AtomicUsize::new(0) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Queues a line, or drops it when the console is that far behind. Never waits.
    pub(super) fn send(&self, line: Arc<str>) {
        let lost = self.dropped.swap(0, Ordering::Relaxed);
        if lost > 0 && !self.queue_up(format!("({lost} lines were dropped here)\n").into()) {
            self.dropped.fetch_add(lost, Ordering::Relaxed);
        }
        if !self.queue_up(line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn queue_up(&self, line: Arc<str>) -> bool {
        // Counted first: the writer may be done with it before `try_send` returns.
        *self.unwritten.lines.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let taken = self.queue.try_send(line).is_ok();
        if !taken {
            self.unwritten.done();
        }
        taken
    }

    /// Waits until the queue is empty or the deadline passes.
    pub(super) fn flush(&self, deadline: Instant) {
        let mut lines = self.unwritten.lines.lock().unwrap_or_else(PoisonError::into_inner);
        while *lines > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.unwritten.changed.wait_timeout(lines, left);
            lines = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Unwritten {
    fn done(&self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        *lines = lines.saturating_sub(1);
        self.changed.notify_all();
    }
}

fn write_lines(mut writer: impl Write, lines: &Receiver<Arc<str>>, unwritten: &Unwritten) {
    for line in lines {
        // A console that is gone (a closed virtual serial port) is no reason to stop: it may come back.
        let _ = writer.write_all(line.as_bytes()).and_then(|()| writer.flush());
        unwritten.done();
    }
}
