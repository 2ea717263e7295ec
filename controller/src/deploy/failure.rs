//! When an operation fails: collect the agent's logs, switch the machine off, and leave a message on the node that names the
//! node, the step, the reason and what to do.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use events::{EventKind, Phase};
use serde_json::{Map, Value};
use wire::{PowerState, ProvisionState};

use super::Trouble;
use crate::agent_client::AgentClient;
use crate::clock;
use crate::controller::Controller;
use crate::hub::Source;
use crate::machine::Verb;
use crate::record::{BootDevice, Record};
use crate::store::{StoreError, apply};

impl Controller {
    /// Ends the node's operation in failure. An error means that not even that could be recorded.
    pub(super) async fn fail(&self, record: &Record, trouble: &Trouble) -> Result<(), StoreError> {
        if let Trouble::Store(error) = trouble {
            // Nothing is known about the node then, least of all that its operation failed.
            tracing::error!(node = %record.node.label(), error = error as &dyn std::error::Error, "the store failed");
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            return Ok(());
        }
        let label = record.node.label();
        let state = record.node.provision_state;
        let mut message = format!("node {label} failed {}", describe(record, trouble));
        let uses_machine = !matches!(state, ProvisionState::Verifying | ProvisionState::Deleting);
        if uses_machine {
            if let Some(path) = self.collect_logs(record).await {
                message += &format!("; the agent's logs are in {}", path.display());
            }
            let off = self
                .power(record, |driver, machine| {
                    driver.power_off(machine)?;
                    driver.set_boot_device(machine, BootDevice::Disk)
                })
                .await;
            match off {
                Ok(()) => message += "; the machine is switched off",
                Err(error) => {
                    tracing::warn!(node = %label, error = &error as &dyn std::error::Error, "switching off failed");
                    message += "; the machine could not be switched off and may still run";
                }
            }
        }
        if let Some(advice) = advice(record, trouble) {
            message += &format!("; {advice}");
        }
        tracing::error!(node = %label, "{message}");
        let kind = EventKind::Failed { phase: Phase::Unknown, message: message.clone() };
        self.hub.push(record.node.uuid, Source::Controller, kind);
        self.change(record, move |record| {
            if uses_machine {
                record.agent = Default::default();
                record.boot = BootDevice::Disk;
                record.node.power_state = Some(PowerState::Off);
                record.node.clean_step.clear();
                record.work = None;
            }
            record.node.last_error = Some(message);
            apply(record, Verb::Fail)
        })
        .await?;
        Ok(())
    }

    /// The agent's logs in a file below `STATE/logs`; `None` when there is no agent or it gives none. Never fails.
    async fn collect_logs(&self, record: &Record) -> Option<PathBuf> {
        record.agent.url.as_ref()?;
        let agent = AgentClient::new(&record.agent).ok()?;
        let result = match agent.run("log.collect_system_logs", Map::new(), true).await {
            Ok(result) => result,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "collecting the agent's logs failed"
                );
                return None;
            }
        };
        let text = result.command_result.as_ref()?.get("system_logs").and_then(Value::as_str)?;
        let bytes = STANDARD.decode(text.trim()).ok()?;
        let name: String = record
            .node
            .label()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .collect();
        let path = self.config.state.join("logs").join(format!("{name}-{}.tar.gz", clock::stamp()));
        let target = path.clone();
        match tokio::task::spawn_blocking(move || write_private(&target, &bytes)).await {
            Ok(Ok(())) => Some(path),
            Ok(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "writing the agent's logs failed");
                None
            }
            Err(_) => None,
        }
    }
}

/// Most bytes of stored logs; the oldest are removed for a new one. One has at most what an answer of an agent has.
const LOGS_LIMIT: u64 = 256 << 20;

/// Removes the oldest logs until `bytes` more fit below `limit`.
fn make_room(directory: &Path, bytes: u64, limit: u64) -> std::io::Result<()> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_file() && entry.file_name().to_string_lossy().ends_with(".tar.gz") {
            logs.push((meta.modified()?, meta.len(), entry.path()));
        }
    }
    logs.sort();
    let mut total = logs.iter().fold(bytes, |sum, (_, size, _)| sum.saturating_add(*size));
    for (_, size, path) in logs {
        if total <= limit {
            break;
        }
        tracing::info!(path = %path.display(), "removing the oldest logs");
        std::fs::remove_file(path)?;
        total = total.saturating_sub(size);
    }
    Ok(())
}

/// Logs of a machine may hold what its owner would not show around.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
        make_room(parent, u64::try_from(bytes.len()).unwrap_or(u64::MAX), LOGS_LIMIT)?;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}

/// What was being done, and the reason with its causes.
fn describe(record: &Record, trouble: &Trouble) -> String {
    match trouble {
        Trouble::Step { step, reason, .. } => format!("at {step}: {reason}"),
        Trouble::Power(fault) => {
            let doing = match record.node.provision_state {
                ProvisionState::Verifying => "while its power control was checked",
                ProvisionState::Deleting => "while it was taken back",
                _ => "at power control",
            };
            format!("{doing}: {}", chain(fault))
        }
        Trouble::Store(error) => chain(error),
    }
}

/// What the operator can do; `None` where the agent's own words say so.
fn advice(record: &Record, trouble: &Trouble) -> Option<String> {
    let label = record.node.label();
    if let Trouble::Step { advice, reason, .. } = trouble {
        if reason.contains(" again") {
            return None;
        }
        if let Some(advice) = advice {
            return Some(advice.replace("NODE", &label));
        }
    }
    Some(match record.node.provision_state {
        ProvisionState::Verifying => {
            format!(
                "mend it (`ferric node set {label} --driver-info K=V`) and run `ferric node manage {label}` again"
            )
        }
        ProvisionState::Deleting => format!("mend it and run `ferric undeploy {label}` again"),
        ProvisionState::Cleaning | ProvisionState::CleanWait => {
            format!("mend the cause, then `ferric node manage {label}` and `ferric node provide {label}`")
        }
        _ => "mend the cause and deploy again".to_owned(),
    })
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Transparent errors repeat their cause.
        if !text.ends_with(&next) {
            text += ": ";
            text += &next;
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_logs_are_bounded_and_the_oldest_go_first() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.tar.gz", "b.tar.gz", "other"] {
            write_private(&directory.path().join(name), &[0; 100]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        make_room(directory.path(), 100, 250).unwrap();
        let there = |name: &str| directory.path().join(name).exists();
        assert!(!there("a.tar.gz") && there("b.tar.gz") && there("other"));
    }
}
