//! The trait, and the two small types of its vocabulary.

use serde_json::Value;
use sys::Host;
use wire::{
    Bmc, BootInfo, Cpu, Disk, Interface, LldpFrames, Memory, Step, StepKind, SystemVendor, UsbDevice,
};

use crate::{Context, Error, StepCall};

/// An answer, or the wish that somebody else answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// This manager answers.
    Mine(T),
    /// Not this manager's business: ask the next, more generic one.
    NotMine,
}

/// How well a manager knows the hardware it runs on. Higher is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Support(pub u32);

impl Support {
    /// Not at all: the manager is left out.
    pub const NONE: Self = Self(0);
    /// As every machine.
    pub const GENERIC: Self = Self(1);
    /// As a family of machines.
    pub const MAINLINE: Self = Self(2);
    /// As the machines of one operator.
    pub const SERVICE_PROVIDER: Self = Self(3);
}

/// Somebody who knows a kind of hardware.
///
/// Methods block, and run on a thread of their own. Every question has a default of [`Answer::NotMine`]: a manager
/// implements what it knows better than the generic one. A panic fails the command, not the agent.
pub trait HardwareManager: Send + Sync {
    /// The class-like name (`GenericHardwareManager`): the key of step lists on the wire, and of tie-breaking.
    fn name(&self) -> &str;

    /// The declared name (`generic_hardware_manager`): the key of the version map on the wire.
    fn declared_name(&self) -> &str;

    /// Changes whenever the list of steps does. Constant within a build.
    fn version(&self) -> &str;

    /// How well this manager knows this machine. Called once, at start-up.
    fn support(&self, host: &Host) -> Support;

    /// The steps this manager offers.
    fn steps(&self, kind: StepKind, cx: &Context) -> Result<Answer<Vec<Step>>, Error> {
        let _ = (kind, cx);
        Ok(Answer::NotMine)
    }

    /// Runs a step. **Steps may destroy what is on disks.** The value becomes `clean_result` or its sisters.
    fn run_step(&self, call: &StepCall, cx: &Context) -> Result<Answer<Value>, Error> {
        let _ = (call, cx);
        Ok(Answer::NotMine)
    }

    /// Every disk an image could go to.
    fn disks(&self, cx: &Context) -> Result<Answer<Vec<Disk>>, Error> {
        let _ = cx;
        Ok(Answer::NotMine)
    }

    /// Network interfaces with a MAC address.
    fn interfaces(&self, cx: &Context) -> Result<Answer<Vec<Interface>>, Error> {
        let _ = cx;
        Ok(Answer::NotMine)
    }

    /// The processors.
    fn cpu(&self, cx: &Context) -> Result<Answer<Cpu>, Error> {
        let _ = cx;
        Ok(Answer::NotMine)
    }

    /// The memory.
    fn memory(&self, cx: &Context) -> Result<Answer<Memory>, Error> {
        let _ = cx;
        Ok(Answer::NotMine)
    }

    /// Maker, product, firmware.
    fn system_vendor(&self, cx: &Context) -> Result<Answer<SystemVendor>, Error> {
        let _ = cx;
        Ok(Answer::NotMine)
    }

    /// How this boot came about.
    fn boot_info(&self, cx: &Context) -> Result<Answer<BootInfo>, Error> {
        let _ = cx;
        Ok(Answer::NotMine)
    }

    /// The addresses of the management controller.
    fn bmc(&self, cx: &Context) -> Result<Answer<Bmc>, Error> {
        let _ = cx;
        Ok(Answer::NotMine)
    }

    /// What the switches announce, listened to now: may take half a minute.
    fn lldp(&self, cx: &Context) -> Result<Answer<LldpFrames>, Error> {
        let _ = cx;
        Ok(Answer::NotMine)
    }

    /// What is plugged into USB.
    fn usb_devices(&self, cx: &Context) -> Result<Answer<Vec<UsbDevice>>, Error> {
        let _ = cx;
        Ok(Answer::NotMine)
    }
}
