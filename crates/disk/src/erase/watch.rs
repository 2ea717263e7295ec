//! Work on a disk that may stop answering. The kernel lets nobody out of a write that hangs, so the work has a thread, and the
//! caller goes on without it when no request has ended for too long.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How long a disk may take for one request by default. The kernel itself tries one for several minutes before it reports an
/// error: 30 s a try, some tries, resets of device and bus between them.
pub const STALL_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Time between two looks at the worker.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long a worker that was asked to stop may take for the request that is under way.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What a worker reports while it works.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    beats: AtomicU64,
    at: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
}

impl Pulse {
    /// Reports that work at this byte of the disk begins. `Break` when it is to stop.
    pub(crate) fn beat(&self, at: u64) -> ControlFlow<()> {
        self.at.store(at, Ordering::Relaxed);
        self.beats.fetch_add(1, Ordering::Release);
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Reports that so many bytes more are done.
    pub(crate) fn done(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The worker did not end: it is still in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// No request ended within the limit; the byte of the disk that was worked on.
    Hung { at: u64 },
    /// It was asked to stop and did not, or no thread could be made.
    Stopped,
}

/// Runs `work` on a thread and hands out what it reports to `report`, as bytes since the last call; `report` can end it. Returns what
/// the work returned. A worker that hangs is left behind.
///
/// # Panics
/// When the work does.
pub(crate) fn watched<T: Send + 'static>(
    limit: Duration,
    report: &mut dyn FnMut(u64) -> ControlFlow<()>,
    work: impl FnOnce(&Pulse) -> T + Send + 'static,
) -> Result<T, Left> {
    let pulse = Arc::new(Pulse::default());
    let (sender, receiver) = sync_channel(1);
    let of_worker = Arc::clone(&pulse);
    let thread = std::thread::Builder::new().name("erase".into()).spawn(move || {
        let result = work(&of_worker);
        // The caller may have gone on without it.
        let _ = sender.send(result);
    });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => {
            tracing::error!(%error, "no thread could be started");
            return Err(Left::Stopped);
        }
    };
    let (mut beats, mut moved) = (0, Instant::now());
    let mut stopped: Option<Instant> = None;
    loop {
        match receiver.recv_timeout(INTERVAL) {
            Ok(result) => {
                let _ = report(pulse.bytes.swap(0, Ordering::Relaxed));
                return Ok(result);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Ok(()) => return Err(Left::Stopped),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
        let now = pulse.beats.load(Ordering::Acquire);
        if now != beats {
            (beats, moved) = (now, Instant::now());
        }
        if report(pulse.bytes.swap(0, Ordering::Relaxed)).is_break() && stopped.is_none() {
            pulse.stop.store(true, Ordering::Relaxed);
            stopped = Some(Instant::now());
        }
        if stopped.is_some_and(|since| since.elapsed() > STOP_LIMIT) {
            return Err(Left::Stopped);
        }
        if moved.elapsed() > limit {
            // Where the request ends after all, nothing more is written.
            pulse.stop.store(true, Ordering::Relaxed);
            return Err(Left::Hung { at: pulse.at.load(Ordering::Relaxed) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const GO_ON: ControlFlow<()> = ControlFlow::Continue(());

    #[test]
    fn work_that_hangs_is_left_behind_with_its_place() {
        let (release, held) = channel::<()>();
        let started = Instant::now();
        let left = watched(Duration::from_millis(300), &mut |_| GO_ON, move |pulse| {
            let _ = pulse.beat(4096);
            let _ = held.recv();
        });
        assert_eq!(left, Err(Left::Hung { at: 4096 }));
        assert!(started.elapsed() < Duration::from_secs(5));
        drop(release);
    }

    #[test]
    fn work_that_goes_on_may_take_longer_than_the_limit() {
        let mut bytes = 0;
        let mut report = |more| {
            bytes += more;
            GO_ON
        };
        let done = watched(Duration::from_millis(400), &mut report, |pulse| {
            for at in 0..12 {
                let _ = pulse.beat(at);
                std::thread::sleep(Duration::from_millis(100));
                pulse.done(10);
            }
            "done"
        });
        assert_eq!((done, bytes), (Ok("done"), 120));
    }

    #[test]
    fn work_is_asked_to_stop_and_a_panic_is_the_callers() {
        let stopped = watched(STALL_LIMIT, &mut |_| ControlFlow::Break(()), |pulse| {
            while pulse.beat(0).is_continue() {
                std::thread::sleep(Duration::from_millis(5));
            }
            "stopped"
        });
        assert_eq!(stopped, Ok("stopped"));
        let panicked = std::panic::catch_unwind(|| {
            watched(STALL_LIMIT, &mut |_| GO_ON, |_| -> u32 { panic!("in the worker") })
        });
        assert!(panicked.is_err());
    }
}
