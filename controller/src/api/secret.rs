//! Who may use the API: requests must carry the controller's token, as `Authorization: Bearer TOKEN`, or as `X-Auth-Token`,
//! which Ironic's clients send. Checked before anything of a body is read.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http_server::Seat;

use super::ApiError;
use crate::controller::Controller;
use crate::token;

/// Answers requests with the token, and no others.
pub async fn require(State(controller): State<Controller>, request: Request, next: Next) -> Response {
    if !is_authorized(&controller, request.headers()) {
        return unauthorized();
    }
    let seat = request.extensions().get::<Seat>().cloned();
    let _answering = seat.as_ref().map(Seat::answer);
    next.run(request).await
}

fn is_authorized(controller: &Controller, headers: &HeaderMap) -> bool {
    let is = |given: &[u8]| token::is(&controller.config.token, given);
    let bearer = |value: &HeaderValue| {
        let value = value.as_bytes();
        let scheme = value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
        scheme && is(value.get(7..).unwrap_or_default().trim_ascii())
    };
    headers.get(header::AUTHORIZATION).is_some_and(bearer)
        || headers.get("x-auth-token").is_some_and(|value| is(value.as_bytes()))
}

fn unauthorized() -> Response {
    let error = ApiError {
        status: StatusCode::UNAUTHORIZED,
        text: "The request needs the controller's token (the file token in its state directory): as the header Authorization: \
               Bearer TOKEN or X-Auth-Token; for commands as FERRIC_TOKEN or --token-file."
            .into(),
    };
    let mut response = error.into_response();
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ferric\""));
    response
}

/// Keeps the connection of a machine that fetches a file, and bounds how many files one address fetches at a time.
pub async fn fetch(request: Request, next: Next) -> Response {
    let Some(seat) = request.extensions().get::<Seat>().cloned() else { return next.run(request).await };
    let Some(answering) = seat.answer_stranger() else {
        let text = "too many requests of this address are being answered; try again".into();
        let mut response = ApiError { status: StatusCode::SERVICE_UNAVAILABLE, text }.into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        return response;
    };
    let response = next.run(request).await;
    // Only a file is sent piece by piece; its length is a header already.
    if !response.headers().contains_key(header::CONTENT_LENGTH) {
        return response;
    }
    response.map(|body| {
        axum::body::Body::from_stream(body.into_data_stream().map(move |piece| {
            let _kept = &answering;
            piece
        }))
    })
}
