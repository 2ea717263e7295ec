//! What only the first process of a machine may ask: whether it is that, what Ctrl-Alt-Del does, and what its environment shows.

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

/// Overwrites the values of those environment variables that `is_secret` picks by name and value with `*`, where they are: programs
/// and `/proc/PID/environ` show the stars. The kernel makes each parameter that it does not know a variable of process 1.
///
/// Call it on the main thread before any other starts, and before anything keeps a pointer into the environment.
pub fn hide_environment(is_secret: impl Fn(&str, &str) -> bool) {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: the C library keeps `environ` as an array of pointers to C strings that ends with a null pointer. No other thread
    // runs, so nothing changes the array or the strings while they are read.
    let mut next = unsafe { environ };
    if next.is_null() {
        return;
    }
    loop {
        // SAFETY: `next` has not passed the null pointer at the end of the array, see above.
        let entry = unsafe { *next };
        if entry.is_null() {
            return;
        }
        // SAFETY: each entry is a C string; the slice is not used after the string is changed.
        let text = unsafe { std::ffi::CStr::from_ptr(entry) }.to_bytes();
        let split = text.iter().position(|byte| *byte == b'=');
        let hidden = split.filter(|at| {
            let (name, value) = text.split_at(*at);
            let value = value.get(1..).unwrap_or_default();
            is_secret(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value))
        });
        if let Some(at) = hidden {
            let length = text.len() - at - 1;
            // SAFETY: these bytes lie between the equals sign and the end of the string, which is writable memory of this
            // process (the kernel put it on the stack), and nothing else refers to them.
            unsafe { std::ptr::write_bytes(entry.add(at + 1).cast::<u8>(), b'*', length) };
        }
        // SAFETY: the entry was not the null pointer at the end, so there is another one behind it.
        next = unsafe { next.add(1) };
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CommandLine, Runner, SystemRunner};

    /// Runs this test alone in another process: the environment of this one belongs to all tests.
    #[test]
    fn secrets_of_the_kernel_command_line_leave_the_environment() {
        const CHILD: &str = "FERRIC_TEST_CHILD";
        if std::env::var_os(CHILD).is_none() {
            let program = std::env::current_exe().unwrap().display().to_string();
            let test = "pid1::tests::secrets_of_the_kernel_command_line_leave_the_environment";
            let command = CommandLine::new([program.as_str(), "--exact", test, "--nocapture"]);
            let command = command
                .variable(CHILD, "1")
                .variable("ipa-agent-token", "s3cret")
                .variable("other", "s3cret-no");
            let output = String::from_utf8(SystemRunner.run(&command).unwrap().stdout).unwrap();
            assert!(output.contains("1 passed"), "{output}");
            return;
        }
        hide_environment(|name, _| name.contains("token"));
        let shown = std::fs::read_to_string("/proc/self/environ").unwrap();
        let shown: Vec<_> = shown.split('\0').collect();
        assert!(shown.contains(&"ipa-agent-token=******") && shown.contains(&"other=s3cret-no"), "{shown:?}");
        assert_eq!(std::env::var_os("ipa-agent-token").unwrap(), "******");
    }
}
