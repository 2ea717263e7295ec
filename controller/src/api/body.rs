//! Reads the JSON bodies of requests before their handlers run: within bounds of size, time, memory and nesting, and only
//! as what they are declared to be.

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_server::{BodyError, BodyLimits};
use std::time::Duration;

use super::ApiError;
use crate::controller::Controller;
use crate::json;

/// Ironic's limit of a heartbeat; nodes and ports are smaller still. In bytes.
const BODY_LIMIT: usize = 1 << 20;
/// A provision request may carry a config drive of 64 MiB in base64. In bytes.
const PROVISION_LIMIT: usize = 96 << 20;

/// Reads the body and hands it on whole.
pub async fn read(State(controller): State<Controller>, request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
        return next.run(request).await;
    }
    let path =
        request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let bytes = if path.ends_with("/states/provision") { PROVISION_LIMIT } else { BODY_LIMIT };
    let limits = BodyLimits { bytes, silence: Duration::from_secs(30), total: Duration::from_secs(300) };
    let (parts, body) = request.into_parts();
    // A heartbeat of another type has an answer of its own, which is Ironic's.
    if !body.is_end_stream() && !is_json(&parts.headers) && !path.starts_with("/v1/heartbeat") {
        let text = "The body of the request must be JSON, and its Content-Type application/json.".into();
        return ApiError { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, text }.into_response();
    }
    let whole = match controller.bodies.read(body, &limits).await {
        Ok(whole) => whole,
        Err(error) => return ApiError::from(error).into_response(),
    };
    if json::depth(&whole.bytes) > json::DEEPEST {
        return ApiError::bad(format!("The request body is nested deeper than {} levels.", json::DEEPEST))
            .into_response();
    }
    let response = next.run(Request::from_parts(parts, Body::from(whole.bytes))).await;
    drop(whole.permit); // held while the handler had the body
    response
}

/// `application/json`, or a type that is written as JSON (`application/json-patch+json`).
fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            BodyError::Busy | BodyError::NoMemory(_) => StatusCode::SERVICE_UNAVAILABLE,
            BodyError::Broken(_) => StatusCode::BAD_REQUEST,
        };
        Self { status, text: error.to_string() }
    }
}
