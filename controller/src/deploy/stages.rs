//! A deployment or a cleaning, stage by stage. Every stage can be entered again: what it did is written down before the next
//! one begins, and what it asks of an agent is either harmless to repeat or looked up first. Source of the exchange: agent
//! protocol page, 8.4 to 8.6.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use wire::{CommandStatus, PowerState, ProvisionState, StepKind, mask_secrets};

use super::failure::chain;
use super::relay::Relay;
use super::verdict::{Verdict, judge};
use super::{Memory, Next, Trouble, plan};
use crate::agent_client::{AgentClient, AgentError, failure_text};
use crate::clock;
use crate::controller::Controller;
use crate::machine::Verb;
use crate::power::BootMode;
use crate::record::{BootDevice, Record, Stage, Work};
use crate::store::apply;

/// An agent that sends heartbeats but can not be reached for this long is given up.
const UNREACHABLE_LIMIT: Duration = Duration::from_secs(90);
/// Between two tries to reach an agent.
const RETRY: Duration = Duration::from_secs(2);
/// Between two looks at the power of a machine whose agent is awaited.
const POWER_LOOK: Duration = Duration::from_secs(5);
/// A machine that is off for this long while its agent is awaited will not call: longer than any power cycle of its own.
const OFF_LIMIT: Duration = Duration::from_secs(20);
/// Ironic: 100 polls, 6 s apart.
const BOOTLOADER_LIMIT: Duration = Duration::from_secs(600);
/// Ironic: 7 polls, 5 s apart.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(35);
const POWER_OFF_POLL: Duration = Duration::from_millis(500);

impl Controller {
    /// Does the next thing for a node that is being deployed or cleaned.
    pub(super) async fn advance(&self, record: &Record, memory: &mut Memory) -> Result<Next, Trouble> {
        let Some(work) = &record.work else {
            // Cleaning without a cleaning to do: the node only passes through.
            self.change(record, |record| {
                record.node.clean_step.clear();
                apply(record, Verb::Done)
            })
            .await?;
            return Ok(Next::Again);
        };
        match work.stage {
            Stage::BootRamdisk => self.boot_ramdisk(record, memory).await,
            Stage::AwaitAgent => self.await_agent(record, work, memory).await,
            Stage::RunSteps => self.run_steps(record, work, memory).await,
            Stage::PartitionUuids => self.partition_uuids(record, memory).await,
            Stage::InstallBootloader => self.install_bootloader(record, work, memory).await,
            Stage::PowerOff => self.finish_agent(record, work, memory).await,
            Stage::BootFromDisk => self.boot_from_disk(record).await,
        }
    }

    async fn boot_ramdisk(&self, record: &Record, memory: &mut Memory) -> Result<Next, Trouble> {
        memory.relay = None;
        let node = record.node.uuid;
        self.hub.notice(node, "booting the ramdisk from the network");
        self.power_off(record).await?;
        // The script is asked for as soon as the machine runs: it has to be the ramdisk's by then.
        let Some(record) = self
            .change(record, |record| {
                record.agent = Default::default();
                record.boot = BootDevice::Pxe;
                Ok(())
            })
            .await?
        else {
            return Ok(Next::Again);
        };
        self.mark(node, "power on").await;
        self.power_on(&record, BootDevice::Pxe).await?;
        let changed = self
            .change(&record, |record| {
                record.node.power_state = Some(PowerState::On);
                if let Some(work) = &mut record.work {
                    work.stage = Stage::AwaitAgent;
                    work.touched_at = clock::unix_seconds();
                }
                apply(record, Verb::Wait)
            })
            .await?;
        if changed.is_none() {
            // Taken back meanwhile: whoever did that has switched the machine off before we switched it on.
            tracing::info!(%node, "the node was taken back while it started");
        }
        Ok(Next::Again)
    }

