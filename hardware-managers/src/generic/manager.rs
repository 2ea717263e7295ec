//! The manager itself: which questions it answers, with what.

use std::sync::Arc;

use hwm::{Answer, Context, Error, HardwareManager, StepCall, Support};
use serde_json::{Value, json};
use sys::Host;
use wire::{BootInfo, Cpu, Disk, Interface, Memory, Step, StepKind, SystemVendor};

use super::arguments::{WriteImage, only};
use super::steps::{self, GenericStep};
use super::{erase, inventory, nvram, pstore, root_disk};
use crate::deployment::Deployment;

/// The manager that knows every machine a little. Any other is asked before it.
pub struct GenericHardwareManager {
    deployment: Arc<Deployment>,
}

impl GenericHardwareManager {
    /// A manager over the deployment of this boot.
    pub fn new(deployment: Arc<Deployment>) -> Self {
        Self { deployment }
    }
}

impl HardwareManager for GenericHardwareManager {
    fn name(&self) -> &str {
        "GenericHardwareManager"
    }

    fn declared_name(&self) -> &str {
        "generic_hardware_manager"
    }

    fn version(&self) -> &str {
        "1.2"
    }

    fn support(&self, _: &Host) -> Support {
        Support::GENERIC
    }

    fn steps(&self, kind: StepKind, _: &Context) -> Result<Answer<Vec<Step>>, Error> {
        Ok(Answer::Mine(steps::advertised(kind)))
    }

    fn run_step(&self, call: &StepCall, cx: &Context) -> Result<Answer<Value>, Error> {
        let Some(step) = GenericStep::parse(&call.step) else { return Ok(Answer::NotMine) };
        Ok(Answer::Mine(match step {
            GenericStep::WriteImage => {
                let WriteImage { image_info, configdrive } = WriteImage::parse(&call.arguments)?;
                let text = self.deployment.prepare_image(cx, image_info, configdrive)?;
                // The step wraps the command of the same name. Source: data plane page, 0.2.
                json!({ "result": format!("prepare_image: {text}") })
            }
            GenericStep::EraseDevicesMetadata => {
                only(&call.arguments, &call.step, &[])?;
                erase::metadata::run(cx, &self.deployment.settings())?;
                Value::Null
            }
            GenericStep::EraseDevices => {
                only(&call.arguments, &call.step, &[])?;
                erase::devices::run(cx, &self.deployment.settings())?
            }
            GenericStep::EraseDevicesExpress => {
                only(&call.arguments, &call.step, &[])?;
                erase::express::run(cx, &self.deployment.settings())?;
                Value::Null
            }
            GenericStep::ErasePstore => {
                only(&call.arguments, &call.step, &[])?;
                pstore::erase(cx)?;
                Value::Null
            }
            GenericStep::CleanUefiNvram => {
                only(&call.arguments, &call.step, &["match_patterns"])?;
                nvram::clean(cx, &nvram::patterns(call.arguments.get("match_patterns"))?)?;
                Value::Null
            }
        }))
    }

    fn disks(&self, cx: &Context) -> Result<Answer<Vec<Disk>>, Error> {
        root_disk::list(cx, &self.deployment.settings()).map(Answer::Mine)
    }

    fn interfaces(&self, cx: &Context) -> Result<Answer<Vec<Interface>>, Error> {
        inventory::interfaces::read(&cx.host).map(Answer::Mine)
    }

    fn cpu(&self, cx: &Context) -> Result<Answer<Cpu>, Error> {
        Ok(Answer::Mine(inventory::cpu::read(&cx.host)))
    }

    fn memory(&self, cx: &Context) -> Result<Answer<Memory>, Error> {
        Ok(Answer::Mine(inventory::memory::read(&cx.host)))
    }

    fn system_vendor(&self, cx: &Context) -> Result<Answer<SystemVendor>, Error> {
        Ok(Answer::Mine(inventory::vendor::read(&cx.host)))
    }

    fn boot_info(&self, cx: &Context) -> Result<Answer<BootInfo>, Error> {
        Ok(Answer::Mine(inventory::boot::read(&cx.host)))
    }
}
