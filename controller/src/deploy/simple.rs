//! The two operations that need no agent: checking that a node's power can be controlled, and taking a node back.

use wire::{PowerState, StepKind};

use super::{Next, Trouble};
use crate::controller::Controller;
use crate::machine::Verb;
use crate::record::{BootDevice, Record, Work};
use crate::store::apply;

impl Controller {
    /// `verifying`: the settings parse, and the driver can tell whether the machine runs.
    pub(super) async fn verify(&self, record: &Record) -> Result<Next, Trouble> {
        let seen = self
            .power(record, |driver, machine| {
                driver.validate(machine)?;
                driver.power_state(machine)
            })
            .await?;
        self.change(record, move |record| {
            record.node.power_state = Some(seen);
            record.node.last_error = None;
            apply(record, Verb::Done)
        })
        .await?;
        Ok(Next::Again)
    }

    /// `deleting`: power off, forget the instance, then clean.
    pub(super) async fn take_back(&self, record: &Record) -> Result<Next, Trouble> {
        self.power(record, |driver, machine| {
            driver.power_off(machine)?;
            driver.set_boot_device(machine, BootDevice::Disk)
        })
        .await?;
        self.change(record, |record| {
            record.agent = Default::default();
            record.boot = BootDevice::Disk;
            record.node.power_state = Some(PowerState::Off);
            record.node.instance_info.clear();
            record.node.instance_uuid = None;
            record.node.deploy_step.clear();
            record.work = automated_clean(record);
            apply(record, Verb::Clean)
        })
        .await?;
        Ok(Next::Again)
    }
}

/// The cleaning that a node gets between two uses, if it asked for one.
pub fn automated_clean(record: &Record) -> Option<Work> {
    (record.node.automated_clean == Some(true)).then(|| Work::new(StepKind::Clean))
}
