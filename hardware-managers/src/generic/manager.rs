//! The manager itself: which questions it answers, with what.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hwm::{Answer, Context, Error, HardwareManager, StepCall, Support};
use serde_json::{Value, json};
use sys::Host;
use wire::{
    Bmc, BootInfo, Cpu, Disk, Interface, LldpFrames, Memory, Step, StepKind, SystemVendor, UsbDevice,
};

use super::arguments::{WriteImage, install_bootc, only};
use super::steps::{self, GenericStep};
use super::{erase, inject, inventory, nvram, pstore, raid, root_disk};
use crate::deployment::Deployment;
use crate::settings::RootVolumes;

/// The manager that knows every machine a little. Any other is asked before it.
pub struct GenericHardwareManager {
    deployment: Arc<Deployment>,
    /// Asked once: a slow controller takes seconds, and its addresses do not change while a ramdisk runs.
    bmc: OnceLock<Bmc>,
    /// What was heard on interfaces with a carrier, so that a list of interfaces takes half a minute only once.
    heard: Mutex<LldpFrames>,
}

impl GenericHardwareManager {
    /// A manager over the deployment of this boot.
    pub fn new(deployment: Arc<Deployment>) -> Self {
        Self { deployment, bmc: OnceLock::new(), heard: Mutex::default() }
    }

