//! The SQLite file: nodes, ports, timeline marks. Every call runs on a blocking thread, every change is one transaction;
//! nothing is cached, so what a reader sees is what survives a `kill -9`. A record is read back before it is committed. One
//! that does not read all the same (another program wrote it) is left out of lists, reported, and can be deleted.

mod schema;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use wire::{Port, ProvisionState};

use crate::clock;
use crate::machine::{self, Verb};
use crate::record::Record;

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such node.
    #[error("node {0} could not be found")]
    NoNode(String),
    /// No such port.
    #[error("port {0} could not be found")]
    NoPort(String),
    /// A name, UUID or MAC address that is taken.
    #[error("{what} {value} is already in use{by}")]
    Taken {
        /// `a node with name`, `a port with MAC address`.
        what: &'static str,
        /// The value.
        value: String,
        /// ` by node x`, where known.
        by: String,
    },
    /// The node is not in a state for this.
    #[error("{0}")]
    Conflict(String),
    /// The caller's change does not apply.
    #[error("{0}")]
    Invalid(String),
    /// SQLite said no.
    #[error("the database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// A record does not read as one.
    #[error("the record of {what} does not parse; delete it and create it again")]
    Damaged {
        /// `node UUID`, `port UUID`.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A record cannot be written, or what was written would not read.
    #[error("the record would not be readable again; is it nested too deep?")]
    Unreadable(#[source] serde_json::Error),
    /// The blocking thread died.
    #[error("the database thread died")]
    Thread,
}

/// A point on a node's timeline.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub struct Mark {
    /// What happened (`power on`, `first byte`).
    pub mark: String,
    /// Unix time.
    pub at: f64,
    /// Seconds since `power on`; absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// A handle to the database; clones share it.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    /// Damaged records that were reported already.
    reported: Arc<Mutex<HashSet<String>>>,
}

