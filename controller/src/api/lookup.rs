//! `GET /v1/lookup`: a ramdisk asks which node it is. The first lookup of a boot makes the agent's token; nobody gets it a
//! second time. Source: Ironic `api/controllers/v1/ramdisk.py`; agent protocol page, 3.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Map, json};
use uuid::Uuid;
use wire::{AgentConfig, LookupReply, MASK, Microversion, Secret, normalize_mac};

use super::root::base;
use super::version::Requested;
use super::{ApiError, view};
use crate::controller::Controller;
use crate::record::Record;
use crate::store::{StoreError, lookup_allowed};
use crate::token;

/// Answers a lookup.
pub async fn lookup(
    State(controller): State<Controller>,
    Requested(version): Requested,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Json<LookupReply>, ApiError> {
    if version < Microversion::RAMDISK {
        return Err(ApiError::missing("The resource could not be found."));
    }
    let question = Question::parse(query.as_deref().unwrap_or_default())?;
    let record = find(&controller, &question).await?;
    let node = record.node.uuid;
    let (record, token) = if version >= Microversion::AGENT_TOKEN {
        let fresh = new_token()?;
        let take = move |record: &mut Record| {
            // Between finding and taking it, the node may have been taken back.
            if !lookup_allowed(record.node.provision_state) {
                return Err(StoreError::NoNode(record.node.uuid.to_string()));
            }
            if record.agent.token.is_some() {
                return Ok(Secret::new(MASK));
            }
            record.agent.token = Some(fresh.clone());
            Ok(fresh)
        };
        let (record, token) = controller.store.update(&node.to_string(), take).await?;
        (record, Some(token))
    } else {
        // An old client gets no token at all, least of all one that another client has already.
        (record, None)
    };
    if token.as_ref().is_some_and(|token| token.expose() != MASK) {
        tracing::info!(node = %record.node.label(), "the ramdisk looked its node up");
        controller.mark(node, "lookup").await;
        controller.hub.notice(node, "the ramdisk is up and found its node");
    }
    Ok(Json(LookupReply { node: view::lookup(&record, &base(&headers)), config: config(&controller, token) }))
}

struct Question {
    macs: Vec<String>,
    node: Option<Uuid>,
}

impl Question {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut question = Self { macs: Vec::new(), node: None };
        let pairs: Vec<(String, String)> = form_pairs(query);
        for (key, value) in pairs {
            match key.as_str() {
                "addresses" => {
                    for mac in value.split(',').filter_map(normalize_mac) {
                        if !question.macs.contains(&mac) {
                            question.macs.push(mac);
                        }
                    }
                }
                "node_uuid" => {
                    let uuid = value
                        .parse()
                        .map_err(|_| ApiError::bad(format!("Expected UUID for node_uuid: {value}")))?;
                    question.node = Some(uuid);
                }
                other => return Err(ApiError::bad(format!("Unexpected arguments: {other}"))),
            }
        }
        if question.macs.is_empty() && question.node.is_none() {
            return Err(ApiError::bad(
                "The following parameters are missing: at least one valid MAC address in addresses, or node_uuid",
            ));
        }
        Ok(question)
    }
}

/// The pairs of a query string, decoded.
pub fn form_pairs(query: &str) -> Vec<(String, String)> {
    // The one parser of such texts in the tree, behind axum's own extractor; a list of pairs never fails to parse.
    let uri = format!("/?{query}").parse::<axum::http::Uri>();
    uri.ok()
        .and_then(|uri| axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).ok())
        .map(|query| query.0)
        .unwrap_or_default()
}

async fn find(controller: &Controller, question: &Question) -> Result<Record, ApiError> {
    // The same text for a node that is unknown and for one that may not be looked up now.
    let none = || {
        ApiError::missing(
            "Node could not be found by the given addresses or UUID, or it is in no state for a lookup.",
        )
    };
    let record = match question.node {
        Some(uuid) => match controller.store.node(&uuid.to_string()).await {
            Ok(record) => record,
            Err(StoreError::NoNode(_)) => return Err(none()),
            Err(error) => return Err(error.into()),
        },
        None => {
            let mut found: Option<Record> = None;
            for mac in &question.macs {
                match (controller.store.node_by_mac(mac).await?, &found) {
                    (Some(new), Some(old)) if new.node.uuid != old.node.uuid => return Err(none()),
                    (Some(new), _) => found = Some(new),
                    (None, _) => {}
                }
            }
            found.ok_or_else(none)?
        }
    };
    if lookup_allowed(record.node.provision_state) { Ok(record) } else { Err(none()) }
}

fn new_token() -> Result<Secret, ApiError> {
    token::random()
        .map_err(|error| ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, text: error.to_string() })
}

fn config(controller: &Controller, agent_token: Option<Secret>) -> AgentConfig {
    let rest = json!({
        "metrics": {"backend": "noop", "prepend_host": false, "prepend_uuid": false, "prepend_host_reverse": true, "global_prefix": null},
        "metrics_statsd": {"statsd_host": "localhost", "statsd_port": 8125},
        "agent_containers": {"allow_arbitrary_containers": false, "allowed_containers": [],
            "container_steps_file": "/etc/ironic-python-agent.d/mysteps.yaml", "runner": "podman", "pull_options": [], "run_options": []},
        "tls_cipher_suites": null,
    });
    AgentConfig {
        heartbeat_timeout: controller.config.heartbeat_timeout,
        agent_token,
        agent_token_required: Some(true),
        agent_md5_checksum_enable: Some(false),
        disable_deep_image_inspection: Some(false),
        permitted_image_formats: Some(["raw", "gpt", "qcow2", "iso"].map(String::from).to_vec()),
        agent_skip_bmc_detect: Some(false),
        enable_bios_bootloader_install: Some(controller.config.enable_bios_bootloader_install),
        // Also applies to image downloads, and image servers with TLS 1.2 are many.
        tls_min_version: Some("1.2".into()),
        rest: rest.as_object().cloned().unwrap_or_else(Map::new),
    }
}
