//! The two duties of process 1 towards others: to take away orphans that ended, and to obey Ctrl-Alt-Del.

use std::thread;
use std::time::Duration;

use sys::children::{Reaped, reap};
use sys::{Host, Power};

/// How long to leave a child to the thread that started it. That thread looks at least every 50 ms.
const CHILD_PAUSE: Duration = Duration::from_millis(100);
/// How long to sleep when there are no children at all.
const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// How long dirty pages may take to reach their disks before Ctrl-Alt-Del reboots anyway.
const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// Starts both, on threads that live as long as the machine.
pub(super) fn start(host: &Host) {
    // Before the threads: they inherit which signals wait for whom.
    let obeying = sys::pid1::take_over_ctrl_alt_del();
    super::spawn("reaper", reap_for_ever);
    match obeying {
        Ok(()) => {
            let host = host.clone();
            super::spawn("ctrl-alt-del", move || obey(&host));
        }
        Err(error) => tracing::debug!(%error, "ctrl-alt-del stays with the kernel"),
    }
}

fn reap_for_ever() {
    loop {
        match reap() {
            Ok(Reaped::Orphan(pid)) => tracing::trace!(pid, "reaped an orphan"),
            Ok(Reaped::NotOurs) => thread::sleep(CHILD_PAUSE),
            Ok(Reaped::NoChildren) => thread::sleep(IDLE_PAUSE),
            Err(error) => {
                tracing::warn!(%error, "waiting for orphans failed");
                thread::sleep(IDLE_PAUSE);
            }
        }
    }
}

/// **Reboots the machine** when somebody presses Ctrl-Alt-Del.
fn obey(host: &Host) {
    loop {
        if let Err(error) = sys::pid1::wait_interrupt() {
            tracing::warn!(%error, "no longer listening to ctrl-alt-del");
            return;
        }
        tracing::warn!("ctrl-alt-del was pressed: rebooting");
        restart(host, Power::Reboot);
    }
}

/// **Switches the machine off or reboots it**, after dirty pages were written or had their time. Returns only on failure.
pub(super) fn restart(host: &Host, action: Power) {
    let (done, wait) = std::sync::mpsc::sync_channel(1);
    let syncing = host.clone();
    super::spawn("sync", move || {
        syncing.kernel().sync();
        let _ = done.send(()); // nobody waits any more when it took too long
    });
    if wait.recv_timeout(SYNC_LIMIT).is_err() {
        tracing::warn!("dirty pages did not reach their disks in time");
    }
    if let Err(error) = host.kernel().power(action) {
        tracing::error!(%error, ?action, "the kernel refused");
    }
}
