//! The ways to erase one disk, and which is taken when: the decision table of the data plane page, 8.2.

use std::cell::Cell;
use std::ops::ControlFlow;

use disk::Target;
use disk::erase::{Finished, Outcome};
use hwm::{Context, Error};

use super::options::EraseOptions;
use super::progress::Meter;
use super::{cancelled, in_phase};
use crate::generic::deploy::{announce, reread};

/// What can be done to a disk. **Each destroys what is on it.**
pub(super) trait Means {
    /// `/dev/sda`.
    fn device(&self) -> &str;
    fn nvme_format(&self) -> Result<Outcome, String>;
    fn ata_secure_erase(&self) -> Result<Outcome, String>;
    fn overwrite(&self) -> Result<(), Error>;
}

/// NVMe by its name, as upstream tells.
pub(super) fn is_nvme(device: &str) -> bool {
    device.starts_with("/dev/nvme")
}

/// **Erases a disk** in the first way that works and is permitted. Returns which it was.
pub(super) fn erase(means: &dyn Means, options: &EraseOptions) -> Result<String, Error> {
    let own = match (is_nvme(means.device()), options.nvme, options.ata) {
        (true, true, _) => Some(means.nvme_format()),
        (false, _, true) => Some(means.ata_secure_erase()),
        (true, false, _) | (false, _, false) => None,
    };
    match own {
        None => {}
        Some(Ok(Outcome::Erased(way))) => return Ok(way),
        Some(Ok(Outcome::Unsupported(why))) => {
            tracing::info!(device = means.device(), why, "the disk can not erase itself");
        }
        Some(Err(why)) if options.continue_after_failure => {
            tracing::warn!(
                device = means.device(),
                why,
                "the disk did not erase itself; writing over it instead"
            );
        }
        Some(Err(why)) => {
            return Err(Error::BlockDeviceErase {
                message: format!(
                    "{why}; writing over it instead is not enabled (conductor option \
                     [deploy]continue_if_disk_secure_erase_fails)"
                ),
            });
        }
    }
    let plan = options.overwrite;
    if plan.random_passes == 0 && !plan.zero_pass {
        return Err(Error::BlockDeviceErase {
            message: format!(
                "{} would not be erased: no random pass and no pass of zeroes is asked for \
                 ([deploy]shred_random_overwrite_iterations, [deploy]shred_final_overwrite_with_zeros)",
                means.device()
            ),
        });
    }
    means.overwrite()?;
    let zeroes = if plan.zero_pass { ", then zeroes" } else { "" };
    Ok(format!("{} random passes{zeroes}", plan.random_passes))
}

/// The real ones, for a claimed disk.
pub(super) struct Real<'a> {
    pub(super) cx: &'a Context,
    pub(super) target: &'a Target,
    pub(super) options: &'a EraseOptions,
    /// Every disk of this step: what an NVMe controller may erase along.
    pub(super) names: &'a [String],
    pub(super) meter: &'a Meter<'a>,
    /// Whether the disk stopped answering. Every further request to it would hang as well.
    pub(super) is_stalled: Cell<bool>,
}

impl Real<'_> {
    /// **Erases the disk**, between the events of its phase.
    pub(super) fn run(&self) -> Result<(), Error> {
        let device = &self.target.disk().name;
        let way = in_phase(self.cx, device, || {
            announce(self.cx, self.target, "erasing");
            erase(self, self.options)
        });
        // Whatever came of it: the table that the kernel knows is not to be trusted any more.
        if !self.is_stalled.get() {
            reread(self.cx, self.target);
        }
        // Not among the log line's fields: they are evaluated only where the line is logged.
        let way = way?;
        tracing::info!(device, way, "disk erased");
        Ok(())
    }
}