impl Store {
    /// Opens the file, making or migrating it as needed.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(path)?;
        schema::prepare(&connection)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), reported: Arc::default() })
    }

    /// Runs `job` in a transaction on a blocking thread; it is committed when `job` returns `Ok`.
    async fn transact<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let shared = self.connection.clone();
        let run = move || {
            // A panic inside a transaction rolled it back: the connection is sound.
            let mut connection = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction()?;
            let value = job(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| StoreError::Thread)?
    }

    /// Every node that reads, by time of creation.
    pub async fn nodes(&self) -> Result<Vec<Record>, StoreError> {
        let store = self.clone();
        self.transact(move |t| {
            let mut statement = t.prepare("SELECT uuid, body FROM nodes ORDER BY rowid")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            store.readable("node", rows)
        })
        .await
    }

    /// The rows that read as records; every other one is reported once.
    fn readable<T: DeserializeOwned>(
        &self,
        kind: &str,
        rows: impl Iterator<Item = rusqlite::Result<(String, String)>>,
    ) -> Result<Vec<T>, StoreError> {
        let mut records = Vec::new();
        for row in rows {
            let (uuid, body) = row?;
            match parse(kind, &uuid, &body) {
                Ok(record) => records.push(record),
                Err(error) => {
                    let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
                    if reported.insert(uuid) {
                        tracing::error!(error = &error as &dyn std::error::Error, "a record was left out");
                    }
                }
            }
        }
        Ok(records)
    }

    /// One node, by UUID or name.
    pub async fn node(&self, ident: &str) -> Result<Record, StoreError> {
        let ident = ident.to_owned();
        self.transact(move |t| find(t, &ident)).await
    }

    /// One node, by the MAC address of one of its ports.
    pub async fn node_by_mac(&self, mac: &str) -> Result<Option<Record>, StoreError> {
        let mac = mac.to_owned();
        self.transact(move |t| {
            let query = "SELECT nodes.uuid, nodes.body FROM nodes JOIN ports ON ports.node_uuid = nodes.uuid WHERE ports.address = ?1";
            let row: Option<(String, String)> =
                t.query_row(query, [mac], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            row.map(|(uuid, body)| parse("node", &uuid, &body)).transpose()
        })
        .await
    }

    /// Adds a node.
    pub async fn create_node(&self, mut record: Record) -> Result<Record, StoreError> {
        self.transact(move |t| {
            record.node.created_at = Some(clock::rfc3339());
            check_unique(t, &record)?;
            t.execute(
                "INSERT INTO nodes (uuid, name, body) VALUES (?1, ?2, ?3)",
                params![record.node.uuid.to_string(), record.node.name, written(&record)?],
            )?;
            Ok(record)
        })
        .await
    }

    /// Changes a node in one transaction: reads it, lets `change` alter it, writes it back. What `change` returns comes back
    /// with the record as written; when it fails nothing is written.
    pub async fn update<T, F>(&self, ident: &str, change: F) -> Result<(Record, T), StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Record) -> Result<T, StoreError> + Send + 'static,
    {
        let ident = ident.to_owned();
        self.transact(move |t| {
            let mut record = find(t, &ident)?;
            let before = record.node.provision_state;
            let value = change(&mut record)?;
            record.node.updated_at = Some(clock::rfc3339());
            if record.node.provision_state != before {
                record.node.provision_updated_at = record.node.updated_at.clone();
            }
            check_unique(t, &record)?;
            t.execute(
                "UPDATE nodes SET name = ?2, body = ?3 WHERE uuid = ?1",
                params![record.node.uuid.to_string(), record.node.name, written(&record)?],
            )?;
            Ok((record, value))
        })
        .await
    }

    /// Forgets a node, its ports and its marks.
    pub async fn delete_node(&self, uuid: Uuid) -> Result<(), StoreError> {
        self.transact(move |t| {
            let uuid = uuid.to_string();
            t.execute("DELETE FROM marks WHERE node_uuid = ?1", [&uuid])?;
            t.execute("DELETE FROM ports WHERE node_uuid = ?1", [&uuid])?;
            match t.execute("DELETE FROM nodes WHERE uuid = ?1", [&uuid])? {
                0 => Err(StoreError::NoNode(uuid)),
                _ => Ok(()),
            }
        })
        .await
    }

    /// The UUID of a node, by UUID or name, whether its record reads or not.
    pub async fn node_uuid(&self, ident: &str) -> Result<Uuid, StoreError> {
        let ident = ident.to_owned();
        self.transact(move |t| {
            let uuid = ident.parse::<Uuid>().map(|u| u.to_string()).ok();
            let query = "SELECT uuid FROM nodes WHERE uuid = ?1 OR name = ?2";
            let found: Option<String> =
                t.query_row(query, params![uuid, ident], |row| row.get(0)).optional()?;
            found.and_then(|uuid| uuid.parse().ok()).ok_or(StoreError::NoNode(ident))
        })
        .await
    }

    /// The ports of one node, or of all, that read.
    pub async fn ports(&self, node: Option<Uuid>) -> Result<Vec<Port>, StoreError> {
        let store = self.clone();
        self.transact(move |t| {
            let mut statement =
                t.prepare("SELECT uuid, body FROM ports WHERE ?1 IS NULL OR node_uuid = ?1 ORDER BY rowid")?;
            let rows =
                statement.query_map([node.map(|n| n.to_string())], |row| Ok((row.get(0)?, row.get(1)?)))?;
            store.readable("port", rows)
        })
        .await
    }

    /// Adds a port.
    pub async fn create_port(&self, mut port: Port) -> Result<Port, StoreError> {
        self.transact(move |t| {
            find(t, &port.node_uuid.to_string())?;
            let query = "SELECT node_uuid FROM ports WHERE address = ?1 OR uuid = ?2";
            let taken: Option<String> = t
                .query_row(query, params![port.address, port.uuid.to_string()], |row| row.get(0))
                .optional()?;
            if let Some(node) = taken {
                let what = "a port with MAC address";
                return Err(StoreError::Taken { what, value: port.address, by: format!(" by node {node}") });
            }
            port.created_at = Some(clock::rfc3339());
            t.execute(
                "INSERT INTO ports (uuid, address, node_uuid, body) VALUES (?1, ?2, ?3, ?4)",
                params![port.uuid.to_string(), port.address, port.node_uuid.to_string(), written(&port)?],
            )?;
            Ok(port)
        })
        .await
    }

    /// One port, by UUID or MAC address.
    pub async fn port(&self, ident: &str) -> Result<Port, StoreError> {
        let ident = ident.to_owned();
        self.transact(move |t| {
            let query = "SELECT uuid, body FROM ports WHERE uuid = ?1 OR address = ?2";
            let mac = wire::normalize_mac(&ident);
            let row: Option<(String, String)> =
                t.query_row(query, params![ident, mac], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let (uuid, body) = row.ok_or(StoreError::NoPort(ident))?;
            parse("port", &uuid, &body)
        })
        .await
    }

    /// Forgets a port.
    pub async fn delete_port(&self, uuid: Uuid) -> Result<(), StoreError> {
        self.transact(move |t| match t.execute("DELETE FROM ports WHERE uuid = ?1", [uuid.to_string()])? {
            0 => Err(StoreError::NoPort(uuid.to_string())),
            _ => Ok(()),
        })
        .await
    }

    /// Notes that something happened to a node, the first time it does in this deployment. Returns whether it was news.
    pub async fn mark(&self, node: Uuid, mark: &'static str) -> Result<bool, StoreError> {
        let at = clock::unix_seconds();
        self.transact(move |t| {
            let query = "INSERT OR IGNORE INTO marks (node_uuid, mark, at) VALUES (?1, ?2, ?3)";
            Ok(t.execute(query, params![node.to_string(), mark, at])? > 0)
        })
        .await
    }

    /// Forgets a node's timeline: a new deployment begins.
    pub async fn clear_marks(&self, node: Uuid) -> Result<(), StoreError> {
        self.transact(move |t| {
            t.execute("DELETE FROM marks WHERE node_uuid = ?1", [node.to_string()])?;
            Ok(())
        })
        .await
    }

    /// A node's timeline, oldest first.
    pub async fn marks(&self, node: Uuid) -> Result<Vec<Mark>, StoreError> {
        self.transact(move |t| {
            let mut statement =
                t.prepare("SELECT mark, at FROM marks WHERE node_uuid = ?1 ORDER BY at, rowid")?;
            let rows = statement.query_map([node.to_string()], |row| {
                Ok(Mark { mark: row.get(0)?, at: row.get(1)?, seconds: None })
            })?;
            let mut marks: Vec<Mark> = rows.collect::<Result<_, _>>()?;
            let start = marks.iter().find(|m| m.mark == "power on").map(|m| m.at);
            for mark in &mut marks {
                mark.seconds = start.map(|start| mark.at - start);
            }
            Ok(marks)
        })
        .await
    }
}