    async fn await_agent(&self, record: &Record, work: &Work, memory: &mut Memory) -> Result<Next, Trouble> {
        if record.agent.url.is_none() {
            let step = "waiting for the agent";
            self.check_power(record, memory, step).await?;
            return self.patience(work, step);
        }
        let agent = self.agent(record, memory)?;
        if !work.steps.is_empty() {
            // A reboot between two steps: this agent goes on with the list.
            return self.go(record, Stage::RunSteps).await;
        }
        let kind = work.kind;
        let command = format!("{}.get_{}_steps", kind.name(), kind.name());
        let params = self.step_params(record).await?;
        let result = match agent.run(&command, params, true).await {
            Ok(result) => result,
            Err(error) => return self.agent_trouble(record, work, memory, &command, error),
        };
        memory.unreachable_since = None;
        let step = format!("{} step listing", kind.name());
        if result.command_status == CommandStatus::Failed {
            return Err(Trouble::step(step, failure_text(result.command_error.as_ref())));
        }
        let listed = result.command_result.unwrap_or(Value::Null);
        let boot_mode = self.boot_mode(record).await?;
        let steps = match kind {
            StepKind::Deploy => plan::deploy_steps(&record.node, &listed, boot_mode),
            StepKind::Clean | StepKind::Service => plan::clean_steps(&listed),
        };
        let steps = steps.map_err(|error| Trouble::step(step, error.to_string()))?;
        let names: Vec<&str> = steps.iter().filter_map(|step| step.get("step")?.as_str()).collect();
        tracing::info!(node = %record.node.label(), steps = ?names, "steps are planned");
        self.change(record, move |record| {
            record.node.driver_internal_info.insert("deploy_boot_mode".into(), boot_mode.name().into());
            if let Some(work) = &mut record.work {
                work.versions = listed.get("hardware_manager_version").cloned();
                work.steps = steps;
                work.index = 0;
                work.stage = Stage::RunSteps;
            }
            Ok(())
        })
        .await?;
        Ok(Next::Again)
    }

    async fn run_steps(&self, record: &Record, work: &Work, memory: &mut Memory) -> Result<Next, Trouble> {
        let agent = self.agent(record, memory)?;
        let Some(step) = work.step().cloned() else { return self.steps_done(record, work).await };
        let name = step_name(work);
        let commands = match agent.list().await {
            Ok(commands) => commands,
            Err(error) => {
                self.check_power(record, memory, &name).await?;
                return self.agent_trouble(record, work, memory, &name, error);
            }
        };
        memory.unreachable_since = None;
        memory.off_since = None;
        match judge(work.kind, &commands, &work.steps, work.index) {
            Verdict::Wait => self.patience(work, &name).map(|_| Next::Wait(self.config.poll)),
            Verdict::Send => self.send_step(record, work, memory, &agent, step).await,
            Verdict::Failed(class, reason) => {
                Err(Trouble::Step { step: name, reason, advice: step_advice(&class) })
            }
            Verdict::VersionMismatch => Err(Trouble::step(
                name,
                "the agent's hardware managers changed between listing and running steps",
            )),
            Verdict::Succeeded => {
                self.hub.notice(record.node.uuid, format!("{name} is done"));
                if step.get("step").and_then(Value::as_str) == Some("write_image") {
                    self.mark(record.node.uuid, "deployed").await;
                }
                let reboot = step.get("reboot_requested").and_then(Value::as_bool) == Some(true);
                self.change(record, move |record| {
                    if let Some(work) = &mut record.work {
                        work.index += 1;
                        work.touched_at = clock::unix_seconds();
                        if reboot {
                            work.stage = Stage::BootRamdisk;
                        }
                    }
                    if reboot && !busy(record) {
                        apply(record, Verb::Resume)?;
                    }
                    Ok(())
                })
                .await?;
                Ok(Next::Again)
            }
        }
    }

    async fn send_step(
        &self,
        record: &Record,
        work: &Work,
        memory: &mut Memory,
        agent: &AgentClient,
        step: Map<String, Value>,
    ) -> Result<Next, Trouble> {
        let kind = work.kind;
        let name = step_name(work);
        let shown = shown_step(&step);
        let Some(record) = self
            .change(record, move |record| {
                let place = match kind {
                    StepKind::Deploy => &mut record.node.deploy_step,
                    StepKind::Clean | StepKind::Service => &mut record.node.clean_step,
                };
                *place = shown;
                if busy(record) { Ok(()) } else { apply(record, Verb::Resume) }
            })
            .await?
        else {
            return Ok(Next::Again);
        };
        let mut params = self.step_params(&record).await?;
        // What makes the step core-internal stays here: Ironic sends `write_image` without a priority.
        let mut sent = step;
        if sent.get("step").and_then(Value::as_str) == Some("write_image") {
            sent.shift_remove("priority");
        }
        params.insert("step".into(), Value::Object(sent));
        params.insert(format!("{}_version", kind.name()), work.versions.clone().unwrap_or(Value::Null));
        let command = format!("{}.execute_{}_step", kind.name(), kind.name());
        self.hub.notice(record.node.uuid, format!("{name} starts"));
        tracing::info!(node = %record.node.label(), step = %name, "step starts");
        let sent = agent.run(&command, params, false).await;
        // Whatever came of it: we wait for the agent again, and the command list tells.
        let waiting = self
            .change(&record, |record| {
                if let Some(work) = &mut record.work {
                    work.touched_at = clock::unix_seconds();
                }
                apply(record, Verb::Wait)
            })
            .await?;
        match (waiting, sent) {
            (None, _) => Ok(Next::Again),
            (Some(_), Ok(result)) if result.command_status == CommandStatus::Failed => {
                let class = result.command_error.as_ref().map(|e| e.kind.clone()).unwrap_or_default();
                let reason = failure_text(result.command_error.as_ref());
                Err(Trouble::Step { step: name, reason, advice: step_advice(&class) })
            }
            (Some(_), Ok(_)) => Ok(Next::Wait(self.config.poll)),
            (Some(record), Err(error)) => {
                let work = record.work.clone().unwrap_or_else(|| work.clone());
                self.agent_trouble(&record, &work, memory, &name, error)
            }
        }
    }

