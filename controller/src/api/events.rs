//! Ferric's own: what happens to a node, live, and its timeline. Long-polled by `ferric watch`.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::{PowerState, ProvisionState};

use super::ApiError;
use crate::controller::Controller;
use crate::hub::{Page, Relayed};
use crate::record::Record;
use crate::store::Mark;

/// The longest a request is kept open.
const LONGEST_WAIT: u64 = 60;

/// `GET /ferric/v1/nodes/{node}/events?after=N&wait=SECONDS`.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventsReply {
    /// Events numbered above `after`, oldest first.
    pub events: Vec<Relayed>,
    /// Pass this as `after` in the next request.
    pub next: u64,
    /// Whether there are more events already.
    #[serde(default)]
    pub more: bool,
    /// The node as it is now.
    pub node: NodeBrief,
    /// Its timeline so far.
    pub timeline: Vec<Mark>,
}

/// What a watcher needs of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeBrief {
    /// Its id.
    pub uuid: String,
    /// Its name.
    pub name: Option<String>,
    /// Where it stands.
    pub provision_state: ProvisionState,
    /// Where it is going.
    pub target_provision_state: Option<ProvisionState>,
    /// Whether it runs.
    pub power_state: Option<PowerState>,
    /// Why it failed.
    pub last_error: Option<String>,
}

impl NodeBrief {
    fn of(record: &Record) -> Self {
        let node = &record.node;
        Self {
            uuid: node.uuid.to_string(),
            name: node.name.clone(),
            provision_state: node.provision_state,
            target_provision_state: node.target_provision_state,
            power_state: node.power_state,
            last_error: node.last_error.clone(),
        }
    }
}

/// The events after a number; waits for one, or for a change of the node.
pub async fn events(
    State(controller): State<Controller>,
    Path(node): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<EventsReply>, ApiError> {
    let number = |key: &str| match query.get(key) {
        None => Ok(0),
        Some(text) => text.parse::<u64>().map_err(|_| ApiError::bad(format!("{key} must be a whole number"))),
    };
    let after = number("after")?;
    let wait = Duration::from_secs(number("wait")?.min(LONGEST_WAIT));
    let uuid = controller.store.node(&node).await?.node.uuid;
    let page = tokio::select! {
        page = controller.hub.after(uuid, after, wait) => page,
        // The server is about to end: watchers should not hold it up.
        () = controller.shutdown.cancelled() => Page { next: after, ..Page::default() },
    };
    let record = controller.store.node(&uuid.to_string()).await?;
    let timeline = controller.store.marks(uuid).await?;
    let Page { events, next, more } = page;
    Ok(Json(EventsReply { events, next, more, node: NodeBrief::of(&record), timeline }))
}

/// `GET /ferric/v1/nodes/{node}/timeline`.
pub async fn timeline(
    State(controller): State<Controller>,
    Path(node): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let record = controller.store.node(&node).await?;
    let timeline = controller.store.marks(record.node.uuid).await?;
    Ok(Json(json!({ "node": NodeBrief::of(&record), "timeline": timeline })))
}