impl Means for Real<'_> {
    fn device(&self) -> &str {
        &self.target.disk().name
    }

    fn nvme_format(&self) -> Result<Outcome, String> {
        let outcome = disk::erase::nvme_format(self.target, self.names);
        self.meter.settle(self.target, self.options, &outcome);
        outcome.map_err(|error| hwm::chain(&error))
    }

    fn ata_secure_erase(&self) -> Result<Outcome, String> {
        let outcome = disk::erase::ata_secure_erase(self.target);
        self.meter.settle(self.target, self.options, &outcome);
        outcome.map_err(|error| hwm::chain(&error))
    }

    fn overwrite(&self) -> Result<(), Error> {
        let mut report = |bytes| {
            self.meter.add(bytes);
            if self.cx.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (plan, limit) = (&self.options.overwrite, self.options.stall_limit);
        match disk::erase::overwrite(self.target, plan, limit, &mut report) {
            Ok(Finished::Completely) => Ok(()),
            Ok(Finished::Stopped) => Err(cancelled()),
            Err(error) => {
                self.is_stalled.set(matches!(error, disk::Error::Stalled { .. }));
                Err(Error::BlockDeviceErase { message: hwm::chain(&error) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::erase::Overwrite;
    use std::sync::Mutex;

    struct Fake {
        device: &'static str,
        own: Result<Outcome, String>,
        overwrite_fails: bool,
        calls: Mutex<Vec<&'static str>>,
    }

    impl Fake {
        fn new(device: &'static str, own: Result<Outcome, String>) -> Self {
            Self { device, own, overwrite_fails: false, calls: Mutex::default() }
        }

        fn own(&self, call: &'static str) -> Result<Outcome, String> {
            self.calls.lock().unwrap().push(call);
            self.own.clone()
        }
    }

    impl Means for Fake {
        fn device(&self) -> &str {
            self.device
        }
        fn nvme_format(&self) -> Result<Outcome, String> {
            self.own("nvme")
        }
        fn ata_secure_erase(&self) -> Result<Outcome, String> {
            self.own("ata")
        }
        fn overwrite(&self) -> Result<(), Error> {
            self.calls.lock().unwrap().push("overwrite");
            match self.overwrite_fails {
                true => Err(Error::BlockDeviceErase { message: "write error".into() }),
                false => Ok(()),
            }
        }
    }

    fn options(nvme: bool, ata: bool, continue_after_failure: bool) -> EraseOptions {
        EraseOptions {
            overwrite: Overwrite { random_passes: 1, zero_pass: true, verify: false },
            continue_after_failure,
            nvme,
            ata,
            skip_read_only: false,
            concurrency: 1,
            guard: true,
            stall_limit: disk::erase::STALL_LIMIT,
        }
    }

    #[test]
    fn the_decision_table_holds() {
        let erased = || Ok(Outcome::Erased("own".into()));
        let unsupported = || Ok(Outcome::Unsupported("no".into()));
        let failed = || Err("broken".to_owned());
        let (sda, nvme) = ("/dev/sda", "/dev/nvme0n1");
        for (device, own, options, calls, succeeds) in [
            (nvme, erased(), options(true, true, false), &["nvme"][..], true),
            (nvme, failed(), options(true, true, false), &["nvme"], false),
            (nvme, failed(), options(true, true, true), &["nvme", "overwrite"], true),
            (nvme, erased(), options(false, true, false), &["overwrite"], true),
            (sda, erased(), options(true, true, false), &["ata"], true),
            (sda, unsupported(), options(true, true, false), &["ata", "overwrite"], true),
            (sda, failed(), options(true, true, false), &["ata"], false),
            (sda, failed(), options(true, true, true), &["ata", "overwrite"], true),
            (sda, erased(), options(true, false, false), &["overwrite"], true),
        ] {
            let fake = Fake::new(device, own);
            let result = erase(&fake, &options);
            assert_eq!(*fake.calls.lock().unwrap(), calls, "{device} {options:?}");
            assert_eq!(result.is_ok(), succeeds, "{device} {options:?}: {result:?}");
            if let Err(error) = result {
                assert!(
                    matches!(&error, Error::BlockDeviceErase { message } if message.contains("broken")),
                    "{error:?}"
                );
            }
        }
    }

    #[test]
    fn an_overwrite_that_fails_or_would_do_nothing_is_no_success() {
        let unsupported = Ok(Outcome::Unsupported("no".into()));
        let mut failing = Fake::new("/dev/sda", unsupported.clone());
        failing.overwrite_fails = true;
        assert!(erase(&failing, &options(true, true, true)).is_err());
        let mut nothing = options(true, true, true);
        nothing.overwrite = Overwrite { random_passes: 0, zero_pass: false, verify: true };
        let fake = Fake::new("/dev/sda", unsupported);
        assert!(erase(&fake, &nothing).unwrap_err().to_string().contains("iterations"));
        assert_eq!(*fake.calls.lock().unwrap(), ["ata"]);
    }
}
