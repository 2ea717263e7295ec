//! The step `erase_devices`: makes every byte of every disk unreadable.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hwm::{Context, Error};
use serde_json::{Map, Value};

use super::candidates::{Candidates, ReadOnly, collect};
use super::means::Real;
use super::options::EraseOptions;
use super::progress::Meter;
use super::{cancelled, collected};
use crate::settings::Settings;

/// **Erases every disk** that is neither skipped, nor a member of an array, nor virtual media, nor outside the allow-list;
/// several at once if the conductor says so. Returns `{"/dev/sda": null, ...}`.
///
/// # Errors
/// As `collect` before the first disk is touched. `BlockDeviceErase` naming every disk that failed; the others are erased.
pub(crate) fn run(cx: &Context, settings: &Settings) -> Result<Value, Error> {
    let options = EraseOptions::read(cx, settings)?;
    let Candidates { targets, passed_over } = collect(cx, settings, &options, ReadOnly::Fail)?;
    let names: Vec<String> = targets.iter().map(|target| target.disk().name.clone()).collect();
    let meter = Meter::new(cx, &targets, &options);
    let failures = in_parallel(options.concurrency, targets.len(), |index| {
        let Some(target) = targets.get(index) else { return Ok(()) };
        if cx.is_cancelled() {
            return Err(cancelled());
        }
        let is_stalled = Cell::new(false);
        Real { cx, target, options: &options, names: &names, meter: &meter, is_stalled }.run()
    });
    if cx.is_cancelled() {
        return Err(cancelled());
    }
    let failures: Vec<(String, String)> = failures
        .into_iter()
        .filter_map(|(index, error)| Some((names.get(index)?.clone(), hwm::chain(&error))))
        .collect();
    collected("erasing", &failures)?;
    Ok(Value::Object(
        names.into_iter().chain(passed_over).map(|name| (name, Value::Null)).collect::<Map<_, _>>(),
    ))
}

/// Does the work of every index below `count`, so many at once, and returns the failures by index. A panic of one does not
/// hide the others, and is the caller's in the end.
fn in_parallel(
    at_once: usize,
    count: usize,
    work: impl Fn(usize) -> Result<(), Error> + Sync,
) -> Vec<(usize, Error)> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(count) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    if let Err(error) = work(index) {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push((index, error));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|(index, _)| *index);
    failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn never_more_than_permitted_run_at_once_and_every_one_runs() {
        for (at_once, count) in [(1, 5), (3, 7), (8, 2), (4, 0)] {
            let (running, most, runs) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
            let failures = in_parallel(at_once, count, |index| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                running.fetch_sub(1, Ordering::SeqCst);
                runs.fetch_add(1, Ordering::SeqCst);
                if index % 2 == 1 { Err(Error::Failed { message: index.to_string() }) } else { Ok(()) }
            });
            assert_eq!(runs.load(Ordering::SeqCst), count);
            assert!(most.load(Ordering::SeqCst) <= at_once.min(count));
            let failed: Vec<usize> = failures.iter().map(|(index, _)| *index).collect();
            assert_eq!(failed, (0..count).filter(|index| index % 2 == 1).collect::<Vec<_>>());
        }
    }
}