    async fn steps_done(&self, record: &Record, work: &Work) -> Result<Next, Trouble> {
        let stage = match work.kind {
            StepKind::Deploy => Stage::PartitionUuids,
            StepKind::Clean | StepKind::Service => Stage::PowerOff,
        };
        self.change(record, move |record| {
            if let Some(work) = &mut record.work {
                work.stage = stage;
            }
            if busy(record) { Ok(()) } else { apply(record, Verb::Resume) }
        })
        .await?;
        Ok(Next::Again)
    }

    async fn partition_uuids(&self, record: &Record, memory: &mut Memory) -> Result<Next, Trouble> {
        let agent = self.agent(record, memory)?;
        let step = "deploy step prepare_instance_boot (get_partition_uuids)";
        let result = match agent.run("standby.get_partition_uuids", Map::new(), true).await {
            Ok(result) => result,
            Err(error) => return self.busy_trouble(memory, step, error),
        };
        memory.unreachable_since = None;
        if result.command_status == CommandStatus::Failed {
            return Err(Trouble::step(step, failure_text(result.command_error.as_ref())));
        }
        let found = result.command_result.unwrap_or(Value::Null);
        let text = |key: &str| found.get(key).and_then(Value::as_str).map(str::to_owned);
        let (root, efi) = (text("root uuid"), text("efi system partition uuid"));
        // A BIOS starts what is at the disk's beginning: a whole-disk image has put it there, a partition image has not.
        let stage = match self.boot_mode(record).await? {
            BootMode::Uefi => Stage::InstallBootloader,
            BootMode::Bios if plan::is_partition_image(&record.node) => Stage::InstallBootloader,
            BootMode::Bios => Stage::PowerOff,
        };
        self.change(record, move |record| {
            if let Some(root) = &root {
                record.node.driver_internal_info.insert("root_uuid_or_disk_id".into(), root.clone().into());
            }
            if let Some(work) = &mut record.work {
                work.root_uuid = root;
                work.efi_uuid = efi;
                work.stage = stage;
            }
            Ok(())
        })
        .await?;
        Ok(Next::Again)
    }

    async fn install_bootloader(
        &self,
        record: &Record,
        work: &Work,
        memory: &mut Memory,
    ) -> Result<Next, Trouble> {
        let agent = self.agent(record, memory)?;
        let step = "deploy step prepare_instance_boot (install_bootloader)";
        let deadline = *memory.bootloader_deadline.get_or_insert_with(|| Instant::now() + BOOTLOADER_LIMIT);
        let commands = match agent.list().await {
            Ok(commands) => commands,
            Err(error) => return self.busy_trouble(memory, step, error),
        };
        // It may have been sent before a restart of the controller: the newest entry tells.
        let newest = commands.iter().rev().find(|command| command.command_name == "install_bootloader");
        match newest.map(|command| command.command_status) {
            None => {
                self.hub.notice(record.node.uuid, "making the disk bootable");
                let boot_mode = self.boot_mode(record).await?;
                let params = json!({
                    "root_uuid": work.root_uuid, "efi_system_part_uuid": work.efi_uuid, "prep_boot_part_uuid": null,
                    "target_boot_mode": boot_mode.name(),
                });
                let Value::Object(params) = params else { return Ok(Next::Again) };
                match agent.run("image.install_bootloader", params, false).await {
                    Ok(_) => Ok(Next::Wait(POWER_OFF_POLL)),
                    Err(error) => self.busy_trouble(memory, step, error),
                }
            }
            Some(CommandStatus::Running) if Instant::now() >= deadline => {
                let limit = BOOTLOADER_LIMIT.as_secs();
                Err(Trouble::step(step, format!("it did not end within {limit} s")))
            }
            Some(CommandStatus::Running) => Ok(Next::Wait(self.config.poll)),
            Some(CommandStatus::Failed) => {
                let error = newest.and_then(|command| command.command_error.as_ref());
                Err(Trouble::step(step, failure_text(error)))
            }
            Some(CommandStatus::Succeeded | CommandStatus::VersionMismatch) => {
                memory.unreachable_since = None;
                self.go(record, Stage::PowerOff).await
            }
        }
    }

