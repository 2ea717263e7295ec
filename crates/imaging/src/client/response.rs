//! An answer whose body is still to come.

use std::sync::PoisonError;

use super::connection::Connection;
use super::error::HttpError;
use super::head::{Fields, Framing, Head};
use super::{IdlePlace, Route};

/// The status and the fields of an answer, and the way to its body.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    framing: Framing,
    /// Bytes that are left of the body, or of the chunk.
    left: u64,
    /// Whether a chunk was begun, whose line has to be ended.
    in_chunk: bool,
    /// Gone when the body was read to its end.
    connection: Option<Connection>,
    keeps_connection: bool,
    route: Route,
    idle: IdlePlace,
}

impl Response {
    pub(super) fn new(
        head: Head,
        connection: Connection,
        route: Route,
        idle: IdlePlace,
    ) -> Result<Self, HttpError> {
        let framing = Framing::of(&head).map_err(HttpError::Malformed)?;
        let left = match framing {
            Framing::Length(length) => length,
            Framing::Chunked | Framing::Close => 0,
        };
        let mut response = Self {
            status: head.status,
            keeps_connection: head.keeps_connection(),
            fields: head.fields,
            framing,
            left,
            in_chunk: false,
            connection: Some(connection),
            route,
            idle,
        };
        if response.framing == Framing::Length(0) {
            // An answer without a body, as redirects often are: the next request may follow at once.
            response.finish();
        }
        Ok(response)
    }

    /// Length of the body, where the head says it.
    pub(crate) fn length(&self) -> Option<u64> {
        match self.framing {
            // Right only before the first byte was taken, which is when it is asked for.
            Framing::Length(_) => Some(self.left),
            Framing::Chunked | Framing::Close => None,
        }
    }

    /// Waits for bytes of the body. Returns how many are available; 0 at its end.
    pub(crate) async fn ready(&mut self) -> Result<usize, HttpError> {
        loop {
            let Some(connection) = &mut self.connection else { return Ok(0) };
            match self.framing {
                Framing::Close => {
                    if connection.fill().await? {
                        return Ok(connection.available().len());
                    }
                    self.connection = None;
                }
                Framing::Length(_) | Framing::Chunked if self.left > 0 => {
                    if !connection.fill().await? {
                        return Err(HttpError::Truncated);
                    }
                    let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                    return Ok(connection.available().len().min(left));
                }
                Framing::Length(_) => self.finish(),
                Framing::Chunked => {
                    if self.in_chunk {
                        connection.chunk_end().await?;
                    }
                    self.left = connection.chunk_length().await?;
                    self.in_chunk = self.left > 0;
                    if self.left == 0 {
                        // All of the body is there, whatever becomes of the fields behind it.
                        self.keeps_connection &= connection.trailers().await.is_ok();
                        self.finish();
                    }
                }
            }
        }
    }

    /// Returns bytes that [`Response::ready`] counted.
    pub(crate) fn available(&self, count: usize) -> &[u8] {
        self.connection
            .as_ref()
            .and_then(|connection| connection.available().get(..count))
            .unwrap_or_default()
    }

    /// Takes bytes that [`Response::ready`] counted.
    pub(crate) fn consume(&mut self, count: usize) {
        if let Some(connection) = &mut self.connection {
            connection.consume(count);
        }
        // Where the connection ends the body, nothing is counted.
        self.left = self.left.saturating_sub(count as u64);
    }

    /// The body ended: the connection is kept for another request, where it may be.
    fn finish(&mut self) {
        let connection = self.connection.take();
        if let Some(connection) =
            connection.filter(|connection| self.keeps_connection && connection.available().is_empty())
        {
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((self.route.clone(), connection));
        }
    }
}
