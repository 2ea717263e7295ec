//! What only the first process of a machine may ask: whether it is that, and what Ctrl-Alt-Del does.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

/// Whether this process is the first one (of its process id namespace).
pub fn is_first_process() -> bool {
    std::process::id() == 1
}

/// Whether `/` lies in memory, as in an initramfs: a ramfs or tmpfs. A container's or a machine's root is neither.
pub fn root_is_in_memory() -> bool {
    const RAMFS: libc::c_long = 0x8584_58f6;
    const TMPFS: libc::c_long = 0x0102_1994;
    let Ok(root) = nix::sys::statfs::statfs("/") else { return false };
    // The type of the field differs between C libraries.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let kind = root.filesystem_type().0 as libc::c_long;
    [RAMFS, TMPFS].contains(&kind)
}

/// Lets Ctrl-Alt-Del send SIGINT to this process instead of rebooting at once, and keeps SIGINT for [`wait_interrupt`].
/// Call it on the main thread before any other starts: threads inherit the mask. Programs that are started do not.
pub fn take_over_ctrl_alt_del() -> io::Result<()> {
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&interrupt()), None)?;
    Ok(nix::sys::reboot::set_cad_enabled(false)?)
}

/// Waits for SIGINT. Needs [`take_over_ctrl_alt_del`] first. Blocks for as long as none comes.
pub fn wait_interrupt() -> io::Result<()> {
    interrupt().wait()?;
    Ok(())
}

fn interrupt() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set
}
