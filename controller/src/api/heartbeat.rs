//! `POST /v1/heartbeat/{node}`: an agent says that it lives, and where. The order of the checks is Ironic's, and so are the
//! answers. Source: Ironic `api/controllers/v1/ramdisk.py`, `conductor/manager.py`; agent protocol page, 4.2.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq;
use wire::{Heartbeat, Microversion, ProvisionState};

use super::ApiError;
use super::version::Requested;
use crate::clock;
use crate::controller::Controller;
use crate::record::Record;
use crate::store::StoreError;

/// Takes a heartbeat. 202 means noted, not acted upon.
pub async fn heartbeat(
    State(controller): State<Controller>,
    Requested(version): Requested,
    Path(node): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let beat = parse(&headers, &body)?;
    if version < Microversion::RAMDISK {
        return Err(ApiError::missing("The resource could not be found."));
    }
    for (given, needed, key) in [
        (beat.agent_version.is_some(), Microversion::AGENT_VERSION, "agent_version"),
        (beat.agent_verify_ca.is_some(), Microversion::AGENT_VERIFY_CA, "agent_verify_ca"),
    ] {
        if given && version < needed {
            return Err(ApiError::bad(format!("Field \"{key}\" needs API version {needed}")));
        }
    }
    let note = move |record: &mut Record| match note(record, &beat) {
        Ok(first) => Ok(first),
        Err(text) => Err(StoreError::Invalid(text)),
    };
    let (record, first) = controller.store.update(&node, note).await?;
    let uuid = record.node.uuid;
    if first {
        tracing::info!(node = %record.node.label(), url = record.agent.url, version = record.agent.version, "the agent called");
        controller.mark(uuid, "first heartbeat").await;
        controller.hub.notice(uuid, "the agent is ready");
    }
    controller.wake_worker(uuid);
    Ok(StatusCode::ACCEPTED)
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Heartbeat, ApiError> {
    let json = headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json"));
    if !json {
        return Err(ApiError::bad(
            "Unexpected arguments: the content type of a heartbeat must be application/json",
        ));
    }
    // The parser's words may quote the body, and the token is in there.
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => ApiError::bad(format!(
                "Invalid heartbeat at {place}: callback_url is mandatory; it, agent_token, agent_version and agent_verify_ca are \
                 texts; there is nothing else"
            )),
            _ => ApiError::bad(format!("The heartbeat is no JSON at {place}")),
        }
    })
}

/// Checks the heartbeat against the record and notes it. Returns whether it is the first of this boot.
fn note(record: &mut Record, beat: &Heartbeat) -> Result<bool, String> {
    let agent = &record.agent;
    if !beat.callback_url.starts_with("http") {
        return Err(
            "An issue with the supplied \"callback_url\" has been detected: it is no HTTP URL.".into()
        );
    }
    if agent.url.as_ref().is_some_and(|known| *known != beat.callback_url) {
        return Err("Detected change in ramdisk provided \"callback_url\"".into());
    }
    let given = match &beat.agent_token {
        None => return Err("Agent token is required for heartbeat processing.".into()),
        Some(token) => token.expose().as_bytes(),
    };
    if beat.agent_version.is_none() {
        return Err("Agent version is required for heartbeat processing.".into());
    }
    let known = agent.token.as_ref().is_some_and(|known| bool::from(known.expose().as_bytes().ct_eq(given)));
    if !known {
        return Err("Invalid or missing agent token received.".into());
    }
    if !beat.callback_url.starts_with("https://") {
        return Err("TLS is required by configuration: the callback URL must be https".into());
    }
    let trimmed = |text: &Option<String>| text.as_deref().map(str::trim).map(str::to_owned);
    if agent.certificate.is_some() && trimmed(&agent.certificate) != trimmed(&beat.agent_verify_ca) {
        return Err("Detected change in ramdisk provided \"agent_verify_ca\"".into());
    }
    let first = agent.url.is_none();
    let now = clock::unix_seconds();
    let agent = &mut record.agent;
    agent.url = Some(beat.callback_url.clone());
    agent.version = beat.agent_version.clone();
    agent.certificate = beat.agent_verify_ca.clone();
    agent.last_heartbeat = Some(now);
    let waits =
        matches!(record.node.provision_state, ProvisionState::WaitCallback | ProvisionState::CleanWait);
    if let (true, Some(work)) = (waits, &mut record.work) {
        work.touched_at = now;
    }
    Ok(first)
}
