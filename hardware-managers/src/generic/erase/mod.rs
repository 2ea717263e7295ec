//! The steps that erase: which disks, in which way, how many at once. Source: data plane page, 8.
//!
//! - [`devices`]: `erase_devices`, every byte, by the disk's own firmware where it can, else by writing over it;
//! - [`metadata`]: `erase_devices_metadata`, partition tables and signatures only;
//! - [`express`]: `erase_devices_express`, the quickest of both for each disk.
//!
//! All of them check every disk before the first is touched ([`candidates`]).

mod candidates;
pub(super) mod devices;
pub(super) mod express;
mod means;
pub(super) mod metadata;
mod options;
mod progress;

use std::time::Instant;

use events::{EventKind, Phase};
use hwm::{Context, Error};

/// Runs the work on one disk between the events of its phase.
fn in_phase<T>(cx: &Context, device: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let started = Instant::now();
    cx.events.emit(EventKind::PhaseStarted { phase: Phase::Erase, subject: device.to_owned() });
    let result = work();
    cx.events.emit(match &result {
        Ok(_) => EventKind::PhaseFinished {
            phase: Phase::Erase,
            seconds: started.elapsed().as_secs_f64(),
            bytes: None,
        },
        Err(error) => {
            EventKind::Failed { phase: Phase::Erase, message: format!("{device}: {}", hwm::chain(error)) }
        }
    });
    result
}

/// One failure for a step that went on with the other disks.
fn collected(action: &str, failures: &[(String, String)]) -> Result<(), Error> {
    if failures.is_empty() {
        return Ok(());
    }
    let each: Vec<String> = failures.iter().map(|(device, why)| format!("{device}: {why}")).collect();
    Err(Error::BlockDeviceErase { message: format!("{action} failed on {}", each.join("; ")) })
}

fn cancelled() -> Error {
    Error::Failed { message: "erasing was cancelled".into() }
}
