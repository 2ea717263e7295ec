//! Who may wait for which child: programs that Ferric started belong to whoever started them, everything else that ends as a
//! child of PID 1 is an orphan and must be reaped, or the process table fills up.
//!
//! A child is registered under the same lock under which it is started, so that the reaper can never see one that is not
//! yet registered; it stays registered until its starter has waited for it.

use std::collections::BTreeSet;
use std::io;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};

/// The process ids of children that somebody waits for. A process has one table of children, so this is one as well.
static OWNED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Keeps the reaper off a child. Drop it after the child was waited for.
#[derive(Debug)]
pub struct Owned(i32);

impl Drop for Owned {
    fn drop(&mut self) {
        owned().remove(&self.0);
    }
}

/// Starts a program that the caller promises to wait for before it drops the guard.
pub fn spawn(command: &mut Command) -> io::Result<(Child, Owned)> {
    let mut owned = owned();
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    owned.insert(pid);
    Ok((child, Owned(pid)))
}

/// What [`reap`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// An orphan with this process id ended and is gone.
    Orphan(i32),
    /// A child ended that somebody else waits for: ask again a little later.
    NotOurs,
    /// There are no children at all: ask again later.
    NoChildren,
}

/// Waits until any child ends and takes it away if it is an orphan. Blocks as long as no child ends.
pub fn reap() -> io::Result<Reaped> {
    let ended = match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
        Ok(status) => status.pid(),
        Err(Errno::ECHILD) => return Ok(Reaped::NoChildren),
        Err(Errno::EINTR) => None,
        Err(error) => return Err(error.into()),
    };
    let Some(pid) = ended else { return Ok(Reaped::NotOurs) };
    let owned = owned();
    if owned.contains(&pid.as_raw()) {
        return Ok(Reaped::NotOurs);
    }
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(_) => Ok(Reaped::NotOurs), // its starter was quicker
        Ok(_) => Ok(Reaped::Orphan(pid.as_raw())),
    }
}

/// A panic elsewhere leaves the set valid.
fn owned() -> MutexGuard<'static, BTreeSet<i32>> {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CommandLine, Runner, SystemRunner};
    use std::thread;
    use std::time::{Duration, Instant};

    /// As a "subreaper" this test process inherits orphans just as PID 1 does.
    #[test]
    fn orphans_are_reaped_and_children_of_the_runner_are_left_to_it() {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let runners: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(|| {
                    for round in 0..10 {
                        let script = format!("(sleep 0.0{round}; exit 3) & exit 0");
                        SystemRunner.run(&CommandLine::new(["/bin/sh", "-c", &script])).unwrap();
                    }
                })
            })
            .collect();
        let mut orphans = 0;
        let deadline = Instant::now() + Duration::from_secs(60);
        while orphans < 40 && Instant::now() < deadline {
            match reap().unwrap() {
                Reaped::Orphan(_) => orphans += 1,
                Reaped::NotOurs | Reaped::NoChildren => thread::sleep(Duration::from_millis(5)),
            }
        }
        for runner in runners {
            runner.join().unwrap();
        }
        nix::sys::prctl::set_child_subreaper(false).unwrap();
        assert!(orphans >= 40, "{orphans} orphans were reaped");
    }
}
