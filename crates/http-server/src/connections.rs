//! Tracks open connections and picks the one to close when all places are taken.
//!
//! A connection is a stranger until its request was authenticated. Strangers of the address that takes most places leave
//! first, and of these the ones that never sent a byte: at once, as there is nothing to lose. A stranger that has sent
//! something has a grace period, which is short where its address takes more than its share. Authenticated connections
//! that are idle leave last. A connection whose request is being answered stays.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A connection younger than this may have a request on its way.
const UNSEEN: Duration = Duration::from_millis(100);
/// Least grace of a stranger that has sent something.
const SHORTEST_GRACE: Duration = Duration::from_millis(250);

/// Whether the peer has sent something.
pub(crate) type HasSent = Box<dyn Fn() -> bool + Send>;

/// Every open connection; clones share the table.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Shared>);

struct Shared {
    table: Mutex<Table>,
    /// Most places that strangers of one address may take before they count as a crowd.
    share: usize,
}

#[derive(Default)]
struct Table {
    next: u64,
    rows: BTreeMap<u64, Row>,
}

struct Row {
    peer: IpAddr,
    /// Requests that are being answered.
    requests: usize,
    /// Whether one of them was ever authenticated.
    known: bool,
    /// Says whether bytes of a peer wait from which nothing was read so far; none once something was.
    waits: Option<HasSent>,
    /// Last progress: the connection's start, its first byte, its handshake, the end of a reply.
    since: Instant,
    leave: Arc<Notify>,
}

impl Connections {
    pub(crate) fn new(share: usize) -> Self {
        Self(Arc::new(Shared { table: Mutex::default(), share }))
    }

    /// Enters a connection; it leaves when the last clone of the seat is dropped.
    pub(crate) fn enter(&self, peer: IpAddr, has_sent: HasSent) -> Seat {
        let leave = Arc::new(Notify::new());
        let since = Instant::now();
        let row = Row { peer, requests: 0, known: false, waits: Some(has_sent), since, leave: leave.clone() };
        let mut table = self.lock();
        let id = table.next;
        table.next = id.wrapping_add(1);
        table.rows.insert(id, row);
        Seat(Arc::new(Place { connections: self.clone(), id, leave }))
    }

    /// Asks one connection to leave. Returns false if none may be closed yet.
    pub(crate) fn make_room(&self, grace: Duration) -> bool {
        self.make_room_at(grace, Instant::now())
    }

    fn make_room_at(&self, grace: Duration, now: Instant) -> bool {
        let mut table = self.lock();
        // One that has sent something is not silent, though its task has not run yet. Each is asked once.
        while let Some(id) = self.pick(&table, grace, now) {
            let Some(row) = table.rows.get_mut(&id) else { return false };
            if row.waits.take().is_some_and(|has_sent| has_sent()) {
                row.since = now;
                continue;
            }
            tracing::debug!(peer = %row.peer, known = row.known, "closing a connection to make room");
            row.leave.notify_one();
            // Taken out at once, so that the next call picks another one.
            table.rows.remove(&id);
            return true;
        }
        false
    }

    /// The connection to close, if there is one.
    fn pick(&self, table: &Table, grace: Duration, now: Instant) -> Option<u64> {
        let mut strangers: HashMap<IpAddr, usize> = HashMap::new();
        for row in table.rows.values().filter(|row| !row.known) {
            let count = strangers.entry(row.peer).or_default();
            *count = count.saturating_add(1);
        }
        let crowd = |row: &Row| strangers.get(&row.peer).copied().unwrap_or(0);
        let short = grace.min(SHORTEST_GRACE.max(grace / 8));
        let patience = |row: &Row| match (row.waits.is_some(), crowd(row) > self.0.share) {
            (true, _) => grace.min(UNSEEN),
            (false, true) => short,
            (false, false) => grace,
        };
        let age = |row: &Row| now.saturating_duration_since(row.since);
        let idle = |row: &Row| row.requests == 0;
        let stranger = table
            .rows
            .iter()
            .filter(|(_, row)| !row.known && idle(row) && age(row) >= patience(row))
            .max_by_key(|(_, row)| (crowd(row), row.waits.is_some(), age(row)))
            .map(|(id, _)| *id);
        let silent = || {
            let over = table.rows.iter().filter(|(_, row)| row.known && idle(row) && age(row) >= grace);
            over.min_by_key(|(_, row)| row.since).map(|(id, _)| *id)
        };
        stranger.or_else(silent)
    }

