//! How long a source is asked: pauses, the limit of the whole transfer, whoever wants it to stop, and when the next source's
//! turn is.

use std::time::Duration;

use events::{EventKind, Phase};
use tokio::time::{Instant, sleep};

use super::Source;
use crate::error::Error;
use crate::pipeline::Interrupt;

/// How often a wait looks at the cancel flag.
const CANCEL_TICK: Duration = Duration::from_millis(100);

impl<'a> Source<'a> {
    /// Counts a failure: waits, or goes on to the next location.
    pub(super) async fn pause(&mut self, error: Error) -> Result<(), Interrupt> {
        self.failures += 1;
        self.failed_at = self.position;
        let attempts = self.transport.attempts.max(1);
        if self.failures >= attempts {
            return self.give_up(error, false);
        }
        let delay = self.transport.retry_interval;
        tracing::warn!(
            reason = error.report(),
            attempt = self.failures + 1,
            attempts,
            resume_at = self.position,
            "transfer failed, trying again"
        );
        self.events.emit(EventKind::Retrying {
            phase: if self.identity.is_some() { Phase::Write } else { Phase::Open },
            reason: error.report(),
            attempt: self.failures + 1,
            attempts,
            delay_seconds: delay.as_secs_f64(),
            resume_at: self.position,
        });
        Ok(self.rest().await?)
    }

    /// The pause before another try.
    ///
    /// # Errors
    /// Somebody wants it to stop, or the time is over.
    pub(crate) async fn rest(&self) -> Result<(), Error> {
        tokio::select! {
            () = sleep(self.transport.retry_interval) => Ok(()),
            () = self.stop() => Err(self.stopped()),
        }
    }

    /// Whether nobody wants it to stop, and there is time left.
    pub(super) fn may_go_on(&self) -> Result<(), Error> {
        let is_late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if self.cancel.is_cancelled() || is_late { Err(self.stopped()) } else { Ok(()) }
    }

    /// Ends when somebody wants it to stop, or the time is over.
    pub(super) fn stop(&self) -> impl Future<Output = ()> + use<'a> {
        let (cancel, deadline) = (self.cancel, self.deadline);
        async move {
            while !cancel.is_cancelled() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
                sleep(CANCEL_TICK).await;
            }
        }
    }

    /// Why it stopped.
    pub(super) fn stopped(&self) -> Error {
        match self.transport.max_duration {
            Some(limit) if !self.cancel.is_cancelled() => {
                Error::TooSlow { url: self.name(), offset: self.position, seconds: limit.as_secs() }
            }
            _ => Error::Cancelled,
        }
    }

    /// Goes on to the next location, which is to continue where this one ended.
    pub(super) fn give_up(&mut self, error: Error, for_good: bool) -> Result<(), Interrupt> {
        if matches!(error, Error::Cancelled | Error::TooSlow { .. }) {
            return Err(error.into());
        }
        let (name, reason) = (self.name(), error.report());
        self.locations.give_up(error, for_good)?;
        tracing::warn!(source = name, reason, "source given up, trying the next");
        self.events.emit(EventKind::Notice { message: format!("{reason}; trying the next source") });
        self.body = None;
        self.has_no_parts = false;
        self.failures = 0;
        self.failed_at = self.position;
        Ok(())
    }
}