    /// Fills in what the switches announce, listening on those interfaces that were not listened to with a carrier.
    fn add_lldp(&self, cx: &Context, interfaces: &mut [Interface]) {
        let silence = self.deployment.settings().lldp_timeout;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let connected = interfaces.iter().filter(|interface| interface.has_carrier);
        let new: Vec<String> = connected
            .map(|interface| interface.name.clone())
            .filter(|name| !heard.contains_key(name))
            .collect();
        heard.extend(inventory::lldp::listen(&cx.host, &new, silence));
        for interface in interfaces {
            interface.lldp = Some(heard.get(&interface.name).cloned().unwrap_or_default());
        }
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

    fn steps(&self, kind: StepKind, cx: &Context) -> Result<Answer<Vec<Step>>, Error> {
        let has_raid = raid::mdadm::find(&cx.host).is_some();
        Ok(Answer::Mine(steps::advertised(kind, self.deployment.settings().inject_files_priority, has_raid)))
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
            GenericStep::ExecuteBootcInstall => {
                let request = install_bootc(&call.arguments, cx)?;
                let text = self.deployment.install_bootc(cx, &request)?;
                json!({ "result": format!("execute_bootc_install: {text}") })
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
            GenericStep::CreateConfiguration => {
                let made = raid::create_configuration(cx, &self.deployment.settings(), &call.arguments)?;
                self.deployment.remember_root_volumes(raid::root::root_volumes(cx, Some(&made))?);
                made
            }
            GenericStep::ApplyConfiguration => {
                let made = raid::apply_configuration(cx, &self.deployment.settings(), &call.arguments)?;
                self.deployment.remember_root_volumes(raid::root::root_volumes(cx, Some(&made))?);
                made
            }
            GenericStep::DeleteConfiguration => {
                raid::delete_configuration(cx, &self.deployment.settings(), &call.arguments)?;
                self.deployment.remember_root_volumes(RootVolumes::new());
                Value::Null
            }
            GenericStep::InjectFiles => {
                inject::run(cx, &self.deployment.settings(), call)?;
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
        let mut interfaces = inventory::interfaces::read(&cx.host)?;
        if self.deployment.settings().collect_lldp {
            self.add_lldp(cx, &mut interfaces);
        }
        Ok(Answer::Mine(interfaces))
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
        Ok(Answer::Mine(inventory::boot::read(
            &cx.host,
            self.deployment.settings().boot_interface.as_deref(),
        )))
    }

    fn bmc(&self, cx: &Context) -> Result<Answer<Bmc>, Error> {
        if self.deployment.settings().skip_bmc_detect {
            return Ok(Answer::Mine(Bmc::default()));
        }
        Ok(Answer::Mine(self.bmc.get_or_init(|| inventory::bmc::read(&cx.host)).clone()))
    }

    fn lldp(&self, cx: &Context) -> Result<Answer<LldpFrames>, Error> {
        let interfaces = inventory::lldp::interfaces(&cx.host);
        let frames = inventory::lldp::listen(&cx.host, &interfaces, self.deployment.settings().lldp_timeout);
        let news = frames.iter().filter(|(_, tlvs)| !tlvs.is_empty());
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.extend(news.map(|(name, tlvs)| (name.clone(), tlvs.clone())));
        Ok(Answer::Mine(frames))
    }

    fn usb_devices(&self, cx: &Context) -> Result<Answer<Vec<UsbDevice>>, Error> {
        inventory::usb::read(&cx.host).map(Answer::Mine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use crate::settings::Settings;
    use wire::Tlv;

    fn manager(settings: Settings) -> GenericHardwareManager {
        GenericHardwareManager::new(Deployment::new(settings))
    }

    fn interfaces(manager: &GenericHardwareManager, cx: &Context) -> Vec<Interface> {
        match manager.interfaces(cx).unwrap() {
            Answer::Mine(interfaces) => interfaces,
            Answer::NotMine => panic!("not mine"),
        }
    }

    fn switched() -> Fixture {
        let nic = |machine: Fixture, name: &str, carrier: &str| {
            machine
                .file(&format!("/sys/class/net/{name}/address"), "52:54:00:00:00:01\n")
                .file(&format!("/sys/class/net/{name}/carrier"), carrier)
                .directory(&format!("/sys/class/net/{name}/device"))
        };
        let frame = [&[0; 14], [2 << 1, 1, b'p'].as_slice()].concat();
        nic(nic(Fixture::new(), "eth0", "1\n"), "eth1", "0\n").hears("eth0", &frame)
    }

    #[test]
    fn announcements_are_in_the_interfaces_when_wanted_and_each_link_is_listened_to_once() {
        let machine = switched();
        let (host, kernel) = machine.machine();
        let cx = Context::new(host, events::Events::default());
        assert!(interfaces(&manager(Settings::default()), &cx).iter().all(|nic| nic.lldp.is_none()));
        let manager = manager(Settings { collect_lldp: true, ..Settings::default() });
        for _ in 0..2 {
            let heard: Vec<_> = interfaces(&manager, &cx).into_iter().map(|nic| nic.lldp).collect();
            assert_eq!(heard, [Some(vec![Tlv(2, "70".into())]), Some(vec![])]);
        }
        assert_eq!(*kernel.captures.lock().unwrap(), [vec!["eth0".to_owned()]]);
        let _machine = machine.file("/sys/class/net/eth1/carrier", "1\n");
        interfaces(&manager, &cx);
        assert_eq!(
            kernel.captures.lock().unwrap().len(),
            2,
            "a link that came up later is listened to as well"
        );
    }

    #[test]
    fn the_controller_is_asked_once_and_not_at_all_when_the_conductor_knows_it() {
        let asked = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&asked);
        let machine = Fixture::new().link("/dev/ipmi0", "/dev/null").controller(move |_, _| {
            *counter.lock().unwrap() += 1;
            Ok(vec![0xcc])
        });
        let cx = Context::new(machine.host(), events::Events::default());
        let none = Bmc { address: Some("0.0.0.0".into()), v6address: Some("::/0".into()), mac: None };
        let curious = manager(Settings::default());
        for _ in 0..2 {
            assert_eq!(curious.bmc(&cx).unwrap(), Answer::Mine(none.clone()));
        }
        assert_eq!(*asked.lock().unwrap(), 11);
        let told = manager(Settings { skip_bmc_detect: true, ..Settings::default() });
        assert_eq!(told.bmc(&cx).unwrap(), Answer::Mine(Bmc::default()));
        assert_eq!(*asked.lock().unwrap(), 11);
    }
}
