//! The event streams of all nodes, in memory: what agents report and what the controller itself does, for watchers. What has
//! to survive a restart (state, errors, timeline) is in the store; this is only the live picture.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::EventKind;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use crate::clock;

/// Events kept a node: a whole deployment, with room. Progress goes first when it is full.
const CAPACITY: usize = 1000;
/// Bytes of events kept a node.
const CAPACITY_BYTES: usize = 1 << 20;
/// Longest event, in bytes of JSON.
pub const EVENT_LIMIT: usize = 64 << 10;
/// Most bytes of events in one answer; at least one event is.
const PAGE_BYTES: usize = 256 << 10;

/// Who reports an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The agent in the machine.
    Agent,
    /// The controller.
    Controller,
}

/// An event as watchers get it, numbered and dated here: agents' clocks may be wrong, and their numbers start anew with
/// each boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Relayed {
    /// Position in this node's stream, from 1.
    pub seq: u64,
    /// Unix time of arrival.
    pub at: f64,
    /// Who says so.
    pub source: Source,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// All streams; clones share them.
#[derive(Clone, Default)]
pub struct Hub(Arc<Mutex<HashMap<Uuid, Arc<Stream>>>>);

struct Stream {
    kept: Mutex<Kept>,
    /// Counts whatever a watcher should look at: events, and changes of the node.
    changed: watch::Sender<u64>,
}

struct Kept {
    next: u64,
    /// Events with their size in bytes.
    events: VecDeque<(usize, Relayed)>,
    /// Sum of the sizes.
    bytes: usize,
}

impl Kept {
    fn push(&mut self, relayed: Relayed) {
        let bytes = size(&relayed.kind);
        while !self.events.is_empty()
            && (self.events.len() >= CAPACITY || self.bytes.saturating_add(bytes) > CAPACITY_BYTES)
        {
            let is_progress = |(_, e): &(usize, Relayed)| matches!(e.kind, EventKind::Progress { .. });
            let progress = self.events.iter().position(is_progress);
            if let Some((freed, _)) = self.events.remove(progress.unwrap_or(0)) {
                self.bytes = self.bytes.saturating_sub(freed);
            }
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.events.push_back((bytes, relayed));
    }
}

/// The size of an event in bytes of JSON; the numbers around it are little.
fn size(kind: &EventKind) -> usize {
    /// Counts what is written.
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(64);
    // Events are plain data: they always serialise.
    serde_json::to_writer(&mut count, kind).map_or(EVENT_LIMIT, |()| count.0)
}

/// The event, or a notice in its place where it is too long.
fn bounded(kind: EventKind) -> EventKind {
    match size(&kind) {
        bytes if bytes > EVENT_LIMIT => {
            EventKind::Notice { message: format!("an event of {bytes} bytes was left out") }
        }
        _ => kind,
    }
}

/// Some events of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Oldest first.
    pub events: Vec<Relayed>,
    /// The number to ask for next.
    pub next: u64,
    /// Whether there are more already.
    pub more: bool,
}

impl Hub {
    fn stream(&self, node: Uuid) -> Arc<Stream> {
        let new = || {
            let kept = Mutex::new(Kept { next: 1, events: VecDeque::new(), bytes: 0 });
            Arc::new(Stream { kept, changed: watch::Sender::new(0) })
        };
        lock(&self.0).entry(node).or_insert_with(new).clone()
    }

    /// Adds an event.
    pub fn push(&self, node: Uuid, source: Source, kind: EventKind) {
        let stream = self.stream(node);
        let kind = bounded(kind);
        {
            let mut kept = lock(&stream.kept);
            let seq = kept.next;
            kept.next += 1;
            kept.push(Relayed { seq, at: clock::unix_seconds(), source, kind });
        }
        self.wake(node);
    }

    /// A line from the controller.
    pub fn notice(&self, node: Uuid, message: impl Into<String>) {
        self.push(node, Source::Controller, EventKind::Notice { message: message.into() });
    }

    /// Makes watchers look again: the node changed.
    pub fn wake(&self, node: Uuid) {
        self.stream(node).changed.send_modify(|count| *count += 1);
    }

    /// A new deployment begins: what is kept belongs to the last one.
    pub fn begin(&self, node: Uuid) {
        {
            let stream = self.stream(node);
            let mut kept = lock(&stream.kept);
            kept.events.clear();
            kept.bytes = 0;
        }
        self.wake(node);
    }