/// Moves a record along the state machine, or says why it can not go there.
pub fn apply(record: &mut Record, verb: Verb) -> Result<(), StoreError> {
    let node = &mut record.node;
    let Some(step) = machine::next(node.provision_state, node.target_provision_state, verb) else {
        return Err(StoreError::Conflict(format!(
            "the requested action \"{}\" can not be performed on node \"{}\" while it is in state \"{}\" (possible from: {})",
            verb.name(),
            node.label(),
            node.provision_state,
            machine::allowed_from(verb).join(", ")
        )));
    };
    tracing::info!(
        node = %node.label(), from = %node.provision_state, to = %step.state, verb = verb.name(), "provision state changed"
    );
    node.provision_state = step.state;
    node.target_provision_state = step.target;
    Ok(())
}

fn find(t: &Transaction<'_>, ident: &str) -> Result<Record, StoreError> {
    let query = "SELECT uuid, body FROM nodes WHERE uuid = ?1 OR name = ?2";
    // A UUID in another spelling is the same UUID.
    let uuid = ident.parse::<Uuid>().map(|u| u.to_string()).ok();
    let row: Option<(String, String)> =
        t.query_row(query, params![uuid, ident], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (uuid, body) = row.ok_or_else(|| StoreError::NoNode(ident.to_owned()))?;
    parse("node", &uuid, &body)
}

fn parse<T: DeserializeOwned>(kind: &str, uuid: &str, body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body)
        .map_err(|source| StoreError::Damaged { what: format!("{kind} {uuid}"), source })
}

/// The text of a record, which was read back: what is committed can be read.
fn written<T: Serialize + DeserializeOwned>(record: &T) -> Result<String, StoreError> {
    let text = serde_json::to_string(record).map_err(StoreError::Unreadable)?;
    serde_json::from_str::<T>(&text).map_err(StoreError::Unreadable)?;
    Ok(text)
}

fn check_unique(t: &Transaction<'_>, record: &Record) -> Result<(), StoreError> {
    let uuid = record.node.uuid.to_string();
    if record.node.created_at.is_some() && record.node.updated_at.is_none() {
        let there: Option<i64> =
            t.query_row("SELECT 1 FROM nodes WHERE uuid = ?1", [&uuid], |row| row.get(0)).optional()?;
        if there.is_some() {
            return Err(StoreError::Taken { what: "a node with UUID", value: uuid, by: String::new() });
        }
    }
    if let Some(name) = &record.node.name {
        let query = "SELECT uuid FROM nodes WHERE name = ?1 AND uuid != ?2";
        let taken: Option<String> = t.query_row(query, params![name, uuid], |row| row.get(0)).optional()?;
        if let Some(other) = taken {
            let by = format!(" by node {other}");
            return Err(StoreError::Taken { what: "a node with name", value: name.clone(), by });
        }
    }
    Ok(())
}

/// Whether a machine in this state may be looked up by its agent (Ironic's `restrict_lookup`).
pub fn lookup_allowed(state: ProvisionState) -> bool {
    matches!(
        state,
        ProvisionState::Deploying
            | ProvisionState::WaitCallback
            | ProvisionState::Cleaning
            | ProvisionState::CleanWait
    )
}

#[cfg(test)]
mod tests;
