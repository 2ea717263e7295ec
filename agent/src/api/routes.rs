//! The table of paths, and what is common to all requests: 404, 405, redirects. Source: agent protocol page, 1.2, 1.5.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use wire::{AgentStatus, RootDocument, V1Document};

use super::error::ApiError;
use super::{Api, commands, events, json, metrics, request_log};

/// Every route exists with and without `/v1`, but for the version documents and our own endpoints.
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
        .route("/metrics", known(get(metrics::metrics)))
        .fallback(not_found)
        .layer(from_fn_with_state(api.clone(), request_log::observe))
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
    json::reply(
        StatusCode::OK,
        &RootDocument::at(&api.base_url(&request)).of_ferric(env!("CARGO_PKG_VERSION")),
    )
}

async fn v1(State(api): State<Api>, request: Request) -> Response {
    json::reply(StatusCode::OK, &V1Document::at(&api.base_url(&request)))
}

async fn status(State(api): State<Api>) -> Response {
    let status =
        AgentStatus { started_at: Some(api.started_at), version: wire::AGENT_PROTOCOL_VERSION.into() };
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
