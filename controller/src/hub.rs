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
    events: VecDeque<Relayed>,
}

impl Hub {
    fn stream(&self, node: Uuid) -> Arc<Stream> {
        let new = || {
            let kept = Mutex::new(Kept { next: 1, events: VecDeque::new() });
            Arc::new(Stream { kept, changed: watch::Sender::new(0) })
        };
        lock(&self.0).entry(node).or_insert_with(new).clone()
    }

    /// Adds an event.
    pub fn push(&self, node: Uuid, source: Source, kind: EventKind) {
        let stream = self.stream(node);
        {
            let mut kept = lock(&stream.kept);
            if kept.events.len() >= CAPACITY {
                let progress = kept.events.iter().position(|e| matches!(e.kind, EventKind::Progress { .. }));
                kept.events.remove(progress.unwrap_or(0));
            }
            let seq = kept.next;
            kept.next += 1;
            kept.events.push_back(Relayed { seq, at: clock::unix_seconds(), source, kind });
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
        lock(&self.stream(node).kept).events.clear();
        self.wake(node);
    }

    /// Forgets a node.
    pub fn forget(&self, node: Uuid) {
        lock(&self.0).remove(&node);
    }

    /// The events after `after`, oldest first, and the number to ask for next. Waits up to `patience` when there are none, but
    /// also returns, empty-handed, as soon as the node changes.
    pub async fn after(&self, node: Uuid, after: u64, patience: Duration) -> (Vec<Relayed>, u64) {
        let stream = self.stream(node);
        let mut changed = stream.changed.subscribe();
        let first = stream.page(after);
        if !first.0.is_empty() || patience.is_zero() {
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
    fn page(&self, after: u64) -> (Vec<Relayed>, u64) {
        let kept = lock(&self.kept);
        // A watcher from before a restart of the controller asks for a number not reached yet: it starts over.
        let after = if after >= kept.next { 0 } else { after };
        let events: Vec<_> = kept.events.iter().filter(|e| e.seq > after).cloned().collect();
        let next = events.last().map_or(after, |e| e.seq);
        (events, next)
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
        let (events, next) = hub.after(node, 0, Duration::ZERO).await;
        assert_eq!((events.len(), next), (2, 2));
        assert_eq!(hub.after(node, 2, Duration::ZERO).await, (vec![], 2));
        assert_eq!(hub.after(node, 99, Duration::ZERO).await.0.len(), 2);
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
        let ((events, _), ()) = tokio::join!(waiting, waking);
        assert!(events.is_empty());
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
        let (events, _) = hub.stream(node).page(0);
        assert_eq!(events.len(), CAPACITY);
        assert!(matches!(events.first().map(|e| &e.kind), Some(EventKind::Notice { .. })));
    }
}
