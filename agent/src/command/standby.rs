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
        self.flush(&context);
        std::thread::sleep(REPLY_GRACE);
        tracing::info!(action = word, "the machine goes away now");
        let Err(error) = context.host.kernel().power(action) else { return Ok(Outcome::Nothing) };
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
