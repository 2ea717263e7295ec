//! Error replies: every one at or above 400 is a JSON object with a string `faultstring` (agent protocol page, 1.11).

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use wire::AgentFault;

use super::json;
use crate::command::Fault;

/// An error reply.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

impl ApiError {
    /// `401`: the token is missing, wrong, or not known yet.
    pub(super) fn unauthorized() -> Self {
        Self::framework(StatusCode::UNAUTHORIZED, "Token invalid.")
    }

    /// `<code> <reason>: <description>`, as the web framework of ironic-python-agent words its own errors.
    pub(super) fn framework(status: StatusCode, description: &str) -> Self {
        let reason = status.canonical_reason().unwrap_or("Error");
        Self { status, text: format!("{} {reason}: {description}", status.as_u16()) }
    }

    /// `400` with the reason.
    pub(super) fn bad_request(description: &str) -> Self {
        Self::framework(StatusCode::BAD_REQUEST, description)
    }

    /// `404` of a command id.
    pub(super) fn no_such_result(id: &str) -> Self {
        let text = format!("Not found: Command Result with id {id} not found.");
        Self { status: StatusCode::NOT_FOUND, text }
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, text: fault.text }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        json::reply(self.status, &AgentFault::new(self.status.as_u16(), self.text))
    }
}