    /// Switches the machine off: a deployed one by its agent, so that it flushes and shuts down in order, a cleaned one by force.
    async fn finish_agent(&self, record: &Record, work: &Work, memory: &mut Memory) -> Result<Next, Trouble> {
        let node = record.node.uuid;
        if work.kind == StepKind::Deploy {
            self.hub.notice(node, "switching the machine off");
            if let Ok(agent) = AgentClient::new(&record.agent) {
                // The machine may be off before it answers, or off already after a restart of ours: both are fine.
                if let Err(error) = agent.run("standby.power_off", Map::new(), false).await {
                    tracing::debug!(%node, error = &error as &dyn std::error::Error, "the agent did not confirm power off");
                }
                let deadline = Instant::now() + POWER_OFF_LIMIT;
                while Instant::now() < deadline {
                    let state = self.power(record, |driver, machine| driver.power_state(machine)).await?;
                    if state == PowerState::Off {
                        break;
                    }
                    tokio::time::sleep(POWER_OFF_POLL).await;
                }
            }
        }
        memory.relay = None;
        self.power_off(record).await?;
        self.mark(node, "power off").await;
        let deploying = work.kind == StepKind::Deploy;
        self.change(record, move |record| {
            record.boot = BootDevice::Disk;
            if deploying {
                if let Some(work) = &mut record.work {
                    work.stage = Stage::BootFromDisk;
                }
                return Ok(());
            }
            record.work = None;
            Ok(())
        })
        .await?;
        if !deploying {
            self.power(record, |driver, machine| driver.set_boot_device(machine, BootDevice::Disk)).await?;
        }
        Ok(Next::Again)
    }

    async fn boot_from_disk(&self, record: &Record) -> Result<Next, Trouble> {
        let node = record.node.uuid;
        self.hub.notice(node, "booting from the disk");
        self.mark(node, "boot from disk").await;
        self.power_on(record, BootDevice::Disk).await?;
        let changed = self
            .change(record, |record| {
                record.node.power_state = Some(PowerState::On);
                record.node.last_error = None;
                record.node.deploy_step.clear();
                record.work = None;
                apply(record, Verb::Done)
            })
            .await?;
        if changed.is_some() {
            self.mark(node, "active").await;
        }
        Ok(Next::Again)
    }

    async fn go(&self, record: &Record, stage: Stage) -> Result<Next, Trouble> {
        self.change(record, move |record| {
            if let Some(work) = &mut record.work {
                work.stage = stage;
            }
            Ok(())
        })
        .await?;
        Ok(Next::Again)
    }

    /// A client for the node's agent; its events are followed from now on.
    fn agent(&self, record: &Record, memory: &mut Memory) -> Result<AgentClient, Trouble> {
        let agent = AgentClient::new(&record.agent)
            .map_err(|error| Trouble::step("reaching the agent", chain(&error)))?;
        if !memory.relay.as_ref().is_some_and(|relay| relay.is_for(agent.url())) {
            memory.relay = Some(Relay::start(self.clone(), record.node.uuid, agent.clone()));
        }
        Ok(agent)
    }

    /// `node` and `ports`, as every step command carries them.
    async fn step_params(&self, record: &Record) -> Result<Map<String, Value>, Trouble> {
        let mut node = record.node.to_full_map();
        let configdrive = record.node.instance_info.get("configdrive").cloned();
        mask_secrets(&mut node);
        if let (Some(drive), Some(Value::Object(info))) = (configdrive, node.get_mut("instance_info")) {
            // Only write_image needs it, and gets it as an argument: no need to send it three times.
            info.insert("configdrive".into(), if drive.is_null() { drive } else { wire::MASK.into() });
        }
        let ports = self.store.ports(Some(record.node.uuid)).await?;
        let ports: Vec<Value> = ports.iter().map(|port| Value::Object(port.to_full_map())).collect();
        let mut params = Map::new();
        params.insert("node".into(), Value::Object(node));
        params.insert("ports".into(), Value::Array(ports));
        Ok(params)
    }

