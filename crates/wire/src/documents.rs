//! The version and status documents of the agent's API.
//! Source: ironic-python-agent `api/app.py`; texts as observed (agent protocol page, 1.5).

use serde::{Deserialize, Serialize};

/// A hypertext link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Absolute URL.
    pub href: String,
    /// `self`, `bookmark` or `describedby`.
    pub rel: String,
    /// Media type; only on `describedby`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

impl Link {
    /// A link without a media type.
    pub fn new(rel: &str, href: String) -> Self {
        Self { href, rel: rel.into(), media_type: None }
    }
}

/// One API version in the root document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionDocument {
    /// Always `v1`.
    pub id: String,
    /// `self` and `describedby`.
    pub links: Vec<Link>,
}

impl VersionDocument {
    /// Version one below `root` (scheme and authority, without a trailing slash).
    pub fn v1(root: &str) -> Self {
        let docs = Link {
            href: "https://docs.openstack.org/ironic-python-agent/".into(),
            rel: "describedby".into(),
            media_type: Some("text/html".into()),
        };
        Self { id: "v1".into(), links: vec![Link::new("self", format!("{root}/v1")), docs] }
    }
}

/// `GET /`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDocument {
    /// Ironic-python-agent's text, kept so that a client that compares it goes on working.
    pub name: String,
    /// As `name`.
    pub description: String,
    /// One entry.
    pub versions: Vec<VersionDocument>,
    /// The same entry.
    pub default_version: VersionDocument,
    /// Ferric's own version, where a stranger ignores it: conductors never read this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ferric_version: Option<String>,
}

impl RootDocument {
    /// The document below `root` (scheme and authority, without a trailing slash).
    pub fn at(root: &str) -> Self {
        let version = VersionDocument::v1(root);
        Self {
            name: "OpenStack Ironic Python Agent API".into(),
            description: "Ironic Python Agent is a provisioning agent for OpenStack Ironic".into(),
            versions: vec![version.clone()],
            default_version: version,
            ferric_version: None,
        }
    }

    /// The same, telling Ferric's own version.
    pub fn of_ferric(self, version: &str) -> Self {
        Self { ferric_version: Some(version.into()), ..self }
    }
}

/// A media type offered by `GET /v1/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLink {
    /// `application/json`.
    pub base: String,
    /// The versioned media type.
    #[serde(rename = "type")]
    pub media_type: String,
}

/// `GET /v1/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct V1Document {
    /// Where commands live.
    pub commands: Vec<Link>,
    /// Where the status lives.
    pub status: Vec<Link>,
    /// One entry.
    pub media_types: Vec<ResourceLink>,
    /// `v1`.
    pub id: String,
    /// As in [`VersionDocument`].
    pub links: Vec<Link>,
}

impl V1Document {
    /// The document below `root` (scheme and authority, without a trailing slash).
    pub fn at(root: &str) -> Self {
        let pair = |what: &str| {
            vec![
                Link::new("self", format!("{root}/v1/{what}")),
                Link::new("bookmark", format!("{root}/{what}")),
            ]
        };
        Self {
            commands: pair("commands"),
            status: pair("status"),
            media_types: vec![ResourceLink {
                base: "application/json".into(),
                media_type: "application/vnd.openstack.ironic-python-agent.v1+json".into(),
            }],
            id: "v1".into(),
            links: VersionDocument::v1(root).links,
        }
    }
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Unix time in seconds; null before the agent started.
    pub started_at: Option<f64>,
    /// The same text as `agent_version` in heartbeats.
    pub version: String,
}
