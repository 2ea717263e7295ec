//! `commands/`: run one, list them, show one. The token is checked before anything of the body is read.

use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use http_server::{Answering, BodyError, Seat};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;
use wire::CommandRequest;

use super::error::ApiError;
use super::{Api, json};

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
    /// The query arguments of one who knows the token, and word to the server that this connection is to stay.
    pub(super) fn authorize(&self, request: &Request) -> Result<(Arguments, Option<Answering>), ApiError> {
        let arguments = Arguments::of(request.uri());
        match self.token.is(arguments.agent_token.as_deref()) {
            true => Ok((arguments, request.extensions().get::<Seat>().map(Seat::answer))),
            false => Err(ApiError::unauthorized()),
        }
    }
}

pub(super) async fn list(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let _answering = api.authorize(&request)?;
    Ok(json::reply_pieces(StatusCode::OK, api.executor.list()))
}

pub(super) async fn one(
    State(api): State<Api>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (arguments, _answering) = api.authorize(&request)?;
    let wait = arguments.waits();
    // Ids are compared as text: another way to write the same id is another id.
    let uuid = id.parse::<Uuid>().ok().filter(|uuid| uuid.to_string() == id);
    let found = match uuid {
        Some(uuid) => api.executor.find_finished(uuid, wait).await,
        None => None,
    };
    let record = found.ok_or_else(|| ApiError::no_such_result(&id))?;
    Ok(json::reply_pieces(StatusCode::OK, record.json().clone()))
}

pub(super) async fn run(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (arguments, _answering) = api.authorize(&request)?;
    let body = api.bodies.read(request.into_body(), &api.body).await?;
    let command = envelope(&body.bytes)?;
    drop(body.bytes); // a config drive may be in it
    let begun = api.executor.begin(command).await?;
    drop(body.permit);
    let record = if arguments.waits() { api.executor.finished(begun).await } else { begun };
    Ok(json::reply_pieces(StatusCode::OK, record.json().clone()))
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TooSlow | BodyError::Busy => StatusCode::REQUEST_TIMEOUT,
            BodyError::NoMemory(_) => StatusCode::SERVICE_UNAVAILABLE,
            BodyError::Broken(_) => StatusCode::BAD_REQUEST,
        };
        Self::framework(status, &error.to_string())
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