    /// Returns the number of connections that were not asked to leave.
    pub(crate) fn count(&self) -> usize {
        self.lock().rows.len()
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.lock().rows.get_mut(&id) {
            change(row);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change is one assignment or one insertion: valid whatever happened under the lock.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection; it is among the extensions of each of its requests.
#[derive(Clone)]
pub struct Seat(Arc<Place>);

struct Place {
    connections: Connections,
    id: u64,
    leave: Arc<Notify>,
}

impl Seat {
    /// Ends when the connection has to make room.
    pub(crate) async fn asked_to_leave(&self) {
        self.0.leave.notified().await;
    }

    /// Records that the peer has sent something, or has completed its handshake.
    pub(crate) fn progress(&self) {
        self.0.connections.change(self.0.id, |row| {
            row.waits = None;
            row.since = Instant::now();
        });
    }

    /// Records an authenticated request: until the guard is dropped the connection stays.
    pub fn answer(&self) -> Answering {
        self.begin(true)
    }

    /// Records a request of a stranger whose answer takes its time: until the guard is dropped the connection stays.
    /// Returns none if strangers of this address have as many such requests as one address may have.
    pub fn answer_stranger(&self) -> Option<Answering> {
        {
            let table = self.0.connections.lock();
            let own = table.rows.get(&self.0.id)?;
            let others = table.rows.values().filter(|row| !row.known && row.requests > 0);
            let busy = others.filter(|row| row.peer == own.peer).count();
            if !own.known && busy >= self.0.connections.0.share {
                return None;
            }
        }
        Some(self.begin(false))
    }

    fn begin(&self, known: bool) -> Answering {
        self.0.connections.change(self.0.id, |row| {
            row.known |= known;
            row.requests = row.requests.saturating_add(1);
        });
        Answering(self.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().rows.remove(&self.id);
    }
}

/// A request that is being answered.
pub struct Answering(Seat);

impl Drop for Answering {
    fn drop(&mut self) {
        let Seat(place) = &self.0;
        place.connections.change(place.id, |row| {
            row.requests = row.requests.saturating_sub(1);
            row.since = Instant::now();
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;
    const GRACE: Duration = Duration::from_secs(2);

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// A connection whose peer has sent nothing.
    fn enter(connections: &Connections, peer: IpAddr) -> Seat {
        connections.enter(peer, Box::new(|| false))
    }

    /// Whether exactly this seat was asked to leave.
    fn asked(seat: &Seat) -> bool {
        let waker = std::task::Waker::noop();
        let mut asked = std::pin::pin!(seat.asked_to_leave());
        asked.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready()
    }

    #[test]
    fn of_strangers_one_of_the_crowd_goes_first() {
        let connections = Connections::new(64);
        let alone = enter(&connections, peer(1));
        let crowd: Vec<_> = (0..3).map(|_| enter(&connections, peer(2))).collect();
        crowd.iter().chain([&alone]).for_each(Seat::progress);
        assert!(connections.make_room(NOW));
        assert!(asked(&crowd[0]) && !asked(&crowd[1]) && !asked(&alone), "the oldest of the crowd");
        assert!(!connections.make_room(Duration::from_secs(60)), "no grace period is over");
    }

    #[test]
    fn connection_being_answered_stays_and_authenticated_one_goes_last() {
        let connections = Connections::new(64);
        let conductor = enter(&connections, peer(1));
        let answering = conductor.answer();
        assert!(!connections.make_room(NOW));
        let stranger = enter(&connections, peer(2));
        drop(answering);
        assert!(connections.make_room(NOW));
        assert!(asked(&stranger) && !asked(&conductor));
        drop(stranger);
        assert!(connections.make_room(NOW));
        assert!(asked(&conductor), "idle, and no other connection is left");
        drop(conductor);
        assert!(!connections.make_room(NOW));
    }

    #[test]
    fn silent_connection_leaves_before_one_that_has_sent_something() {
        let connections = Connections::new(64);
        let speaking = enter(&connections, peer(1));
        speaking.progress();
        let silent: Vec<_> = (0..2).map(|_| enter(&connections, peer(1))).collect();
        let soon = Instant::now() + UNSEEN;
        assert!(!connections.make_room_at(GRACE, Instant::now()), "a request may be on its way");
        assert!(connections.make_room_at(GRACE, soon) && connections.make_room_at(GRACE, soon));
        assert!(silent.iter().all(asked));
        assert!(!connections.make_room_at(GRACE, soon) && !asked(&speaking));
        assert_eq!(connections.count(), 1);
    }

    #[test]
    fn connection_whose_request_waits_in_the_kernel_is_not_silent() {
        let connections = Connections::new(64);
        let sent = connections.enter(peer(1), Box::new(|| true));
        let later = Instant::now() + UNSEEN;
        assert!(!connections.make_room_at(GRACE, later) && !asked(&sent));
        assert!(connections.make_room_at(GRACE, later + GRACE) && asked(&sent));
    }

    #[test]
    fn grace_is_short_where_one_address_takes_more_than_its_share() {
        let connections = Connections::new(2);
        let crowd: Vec<_> = (0..3).map(|_| enter(&connections, peer(1))).collect();
        let other = enter(&connections, peer(2));
        crowd.iter().chain([&other]).for_each(Seat::progress);
        let later = Instant::now() + SHORTEST_GRACE;
        assert!(connections.make_room_at(GRACE, later));
        assert!(
            !connections.make_room_at(GRACE, later),
            "two are not a crowd, and the others have their grace"
        );
        assert!(!asked(&other));
    }

    #[test]
    fn strangers_of_one_address_have_a_bounded_number_of_requests() {
        let connections = Connections::new(2);
        let seats: Vec<_> = (0..3).map(|_| enter(&connections, peer(1))).collect();
        let first = seats[0].answer_stranger().unwrap();
        let _second = seats[1].answer_stranger().unwrap();
        assert!(seats[2].answer_stranger().is_none());
        assert!(enter(&connections, peer(2)).answer_stranger().is_some());
        drop(first);
        assert!(seats[2].answer_stranger().is_some());
    }
}