    /// Forgets a node.
    pub fn forget(&self, node: Uuid) {
        lock(&self.0).remove(&node);
    }

    /// The events after `after`, as many as one answer takes. Waits up to `patience` when there are none, but
    /// also returns, empty-handed, as soon as the node changes.
    pub async fn after(&self, node: Uuid, after: u64, patience: Duration) -> Page {
        let stream = self.stream(node);
        let mut changed = stream.changed.subscribe();
        let first = stream.page(after);
        if !first.events.is_empty() || patience.is_zero() {
            return first;
        }
        match tokio::time::timeout(patience, changed.changed()).await {
            Ok(Ok(())) => stream.page(after),
            // Patience ended, or the node is gone.
            Ok(Err(_)) | Err(_) => first,
        }
    }
}

impl Stream {
    fn page(&self, after: u64) -> Page {
        let kept = lock(&self.kept);
        // A watcher from before a restart of the controller asks for a number not reached yet: it starts over.
        let after = if after >= kept.next { 0 } else { after };
        let mut page = Page { next: after, ..Page::default() };
        let mut bytes = 0_usize;
        for (size, event) in kept.events.iter().filter(|(_, event)| event.seq > after) {
            bytes = bytes.saturating_add(*size);
            if bytes > PAGE_BYTES && !page.events.is_empty() {
                page.more = true;
                break;
            }
            page.next = event.seq;
            page.events.push(event.clone());
        }
        page
    }
}

/// The data under these locks is valid at every step: a panic elsewhere must not silence it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn watchers_get_events_once_and_start_over_after_a_restart() {
        let hub = Hub::default();
        let node = Uuid::from_u128(1);
        hub.notice(node, "one");
        hub.notice(node, "two");
        let page = hub.after(node, 0, Duration::ZERO).await;
        assert_eq!((page.events.len(), page.next, page.more), (2, 2, false));
        assert_eq!(hub.after(node, 2, Duration::ZERO).await, Page { next: 2, ..Page::default() });
        assert_eq!(hub.after(node, 99, Duration::ZERO).await.events.len(), 2);
    }

    #[tokio::test]
    async fn a_change_of_the_node_wakes_a_waiting_watcher() {
        let hub = Hub::default();
        let node = Uuid::from_u128(1);
        let waiting = hub.after(node, 0, Duration::from_secs(60));
        let waking = async {
            tokio::task::yield_now().await;
            hub.wake(node);
        };
        let (page, ()) = tokio::join!(waiting, waking);
        assert!(page.events.is_empty());
    }

    #[test]
    fn a_full_stream_loses_progress_first() {
        let hub = Hub::default();
        let node = Uuid::from_u128(1);
        hub.notice(node, "kept");
        for done in 0..2000 {
            let kind = EventKind::Progress { phase: events::Phase::Write, done, total: None, written: None };
            hub.push(node, Source::Agent, kind);
        }
        let mut events = Vec::new();
        loop {
            let page = hub.stream(node).page(events.last().map_or(0, |e: &Relayed| e.seq));
            events.extend(page.events);
            if !page.more {
                break;
            }
        }
        assert_eq!(events.len(), CAPACITY);
        assert!(matches!(events.first().map(|e| &e.kind), Some(EventKind::Notice { .. })));
    }
    #[test]
    fn long_events_are_left_out_and_all_together_are_bounded() {
        let hub = Hub::default();
        let node = Uuid::from_u128(1);
        let notice = |length| EventKind::Notice { message: "x".repeat(length) };
        hub.push(node, Source::Agent, notice(EVENT_LIMIT));
        let page = hub.stream(node).page(0);
        assert!(
            matches!(&page.events[0].kind, EventKind::Notice { message } if message.contains("left out"))
        );
        for _ in 0..1000 {
            hub.push(node, Source::Agent, notice(EVENT_LIMIT - 1000));
        }
        let kept: usize = lock(&hub.stream(node).kept).events.iter().map(|(bytes, _)| *bytes).sum();
        assert!(kept <= CAPACITY_BYTES && kept > CAPACITY_BYTES / 2, "{kept} bytes");
        let page = hub.stream(node).page(0);
        assert!(page.more && page.events.iter().map(|e| size(&e.kind)).sum::<usize>() <= PAGE_BYTES);
        assert!(!hub.stream(node).page(page.next).events.is_empty());
    }
}
