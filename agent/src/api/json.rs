//! Replies with a JSON body. `Content-Length` is always set, as ironic-python-agent does; nothing is chunked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;

use crate::json::{Pieces, to_ascii};

/// A reply with a JSON body.
pub(super) fn reply(status: StatusCode, value: &impl Serialize) -> Response {
    match to_ascii(value) {
        Ok(body) => with_type(status, Body::from(body)),
        Err(error) => {
            tracing::error!(%error, "a reply can not be written as JSON");
            let body = br#"{"faultcode":"Server","faultstring":"500 Internal Server Error"}"#;
            with_type(StatusCode::INTERNAL_SERVER_ERROR, Body::from(body.as_slice()))
        }
    }
}

/// A reply with a body that is JSON already. Its pieces are sent from where they are.
pub(super) fn reply_pieces(status: StatusCode, pieces: Pieces) -> Response {
    let left = pieces.len() as u64; // usize fits u64 on every target of this agent
    with_type(status, Body::new(PiecesBody { pieces: pieces.into_inner().into(), left }))
}

fn with_type(status: StatusCode, body: Body) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// A body of known length in pieces.
struct PiecesBody {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl HttpBody for PiecesBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        if let Some(piece) = &piece {
            self.left = self.left.saturating_sub(piece.len() as u64); // as above
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
