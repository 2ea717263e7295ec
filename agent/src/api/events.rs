//! `GET /v1/events?after=SEQ&wait=SECONDS`: Ferric's own. The events after a number, waiting for the first one if asked to.
//! Feeds `ferric watch`; a conductor that knows nothing of it loses nothing.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use events::{EventPage, Events};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use super::{Api, json};

/// Longest wait of one request.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Most events in one reply.
const PAGE: usize = 256;

/// A stream of events and word of each new one. Waiting readers cost no thread.
pub struct EventTail {
    events: Events,
    latest: watch::Receiver<u64>,
}

impl EventTail {
    /// Follows a stream.
    pub fn new(events: Events) -> Self {
        let (sender, latest) = watch::channel(0);
        events.listen(move |event| {
            sender.send_replace(event.seq);
        });
        Self { events, latest }
    }

    /// The events after `after`; waits up to `patience` for the first one.
    async fn page(&self, after: u64, patience: Duration) -> EventPage {
        let deadline = Instant::now() + patience;
        let mut latest = self.latest.clone();
        loop {
            latest.mark_unchanged();
            let page = self.events.after(after, PAGE);
            // `next` before `after`: the reader knows a stream of an earlier process, and has to start over at once.
            if !page.events.is_empty() || page.next < after {
                return page;
            }
            if !matches!(timeout_at(deadline, latest.changed()).await, Ok(Ok(()))) {
                return page;
            }
        }
    }
}

pub(super) async fn events(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (arguments, _answering) = api.authorize(&request)?;
    let number = |text: Option<String>, name: &str| match text {
        None => Ok(0),
        Some(text) => {
            text.parse::<u64>().map_err(|_| ApiError::bad_request(&format!("{name} must be a whole number")))
        }
    };
    let after = number(arguments.after, "after")?;
    let patience = Duration::from_secs(number(arguments.wait, "wait")?).min(LONGEST_WAIT);
    Ok(json::reply(StatusCode::OK, &api.events.page(after, patience).await))
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::EventKind;

    #[tokio::test(start_paused = true)]
    async fn a_waiting_reader_gets_the_event_or_an_empty_page_at_the_end() {
        let events = Events::default();
        let tail = EventTail::new(events.clone());
        assert!(tail.page(0, Duration::from_secs(30)).await.events.is_empty());
        let emit = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            events.emit(EventKind::Notice { message: "here".into() });
        };
        let begun = Instant::now();
        let (page, ()) = tokio::join!(tail.page(0, Duration::from_secs(30)), emit);
        assert_eq!((page.events.len(), page.next), (1, 1));
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(tail.page(900, Duration::from_secs(30)).await.next, 0);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
