//! Who is connected, and who has to go when there are too many: never the one who knows the token and is being answered.
//!
//! A connection is a stranger until a request on it brings the token. When every place is taken, a stranger that has had its
//! time goes first, and of strangers one of the address that takes most places; then one who is known but silent. So
//! neither idle connections nor somebody who opens them all day keep a conductor out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Every connection there is; clones share the table.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    next: u64,
    rows: BTreeMap<u64, Row>,
}

struct Row {
    peer: IpAddr,
    /// Requests with the right token that are being answered.
    requests: usize,
    /// Whether one of them ever brought the token.
    known: bool,
    /// Since when nothing is being answered; for strangers, since when they are here.
    since: Instant,
    leave: Arc<Notify>,
}

impl Connections {
    /// Enters a connection; it leaves when the seat is dropped.
    pub(super) fn enter(&self, peer: IpAddr) -> Seat {
        let leave = Arc::new(Notify::new());
        let row = Row { peer, requests: 0, known: false, since: Instant::now(), leave: leave.clone() };
        let mut table = self.lock();
        let id = table.next;
        table.next = id.wrapping_add(1);
        table.rows.insert(id, row);
        Seat(Arc::new(Place { connections: self.clone(), id, leave }))
    }

    /// Asks one connection to leave, if there is one whose time is over.
    pub(super) fn make_room(&self, grace: Duration) -> bool {
        let table = self.lock();
        let now = Instant::now();
        let over = |row: &&Row| row.requests == 0 && now.saturating_duration_since(row.since) >= grace;
        let mut strangers: HashMap<IpAddr, usize> = HashMap::new();
        for row in table.rows.values().filter(|row| !row.known) {
            let count = strangers.entry(row.peer).or_default();
            *count = count.saturating_add(1);
        }
        let crowd = |row: &Row| strangers.get(&row.peer).copied().unwrap_or(0);
        let stranger = table
            .rows
            .values()
            .filter(|row| !row.known)
            .filter(over)
            .max_by_key(|row| (crowd(row), now.saturating_duration_since(row.since)));
        let silent = || table.rows.values().filter(over).min_by_key(|row| row.since);
        match stranger.or_else(silent) {
            Some(row) => {
                tracing::debug!(peer = %row.peer, known = row.known, "closing a connection to make room");
                row.leave.notify_one();
                true
            }
            None => false,
        }
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.lock().rows.get_mut(&id) {
            change(row);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change is one assignment or one insertion: valid whatever happened under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection; travels with its requests.
#[derive(Clone)]
pub(super) struct Seat(Arc<Place>);

struct Place {
    connections: Connections,
    id: u64,
    leave: Arc<Notify>,
}

impl Seat {
    /// Ends when the connection has to make room.
    pub(super) async fn asked_to_leave(&self) {
        self.0.leave.notified().await;
    }

    /// A request brought the right token: until the guard is dropped, the connection stays.
    pub(super) fn answer(&self) -> Answering {
        self.0.connections.change(self.0.id, |row| {
            row.known = true;
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
pub(super) struct Answering(Seat);

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
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Whether exactly this seat was asked to leave.
    fn asked(seat: &Seat) -> bool {
        let waker = std::task::Waker::noop();
        let mut asked = std::pin::pin!(seat.asked_to_leave());
        asked.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready()
    }

    #[test]
    fn of_strangers_one_of_the_crowd_goes_first() {
        let connections = Connections::default();
        let alone = connections.enter(peer(1));
        let crowd: Vec<_> = (0..3).map(|_| connections.enter(peer(2))).collect();
        assert!(connections.make_room(NOW));
        assert!(asked(&crowd[0]) && !asked(&crowd[1]) && !asked(&alone), "the oldest of the crowd");
        assert!(!connections.make_room(Duration::from_secs(60)), "nobody's time is over");
    }

    #[test]
    fn who_is_being_answered_stays_and_who_is_known_goes_last() {
        let connections = Connections::default();
        let conductor = connections.enter(peer(1));
        let answering = conductor.answer();
        assert!(!connections.make_room(NOW));
        let stranger = connections.enter(peer(2));
        drop(answering);
        assert!(connections.make_room(NOW));
        assert!(asked(&stranger) && !asked(&conductor));
        drop(stranger);
        assert!(connections.make_room(NOW));
        assert!(asked(&conductor), "silent, and nobody else is left");
        drop(conductor);
        assert!(!connections.make_room(NOW));
    }
}
