//! Reads request bodies within bounds of size, time and memory.
//!
//! Memory is taken as bytes arrive: the buffer of a large body has its full capacity as address space from the start, and
//! the kernel gives a page only when it is written. So there is no second copy while it grows, and nothing beyond the
//! limit. Large bodies are held one at a time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Bodies above this size are held one at a time, in bytes.
const LARGE: usize = 1024 * 1024;

/// The bounds of a request's body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Longest body, in bytes.
    pub bytes: usize,
    /// Longest silence while it is sent.
    pub silence: Duration,
    /// Longest time for all of it.
    pub total: Duration,
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than the limit.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// It did not come in time.
    #[error("the body came too slowly")]
    TooSlow,
    /// Other large bodies were held for the whole time.
    #[error("other large bodies are being read")]
    Busy,
    /// There is no memory for it.
    #[error("no memory for a body of {0} bytes")]
    NoMemory(usize),
    /// The connection broke.
    #[error("the body broke off: {0}")]
    Broken(String),
}

/// A body, and the permit to hold it where it is large. Keep it until the body is dropped.
#[derive(Debug)]
pub struct Whole {
    /// The body.
    pub bytes: Vec<u8>,
    /// The permit of a large body.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Reads bodies; clones share the one permit for large ones.
#[derive(Clone, Debug)]
pub struct Bodies(Arc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Bodies {
    /// Reads a body to its end. At most 1 MiB is held until the permit for a large body is there.
    ///
    /// # Errors
    /// A bound is exceeded, or the connection breaks. The rest of the body is then not read.
    pub async fn read(&self, body: Body, limits: &BodyLimits) -> Result<Whole, BodyError> {
        let hint = body.size_hint();
        let most = u64::try_from(limits.bytes).unwrap_or(u64::MAX);
        if hint.lower() > most {
            return Err(BodyError::TooLong(limits.bytes));
        }
        // A chunked body does not announce its length.
        let capacity = hint.exact().and_then(|exact| usize::try_from(exact).ok()).unwrap_or(limits.bytes);
        let deadline = Instant::now() + limits.total;
        let mut stream = body.into_data_stream();
        let mut bytes = Vec::new();
        let mut permit = None;
        loop {
            let next = timeout_at(deadline.min(Instant::now() + limits.silence), stream.next());
            let chunk = match next.await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) => return Ok(Whole { bytes, permit }),
                Ok(Some(Err(error))) => return Err(BodyError::Broken(error.to_string())),
                Err(_) => return Err(BodyError::TooSlow),
            };
            let length = bytes.len().saturating_add(chunk.len());
            if length > limits.bytes {
                return Err(BodyError::TooLong(limits.bytes));
            }
            if length > LARGE && permit.is_none() {
                let waited = timeout_at(deadline, self.0.clone().acquire_owned()).await;
                permit = waited.map_err(|_| BodyError::Busy)?.ok();
                let more = capacity.max(length).saturating_sub(bytes.len());
                bytes.try_reserve_exact(more).map_err(|_| BodyError::NoMemory(capacity))?;
            }
            bytes.extend_from_slice(&chunk);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::body::Bytes;
    use futures_util::stream;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits {
        bytes: 64 * 1024 * 1024,
        silence: Duration::from_millis(300),
        total: Duration::from_secs(20),
    };

    /// A chunked body of so many MiB.
    fn chunked(mib: usize) -> Body {
        let piece = Bytes::from(vec![b'x'; 1024 * 1024]);
        Body::from_stream(stream::iter((0..mib).map(move |_| Ok::<_, std::io::Error>(piece.clone()))))
    }

    #[tokio::test]
    async fn a_chunked_body_stays_within_the_limit() {
        let bodies = Bodies::default();
        let whole = bodies.read(chunked(64), &LIMITS).await.unwrap();
        assert_eq!(whole.bytes.len(), LIMITS.bytes);
        assert!(whole.bytes.capacity() <= LIMITS.bytes, "{} bytes", whole.bytes.capacity());
        drop(whole);
        assert!(matches!(bodies.read(chunked(65), &LIMITS).await, Err(BodyError::TooLong(_))));
    }

    #[tokio::test]
    async fn large_bodies_are_held_one_at_a_time() {
        let bodies = Bodies::default();
        let first = bodies.read(chunked(2), &LIMITS).await.unwrap();
        let limits = BodyLimits { total: Duration::from_millis(200), ..LIMITS };
        assert!(matches!(bodies.read(chunked(2), &limits).await, Err(BodyError::Busy)));
        assert!(bodies.read(chunked(1), &limits).await.is_ok(), "a small one needs no permit");
        drop(first);
        assert!(bodies.read(chunked(2), &limits).await.is_ok());
    }

    #[tokio::test]
    async fn silence_ends_the_wait_for_a_body() {
        let silent = stream::pending::<Result<Bytes, std::io::Error>>();
        let read = Bodies::default().read(Body::from_stream(silent), &LIMITS).await;
        assert!(matches!(read, Err(BodyError::TooSlow)));
    }
}
