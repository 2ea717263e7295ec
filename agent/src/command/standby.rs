//! The `standby` extension: write an image, flush, switch off or reboot.

use std::time::Duration;

use events::{EventKind, Phase};
use sys::Power;
use wire::{ImageInfo, Secret};

use super::error::{ErrorClass, Failure};
use super::extensions::Extensions;
use super::record::Outcome;

/// Time for the reply "RUNNING" to reach the conductor before the machine goes away.
const REPLY_GRACE: Duration = Duration::from_secs(1);

impl Extensions {
    pub(super) fn prepare_image(
        &self,
        image: ImageInfo,
        configdrive: Option<Secret>,
    ) -> Result<Outcome, Failure> {
        let text = self.machine.deployment.prepare_image(&self.context(), image, configdrive)?;
        Ok(Outcome::Text(text))
    }

    pub(super) fn sync(&self) -> Result<Outcome, Failure> {
        self.machine.deployment.sync(&self.context())?;
        Ok(Outcome::Nothing)
    }

    /// **Switches the machine off, or reboots it.** Refused outside a ramdisk: nobody's workstation goes away by mistake.
    pub(super) fn power(&self, action: Power) -> Result<Outcome, Failure> {
        if !self.machine.ramdisk {
            return Err(Failure::new(
                ErrorClass::SystemRebootError,
                "refused: this agent does not run in a ramdisk, so the machine is somebody's; switch it off by hand",
            ));
        }
        let context = self.context();
        let word = match action {
            Power::Off => "power off",
            Power::Reboot => "reboot",
        };
        context.events.emit(EventKind::PhaseStarted { phase: Phase::Finish, subject: word.into() });
        if let Err(error) = self.machine.deployment.sync(&context) {
            tracing::warn!(error = hwm::chain(&error), "flushing before the end failed");
        }
        std::thread::sleep(REPLY_GRACE);
        tracing::info!(action = word, "the machine goes away now");
        let kernel = context.host.kernel();
        kernel.sync();
        let Err(error) = kernel.power(action) else { return Ok(Outcome::Nothing) };
        tracing::warn!(%error, "the kernel refused; trying the magic system request");
        let key = match action {
            Power::Off => "o",
            Power::Reboot => "b",
        };
        std::fs::write(context.host.path("/proc/sysrq-trigger"), key).map_err(|second| {
            let text = format!("{word} failed: {error}; the magic system request failed too: {second}");
            Failure::new(ErrorClass::SystemRebootError, text)
        })?;
        Ok(Outcome::Nothing)
    }
}

/// Whether `/` is a RAM file system, by the text of `/proc/mounts`: the last mount on `/` is the one in force.
pub fn is_ramdisk(mounts: &str) -> bool {
    let root = mounts.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some("/")).then(|| words.next()).flatten()
    });
    matches!(root, Some("rootfs" | "tmpfs" | "ramfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_root_in_memory_is_a_ramdisk() {
        assert!(is_ramdisk("rootfs / rootfs rw 0 0\nproc /proc proc rw 0 0\n"));
        assert!(is_ramdisk("none / tmpfs rw 0 0"));
        assert!(!is_ramdisk("rootfs / rootfs rw 0 0\n/dev/sda1 / ext4 rw 0 0\n"));
        assert!(!is_ramdisk("overlay / overlay rw 0 0\ntmpfs /tmp tmpfs rw 0 0"));
        assert!(!is_ramdisk(""));
    }
}
