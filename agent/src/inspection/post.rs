//! Delivers the body: each URL in turn, several times over. Source: agent protocol page, 6.5.
//!
//! No version header: Ironic takes that for 1.1, the one old version in which it knows this call.

use std::time::Duration;

use events::{EventKind, Events, Phase};
use reqwest::Method;
use serde_json::Value;

use crate::conductor::{self, Client, Reply};

/// The pauses between attempts; there is one attempt more than pauses.
#[derive(Clone, Debug)]
pub struct Pauses(pub Vec<Duration>);

impl Default for Pauses {
    fn default() -> Self {
        Self([5, 5, 6, 12].map(Duration::from_secs).into())
    }
}

/// Why nobody has the data.
#[derive(Debug)]
pub(super) enum Error {
    /// Somebody answered and does not want them: asking again would change nothing.
    Refused(conductor::Error),
    /// Nobody answered, or in a way that may change: connection failures, timeouts, 409 and 5xx.
    Unreachable { attempts: u32, source: conductor::Error },
}

/// Posts until somebody takes it. `Some` is the id of the node in the reply.
pub(super) async fn post(
    client: &Client,
    body: &[u8],
    pauses: &Pauses,
    events: &Events,
) -> Result<Option<String>, Error> {
    let attempts = u32::try_from(pauses.0.len()).unwrap_or(u32::MAX).saturating_add(1);
    let mut pauses = pauses.0.iter();
    let mut attempt = 1;
    loop {
        let source = match attempt_once(client, body).await {
            Ok(reply) => return Ok(node_uuid(&reply)),
            Err(error) if may_change(&error) || is_maybe_early(&error) => error,
            Err(error) => return Err(Error::Refused(error)),
        };
        let Some(pause) = pauses.next() else {
            return Err(match may_change(&source) {
                true => Error::Unreachable { attempts, source },
                false => Error::Refused(source),
            });
        };
        attempt += 1;
        events.emit(EventKind::Retrying {
            phase: Phase::Inspection,
            reason: hwm::chain(&source),
            attempt,
            attempts,
            delay_seconds: pause.as_secs_f64(),
            resume_at: 0,
        });
        tokio::time::sleep(*pause).await;
    }
}

async fn attempt_once(client: &Client, body: &[u8]) -> Result<Reply, conductor::Error> {
    let reply = client.call(Method::POST, "", None, Some(body)).await?;
    if (200..300).contains(&reply.status) { Ok(reply) } else { Err(reply.into_error()) }
}

/// Whether the same request may fare better later. Unlike upstream, which ends at once, a reply that did not come in time counts
/// as a failed connection.
fn may_change(error: &conductor::Error) -> bool {
    match error.status() {
        Some(status) => status == 409 || status >= 500,
        None => true,
    }
}

/// Whether this may be a machine that was faster than the conductor: Ironic answers 404 until it has finished switching the
/// machine on and waits for the data. Upstream takes longer to start than that, and does not ask again.
fn is_maybe_early(error: &conductor::Error) -> bool {
    error.status() == Some(404)
}

/// The id of the node, where the reply has one. A reply that is no JSON (a portal's page, say) is taken for none.
fn node_uuid(reply: &Reply) -> Option<String> {
    const EXPECTED: &str = "JSON with the id of the node";
    match reply.json::<Value>(EXPECTED) {
        Ok(reply) => {
            reply.get("uuid").and_then(Value::as_str).filter(|uuid| !uuid.is_empty()).map(str::to_owned)
        }
        Err(error) => {
            tracing::warn!(error = hwm::chain(&error), "the reply to the inspection data is not understood");
            None
        }
    }
}
