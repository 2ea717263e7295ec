//! Heartbeats that are counted on their way.

use crate::conductor::{Error, Sender};

use super::Metrics;

/// A sender whose heartbeats are counted.
pub struct Counted<'a, S> {
    /// Who sends them.
    pub sender: &'a S,
    /// Who counts them.
    pub metrics: Metrics,
}

impl<S: Sender> Sender for Counted<'_, S> {
    async fn send(&self) -> Result<(), Error> {
        let sent = self.sender.send().await;
        self.metrics.heartbeat(sent.is_ok());
        sent
    }
}
