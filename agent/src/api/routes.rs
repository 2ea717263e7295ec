//! The table of paths, and what is common to all requests: 404, 405, redirects, the request log.
//! Source: agent protocol page, 1.2, 1.5, 1.13.

use std::net::IpAddr;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use wire::{AgentStatus, RootDocument, V1Document};

use super::error::ApiError;
use super::{Api, commands, events, json};

/// The peer of a connection; put into every request by the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Every route exists with and without `/v1`, but for the version documents and our own event endpoint.
pub(super) fn router(api: Api) -> Router {
    let list = || get(commands::list).post(commands::run);
    let one = || get(commands::one);
    Router::new()
        .route("/", known(get(root)))
        .route("/v1/", known(get(v1)))
        .route("/v1", any(with_slash))
        .route("/v1/status", known(get(status)))
        .route("/status", known(get(status)))
        .route("/v1/commands/", known(list()))
        .route("/commands/", known(list()))
        .route("/v1/commands", any(with_slash))
        .route("/commands", any(with_slash))
        .route("/v1/commands/{id}", known(one()))
        .route("/commands/{id}", known(one()))
        .route("/v1/events", known(get(events::events)))
        .fallback(not_found)
        .layer(from_fn(log_request))
        .with_state(api)
}

/// A path's methods; any other is refused in the words of the protocol (axum adds `Allow`).
fn known(methods: MethodRouter<Api>) -> MethodRouter<Api> {
    methods.fallback(|| async {
        ApiError::framework(
            StatusCode::METHOD_NOT_ALLOWED,
            "The method is not allowed for the requested URL.",
        )
    })
}

async fn not_found() -> ApiError {
    ApiError::framework(StatusCode::NOT_FOUND, "The requested URL was not found on the server.")
}

async fn root(State(api): State<Api>, request: Request) -> Response {
    json::reply(StatusCode::OK, &RootDocument::at(&api.base_url(&request)))
}

async fn v1(State(api): State<Api>, request: Request) -> Response {
    json::reply(StatusCode::OK, &V1Document::at(&api.base_url(&request)))
}

async fn status(State(api): State<Api>) -> Response {
    let status = AgentStatus {
        started_at: Some(api.started_at),
        version: wire::AGENT_PROTOCOL_VERSION.into(),
        ferric_version: Some(env!("CARGO_PKG_VERSION").into()),
    };
    json::reply(StatusCode::OK, &status)
}

impl Api {
    /// Scheme and authority as the client wrote them, without a trailing slash.
    fn base_url(&self, request: &Request) -> String {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        format!("{}://{host}", self.scheme)
    }
}

/// The path with its slash at the end: a redirect that keeps method and query.
async fn with_slash(State(api): State<Api>, request: Request) -> Response {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("{}{}/{query}", api.base_url(&request), request.uri().path());
    let Ok(location) = HeaderValue::from_str(&location) else {
        return not_found().await.into_response();
    };
    let page = "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n\
                <p>The URL ends with a slash.</p>\n";
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, location), (CONTENT_TYPE, html)], page).into_response()
}

async fn log_request(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let target = masked(request.uri());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let response = next.run(request).await;
    tracing::debug!(
        peer = peer.map(tracing::field::display),
        %method,
        target,
        status = response.status().as_u16(),
        milliseconds = begun.elapsed().as_secs_f64() * 1000.0,
        "request"
    );
    response
}

/// Path and query, with the value of `agent_token` hidden.
fn masked(uri: &Uri) -> String {
    let Some(query) = uri.query() else { return uri.path().to_owned() };
    let words: Vec<_> = query
        .split('&')
        .map(|word| if word.starts_with("agent_token=") { "agent_token=***" } else { word })
        .collect();
    format!("{}?{}", uri.path(), words.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_log_never_shows_the_token() {
        let uri: Uri = "/v1/commands/?wait=true&agent_token=s3cret&x=1".parse().unwrap();
        assert_eq!(masked(&uri), "/v1/commands/?wait=true&agent_token=***&x=1");
        assert_eq!(masked(&Uri::from_static("/")), "/");
    }
}
