//! `commands/`: run one, list them, show one. The token is checked before anything of the body is read.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value};
use wire::CommandRequest;

use super::error::ApiError;
use super::{Api, json};

/// Longest silence while a body is sent.
const BODY_SILENCE: Duration = Duration::from_secs(30);

/// The query arguments; unknown ones are ignored.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Arguments {
    pub(super) agent_token: Option<String>,
    pub(super) wait: Option<String>,
    pub(super) after: Option<String>,
}

impl Arguments {
    pub(super) fn of(uri: &Uri) -> Self {
        Query::<Self>::try_from_uri(uri).map(|Query(arguments)| arguments).unwrap_or_default()
    }

    /// Only the word `true` waits.
    fn waits(&self) -> bool {
        self.wait.as_ref().is_some_and(|wait| wait.eq_ignore_ascii_case("true"))
    }
}

impl Api {
    /// The query arguments of one who knows the token.
    pub(super) fn authorize(&self, uri: &Uri) -> Result<Arguments, ApiError> {
        let arguments = Arguments::of(uri);
        match self.token.is(arguments.agent_token.as_deref()) {
            true => Ok(arguments),
            false => Err(ApiError::unauthorized()),
        }
    }
}

pub(super) async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    api.authorize(&uri)?;
    let body = api.executor.with_list(json::to_ascii);
    Ok(match body {
        Ok(body) => json::reply_bytes(StatusCode::OK, body),
        Err(error) => return Err(ApiError::framework(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())),
    })
}

pub(super) async fn one(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let wait = api.authorize(&uri)?.waits();
    match api.executor.find_finished(&id, wait).await {
        Some(result) => Ok(json::reply(StatusCode::OK, &result)),
        None => Err(ApiError::no_such_result(&id)),
    }
}

pub(super) async fn run(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let wait = api.authorize(request.uri())?.waits();
    let body = read(request.into_body(), api.body_limit).await?;
    let request = envelope(&body)?;
    drop(body); // a config drive may be in it
    let result = api.executor.execute(request, wait).await?;
    Ok(json::reply(StatusCode::OK, &result))
}

/// Reads a body within its bounds of size and time.
async fn read(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    loop {
        let chunk = match tokio::time::timeout(BODY_SILENCE, stream.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(error))) => {
                return Err(ApiError::bad_request(&format!("the body broke off: {error}")));
            }
            Err(_) => {
                return Err(ApiError::framework(StatusCode::REQUEST_TIMEOUT, "the body came too slowly"));
            }
        };
        if bytes.len().saturating_add(chunk.len()) > limit {
            let text = format!("the body is longer than {limit} bytes");
            return Err(ApiError::framework(StatusCode::PAYLOAD_TOO_LARGE, &text));
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// `{"name": ..., "params": {...}}`, whatever the content type says.
fn envelope(body: &[u8]) -> Result<CommandRequest, ApiError> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(&format!("the body is not JSON: {error}")))?;
    let missing = || ApiError::bad_request("Missing or invalid name or params");
    let Value::Object(mut body) = value else { return Err(missing()) };
    let name = body.shift_remove("name").and_then(|name| name.as_str().map(str::to_owned));
    let params: Option<Map<String, Value>> = match body.shift_remove("params") {
        Some(Value::Object(params)) => Some(params),
        _ => None,
    };
    match (name, params) {
        (Some(name), Some(params)) => Ok(CommandRequest { name, params }),
        _ => Err(missing()),
    }
}
