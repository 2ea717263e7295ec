//! The bounded buffer behind an [`Events`] handle.
//!
//! Emitting never blocks on a reader: when the buffer is full the oldest progress event goes first, so that a long
//! write can not push out what an operator must still be able to read (starts, failures, notices).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{Event, EventKind, EventPage};

type Listener = Box<dyn Fn(&Event) + Send + Sync>;

/// A handle to one stream of events; clones share the stream.
#[derive(Clone)]
pub struct Events(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    listeners: Mutex<Vec<Arc<Listener>>>,
}

struct State {
    next_seq: u64,
    capacity: usize,
    kept: VecDeque<Event>,
}

impl Events {
    /// A new stream that keeps up to `capacity` events (at least 1) for readers that come late.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let state = State { next_seq: 1, capacity, kept: VecDeque::with_capacity(capacity.min(1024)) };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            arrived: Condvar::new(),
            listeners: Mutex::new(Vec::new()),
        }))
    }

    /// Adds one event. Returns at once; listeners run on the calling thread and must be quick. Texts above 8 KiB are cut.
    pub fn emit(&self, kind: EventKind) {
        let kind = kind.bounded();
        let event = {
            let mut state = self.state();
            let event = Event { seq: state.next_seq, at: unix_seconds(), kind };
            state.next_seq += 1;
            state.keep(event.clone());
            event
        };
        self.0.arrived.notify_all();
        let listeners: Vec<_> = lock(&self.0.listeners).clone();
        for listener in listeners {
            listener(&event);
        }
    }

    /// Calls `listener` with every event from now on, on the thread that emits.
    pub fn listen(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        lock(&self.0.listeners).push(Arc::new(Box::new(listener)));
    }

    /// The kept events after number `after`, oldest first, at most `limit`.
    pub fn after(&self, after: u64, limit: usize) -> EventPage {
        self.state().page(after, limit)
    }

    /// As [`Events::after`], but waits up to `patience` for the first event. Blocking: not for async code.
    pub fn wait_after(&self, after: u64, limit: usize, patience: Duration) -> EventPage {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        loop {
            let page = state.page(after, limit);
            let left = deadline.saturating_duration_since(Instant::now());
            if !page.events.is_empty() || left.is_zero() {
                return page;
            }
            state = self.0.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

impl Default for Events {
    /// A stream that keeps 1024 events: a whole deploy, with room.
    fn default() -> Self {
        Self::new(1024)
    }
}

impl State {
    fn keep(&mut self, event: Event) {
        if self.kept.len() >= self.capacity {
            let progress = self.kept.iter().position(|e| matches!(e.kind, EventKind::Progress { .. }));
            self.kept.remove(progress.unwrap_or(0));
        }
        self.kept.push_back(event);
    }

    fn page(&self, after: u64, limit: usize) -> EventPage {
        let events: Vec<_> = self.kept.iter().filter(|e| e.seq > after).take(limit).cloned().collect();
        // A reader from before a restart asks for a number this stream has not reached: start it over.
        let start = if after >= self.next_seq { 0 } else { after };
        EventPage { next: events.last().map_or(start, |e| e.seq), events }
    }
}

/// A panic elsewhere must not silence progress: the data under these locks is valid at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Phase;

    fn notice(text: &str) -> EventKind {
        EventKind::Notice { message: text.into() }
    }

    fn progress(done: u64) -> EventKind {
        EventKind::Progress { phase: Phase::Write, done, total: None, written: None }
    }

    #[test]
    fn long_texts_are_cut() {
        let events = Events::new(4);
        let long = "\u{e9}".repeat(1 << 20);
        events.emit(notice(&long));
        let (id, name) = (String::new(), long.clone());
        events.emit(EventKind::CommandFinished { id, name, succeeded: false, message: Some(long) });
        for event in events.after(0, 10).events {
            match event.kind {
                EventKind::Notice { message } => {
                    assert!(message.len() <= 8 << 10 && message.ends_with("..."))
                }
                EventKind::CommandFinished { name, message: Some(message), .. } => {
                    assert!(name.len() <= 8 << 10 && message.len() <= 8 << 10);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn readers_continue_where_they_stopped() {
        let events = Events::new(10);
        events.emit(notice("a"));
        events.emit(notice("b"));
        let first = events.after(0, 1);
        assert_eq!((first.events.len(), first.next), (1, 1));
        let rest = events.after(first.next, 10);
        assert_eq!(rest.events.first().map(|e| e.seq), Some(2));
        assert_eq!(events.after(2, 10), EventPage { events: vec![], next: 2 });
    }

    #[test]
    fn progress_is_dropped_before_anything_else() {
        let events = Events::new(3);
        events.emit(notice("kept"));
        for done in 0..50 {
            events.emit(progress(done));
        }
        let page = events.after(0, 10);
        assert_eq!(page.events.len(), 3);
        assert_eq!(page.events.first().map(|e| &e.kind), Some(&notice("kept")));
        assert_eq!(page.next, 51);
    }

    #[test]
    fn a_reader_from_before_a_restart_starts_over() {
        let events = Events::new(3);
        events.emit(notice("new life"));
        assert_eq!(events.after(900, 10).next, 0);
    }

    #[test]
    fn waiting_ends_when_an_event_arrives_and_when_patience_ends() {
        let events = Events::new(3);
        assert!(events.wait_after(0, 5, Duration::from_millis(10)).events.is_empty());
        let other = events.clone();
        let emitter = std::thread::spawn(move || other.emit(notice("here")));
        assert_eq!(events.wait_after(0, 5, Duration::from_secs(20)).events.len(), 1);
        emitter.join().unwrap();
    }

    #[test]
    fn events_read_as_flat_json_and_unknown_kinds_survive() {
        let event = Event { seq: 7, at: 1.5, kind: progress(42) };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(text, r#"{"seq":7,"at":1.5,"event":"progress","phase":"write","done":42}"#);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        let newer: Event =
            serde_json::from_str(r#"{"seq":1,"at":0,"event":"teleported","to":"mars"}"#).unwrap();
        assert_eq!(newer.kind, EventKind::Unknown);
    }
}
