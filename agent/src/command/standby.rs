//! The `standby` extension: write an image, flush, switch off or reboot.

use std::time::Duration;

use events::{EventKind, Phase};
use sys::{Host, Power};
use wire::{ImageInfo, Secret};

use super::error::{ErrorClass, Failure};
use super::extensions::Extensions;
use super::record::Outcome;

/// Time for the reply "RUNNING" to reach the conductor before the machine goes away.
const REPLY_GRACE: Duration = Duration::from_secs(1);
/// Longest flush before it does.
const FLUSH_LIMIT: Duration = Duration::from_secs(60);

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
        self.set_clocks()?;
        self.flush(&context);
        std::thread::sleep(REPLY_GRACE);
        tracing::info!(action = word, "the machine goes away now");
        go(&context.host, action, word).map_err(|text| Failure::new(ErrorClass::SystemRebootError, text))?;
        Ok(Outcome::Nothing)
    }

    /// Flushes every disk, for a bounded time: a dead one must not keep the machine from going away.
    fn flush(&self, context: &hwm::Context) {
        let (deployment, context) = (self.machine.deployment.clone(), context.clone());
        let (done, flushed) = std::sync::mpsc::sync_channel(1);
        // Not joined: it may hang in the kernel for ever.
        std::thread::spawn(move || {
            if let Err(error) = deployment.sync(&context) {
                tracing::warn!(error = hwm::chain(&error), "flushing before the end failed");
            }
            context.host.kernel().sync();
            let _ = done.send(()); // nobody waits any more when it took too long
        });
        if flushed.recv_timeout(FLUSH_LIMIT).is_err() {
            tracing::warn!("the disks were not flushed in time");
        }
    }
}

/// **Switches the machine off, or reboots it**: by the kernel, else by the magic system request. A refusal is not worked
/// around: the system request asks nobody whose machine it is.
fn go(host: &Host, action: Power, word: &str) -> Result<(), String> {
    let Err(error) = host.kernel().power(action) else { return Ok(()) };
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return Err(format!("{word} was refused: {error}; switch the machine off by hand"));
    }
    tracing::warn!(%error, "the kernel failed; trying the magic system request");
    let key = match action {
        Power::Off => "o",
        Power::Reboot => "b",
    };
    std::fs::write(host.path("/proc/sysrq-trigger"), key)
        .map_err(|second| format!("{word} failed: {error}; the magic system request failed too: {second}"))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::Arc;

    use sys::fake::{FakeRunner, RecordingKernel};

    use super::*;

    #[test]
    fn a_refusal_to_switch_off_is_not_worked_around() {
        for (kind, keys) in [(ErrorKind::PermissionDenied, ""), (ErrorKind::Other, "b")] {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("proc")).unwrap();
            let trigger = root.path().join("proc/sysrq-trigger");
            std::fs::write(&trigger, "").unwrap();
            let mut kernel = RecordingKernel::default();
            kernel.power_fails = Some(kind);
            let host = Host::new(root.path(), Arc::new(FakeRunner::default()), Arc::new(kernel));
            assert_eq!(go(&host, Power::Reboot, "reboot").is_err(), keys.is_empty());
            assert_eq!(std::fs::read_to_string(&trigger).unwrap(), keys);
        }
    }
}
