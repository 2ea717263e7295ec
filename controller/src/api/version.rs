//! Microversions: what the client asks for, what we implement, and the headers that say so. Source: Ironic
//! `api/controllers/root.py`, `v1/__init__.py`.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use wire::Microversion;

/// What a request without the header means.
pub const MINIMUM: Microversion = Microversion::new(1, 1);
/// What we implement: up to the heartbeat's certificate, the newest that agents ask for.
pub const MAXIMUM: Microversion = Microversion::AGENT_VERIFY_CA;

const MINIMUM_HEADER: &str = "X-OpenStack-Ironic-API-Minimum-Version";
const MAXIMUM_HEADER: &str = "X-OpenStack-Ironic-API-Maximum-Version";

/// The version of this request.
#[derive(Clone, Copy, Debug)]
pub struct Requested(pub Microversion);

impl<S: Sync> FromRequestParts<S> for Requested {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(Self(MINIMUM)))
    }
}

/// Reads the version header, refuses what we do not implement, and says in every reply what we do.
pub async fn negotiate(mut request: Request, next: Next) -> Response {
    let (mut response, version) = match requested(request.headers()) {
        Ok(version) => {
            request.extensions_mut().insert(Requested(version));
            (next.run(request).await, version)
        }
        Err(text) => (not_acceptable(&text), MAXIMUM),
    };
    let headers = response.headers_mut();
    for (name, value) in
        [(MINIMUM_HEADER, MINIMUM), (MAXIMUM_HEADER, MAXIMUM), (Microversion::HEADER, version)]
    {
        // "1.68" is a valid header value.
        if let (Ok(name), Ok(value)) =
            (axum::http::HeaderName::try_from(name), HeaderValue::from_str(&value.to_string()))
        {
            headers.insert(name, value);
        }
    }
    response
}

fn requested(headers: &HeaderMap) -> Result<Microversion, String> {
    let Some(value) = headers.get(Microversion::HEADER) else { return Ok(MINIMUM) };
    let text = value.to_str().unwrap_or_default().trim();
    if text.eq_ignore_ascii_case("latest") {
        return Ok(MAXIMUM);
    }
    let version: Microversion = text
        .parse()
        .map_err(|_| format!("Invalid value for {} header: \"{text}\".", Microversion::HEADER))?;
    if version < MINIMUM || version > MAXIMUM {
        return Err(format!(
            "Version {version} was requested but is not supported by this API service. The supported version range is: [{MINIMUM}, {MAXIMUM}]."
        ));
    }
    Ok(version)
}

fn not_acceptable(text: &str) -> Response {
    let inner = json!({ "code": 406, "title": "Not Acceptable", "description": text, "faultstring": text });
    (StatusCode::NOT_ACCEPTABLE, Json(json!({ "error_message": inner.to_string() }))).into_response()
}