    /// Waits for the agent, as long as the callback timeout allows.
    fn patience(&self, work: &Work, step: &str) -> Result<Next, Trouble> {
        let Some(limit) = self.config.callback_timeout else { return Ok(Next::Wait(POWER_LOOK)) };
        let waited = (clock::unix_seconds() - work.touched_at).max(0.0);
        let left = limit.as_secs_f64() - waited;
        if left <= 0.0 {
            return Err(Trouble::Step {
                step: step.to_owned(),
                reason: format!("no heartbeat came from the machine within {} s", limit.as_secs()),
                advice: Some(
                    "look at the machine's console: did it boot from the network, did the agent start, \
                     can it reach the controller? then deploy again",
                ),
            });
        }
        Ok(Next::Wait(Duration::from_secs_f64(left.clamp(0.05, POWER_LOOK.as_secs_f64()))))
    }

    /// Notices that the machine of an awaited agent is off, and fails the operation when it stays so: better now than after
    /// half an hour without a heartbeat.
    async fn check_power(&self, record: &Record, memory: &mut Memory, step: &str) -> Result<(), Trouble> {
        if memory.power_seen.is_some_and(|seen| seen.elapsed() < POWER_LOOK) {
            return Ok(());
        }
        memory.power_seen = Some(Instant::now());
        match self.power(record, |driver, machine| driver.power_state(machine)).await {
            Ok(PowerState::Off) => {
                let since = *memory.off_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= OFF_LIMIT {
                    return Err(Trouble::Step {
                        step: step.to_owned(),
                        reason: "the machine went off, by itself or by somebody's hand".into(),
                        advice: Some("look at the end of its console for the reason, then deploy again"),
                    });
                }
            }
            Ok(PowerState::On | PowerState::Error) => memory.off_since = None,
            // A BMC that is silent for a moment says nothing about its machine.
            Err(error) => {
                tracing::debug!(node = %record.node.label(), error = &error as &dyn std::error::Error, "no power state");
            }
        }
        Ok(())
    }

    /// An agent that is busy or not reached is tried again; one that refuses ends the operation.
    fn agent_trouble(
        &self,
        record: &Record,
        work: &Work,
        memory: &mut Memory,
        step: &str,
        error: AgentError,
    ) -> Result<Next, Trouble> {
        tracing::debug!(node = %record.node.label(), step, error = &error as &dyn std::error::Error, "agent trouble");
        self.patience(work, step)?;
        self.busy_trouble(memory, step, error)
    }

    fn busy_trouble(&self, memory: &mut Memory, step: &str, error: AgentError) -> Result<Next, Trouble> {
        match error {
            AgentError::Busy => Ok(Next::Wait(self.config.poll)),
            AgentError::Unreachable { .. } => {
                let since = *memory.unreachable_since.get_or_insert_with(Instant::now);
                if since.elapsed() < UNREACHABLE_LIMIT {
                    return Ok(Next::Wait(RETRY));
                }
                let text = chain(&error);
                Err(Trouble::step(step, format!("{text} (tried for {} s)", UNREACHABLE_LIMIT.as_secs())))
            }
            AgentError::Absent
            | AgentError::Certificate(_)
            | AgentError::Refused { .. }
            | AgentError::Excessive { .. }
            | AgentError::Garbled { .. } => Err(Trouble::step(step, chain(&error))),
        }
    }
}

/// Whether the controller is at work (and not waiting for the agent).
fn busy(record: &Record) -> bool {
    matches!(record.node.provision_state, ProvisionState::Deploying | ProvisionState::Cleaning)
}

fn step_name(work: &Work) -> String {
    let name = work.step().and_then(|step| step.get("step")?.as_str()).unwrap_or("unknown");
    format!("{} step {name}", work.kind.name())
}

/// The step as the node shows it: without arguments, there are secrets in them.
fn shown_step(step: &Map<String, Value>) -> Map<String, Value> {
    step.iter().filter(|(key, _)| *key != "args").map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn step_advice(class: &str) -> Option<&'static str> {
    match class {
        "ImageChecksumError" => Some(
            "the disk was left unbootable; check that the checksum belongs to this very image file, then deploy again",
        ),
        "ImageDownloadError" | "ImageDownloadFatalError" | "ImageDownloadTimeoutError" => {
            Some("check that the machine can fetch the image's URL, then deploy again")
        }
        "InvalidImage" => Some("check the image and its --format, then deploy again"),
        "DeviceNotFound" => Some(
            "no disk fits: check the machine's disks and the root_device hint (`ferric node set NODE --property root_device=...`)",
        ),
        _ => None,
    }
}
