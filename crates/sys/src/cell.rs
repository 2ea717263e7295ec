//! Running programs of somebody else's system so that they see that system and nothing of this one.
//!
//! A deployed image is a tenant's; the ramdisk beside it knows the controller's address and token, has other networks and other
//! disks. A program of the image gets namespaces of its own for mounts, processes, network and IPC, a `/proc` without this
//! system's processes and kernel parameters, and of root's rights only those over files. What is left to it is what was
//! mounted for it: its own disk. It is no prison for an attack on the kernel itself.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, chdir, chroot, fork};

/// Rights of root that remain: over owners, modes and ids of files and processes. Not mounting, modules, raw I/O, devices, network.
const KEPT: [libc::c_int; 9] = [
    0,  // CAP_CHOWN
    1,  // CAP_DAC_OVERRIDE
    2,  // CAP_DAC_READ_SEARCH
    3,  // CAP_FOWNER
    4,  // CAP_FSETID
    5,  // CAP_KILL
    6,  // CAP_SETGID
    7,  // CAP_SETUID
    31, // CAP_SETFCAP
];
/// The kernel answers EINVAL long before.
const MOST_CAPABILITIES: libc::c_int = 64;
/// Files of `/proc` that tell of this system.
const HIDDEN: [&str; 6] = ["cmdline", "kcore", "kmsg", "keys", "key-users", "sysrq-trigger"];
/// Places in `/proc` through which root could steer the kernel without any right: a program to start at a crash, for one.
const STEERING: [&str; 4] = ["sys", "irq", "bus", "fs"];
/// Where the standard streams end and what must not stay open begins; where nobody opens more.
const FIRST_OTHER: libc::c_int = 3;
const LAST_OTHER: libc::c_int = 1024;
/// Marks them to be closed by exec, where closing them at once would hide why exec fails.
const AT_EXEC: libc::c_uint = 4;

/// Makes the program start in the system below `root`.
pub(crate) fn enter(program: &mut Command, root: &Path) -> io::Result<()> {
    let cell = Cell::at(root)?;
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `Cell::enter` makes plain system calls with strings
    // that were made before, and allocates nothing; fork is among the calls that POSIX allows there.
    unsafe { program.pre_exec(move || cell.enter()) };
    Ok(())
}

struct Cell {
    root: CString,
    proc: CString,
    hidden: Vec<CString>,
    steering: Vec<CString>,
}

impl Cell {
    fn at(root: &Path) -> io::Result<Self> {
        let path = |path: &Path| Ok::<_, io::Error>(CString::new(path.as_os_str().as_bytes())?);
        let proc = root.join("proc");
        let all = |names: &[&str]| names.iter().map(|name| path(&proc.join(name))).collect::<io::Result<_>>();
        Ok(Self { root: path(root)?, hidden: all(&HIDDEN)?, steering: all(&STEERING)?, proc: path(&proc)? })
    }

    /// Returns in the process that becomes the program, the first one of its namespace.
    fn enter(&self) -> io::Result<()> {
        unshare(
            CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWUTS,
        )?;
        // SAFETY: see `enter` above; neither branch does more than system calls.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => stand_for(child),
            ForkResult::Child => {}
        }
        // SAFETY: a system call with numbers only.
        Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        let none: Option<&std::ffi::CStr> = None;
        // Nothing that is mounted from here on is seen outside.
        mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let bind = MsFlags::MS_BIND;
        mount(Some(self.root.as_c_str()), self.root.as_c_str(), none, bind | MsFlags::MS_REC, none)?;
        let harmless = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        there(mount(Some(c"proc"), self.proc.as_c_str(), Some(c"proc"), harmless, none))?;
        for path in &self.hidden {
            there(mount(Some(c"/dev/null"), path.as_c_str(), none, bind, none))?;
        }
        for path in &self.steering {
            if there(mount(Some(path.as_c_str()), path.as_c_str(), none, bind, none))? {
                let flags = bind | harmless | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                mount(none, path.as_c_str(), none, flags, none)?;
            }
        }
        // Not pivot_root, which a ramdisk's root refuses. From a mere chroot there is a way out.
        chdir(self.root.as_c_str())?;
        mount(Some(c"."), c"/", none, MsFlags::MS_MOVE, none)?;
        chroot(c".")?;
        chdir(c"/")?;
        close_others(AT_EXEC);
        give_up_rights()
    }
}

/// Whether it was there at all: a system may lack `/proc`, a kernel a file in it.
fn there(result: nix::Result<()>) -> nix::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Closes every descriptor but the standard streams, or marks it. An older kernel does not know how to do it at once.
fn close_others(flags: libc::c_uint) {
    // SAFETY: system calls with numbers only; no value in this process that owns a descriptor is used again: it waits and
    // ends, or is replaced by another program.
    unsafe {
        if libc::syscall(libc::SYS_close_range, FIRST_OTHER, libc::c_uint::MAX, flags) == 0 {
            return;
        }
        for descriptor in FIRST_OTHER..LAST_OTHER {
            match flags {
                AT_EXEC => libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC),
                _ => libc::close(descriptor),
            };
        }
    }
}

fn give_up_rights() -> io::Result<()> {
    for capability in (0..MOST_CAPABILITIES).filter(|number| !KEPT.contains(number)) {
        // SAFETY: a system call with numbers only.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Err(Errno::EINVAL) => break, // the kernel knows no more
            result => result.map(drop)?,
        }
    }
    // SAFETY: as above.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    Ok(())
}

/// What stays behind where the program's starter looks: waits for it and ends as it did. What the program started ends with it,
/// as the whole namespace does.
fn stand_for(program: nix::unistd::Pid) -> ! {
    // Else whoever started us waits for the end of a pipe that we hold too.
    close_others(0);
    let code = loop {
        match waitpid(program, None) {
            Ok(WaitStatus::Exited(_, code)) => break code,
            Ok(WaitStatus::Signaled(_, signal, _)) => break 128_i32.saturating_add(signal as libc::c_int),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break 255,
        }
    };
    // SAFETY: ends this process at once, without the other threads' cleanups, which are not in it.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::{CommandLine, MountRequest, Mounted, RunError, Runner, SystemRunner};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    /// This system's files as somebody else's system: a bind mount of `/` alone, without what is mounted in it.
    pub(crate) struct Other(Mounted);

    impl Other {
        pub(crate) fn new() -> Option<Self> {
            let host = crate::Host::real();
            // Not a directory that is removed with all that is in it: this machine is in it.
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let target = std::env::temp_dir().join(format!("ferric-other-{}-{number}", std::process::id()));
            let mounted = Mounted::new(&host, &MountRequest::bind("/", &target)).ok();
            if mounted.is_none() {
                let text = "SKIPPED: mounting needs root\n";
                let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()); // past cargo's capture: it counts
            }
            mounted.map(Self)
        }

        pub(crate) fn path(&self) -> &std::path::Path {
            self.0.path()
        }

        fn run(&self, script: &str) -> Result<String, RunError> {
            let command = CommandLine::new(["/bin/sh", "-c", script]).inside(self.0.path());
            let output = SystemRunner.run(&command.limit(Duration::from_secs(30)))?;
            Ok(String::from_utf8(output.stdout).unwrap())
        }
    }

    #[test]
    fn loop_a_program_of_another_system_sees_neither_our_processes_nor_our_secrets() {
        let Some(other) = Other::new() else { return };
        assert_eq!(other.run("echo $$; ls -d /proc/[0-9]*").unwrap(), "1\n/proc/1\n", "the shell itself");
        assert_eq!(other.run("cat /proc/cmdline /proc/kmsg").unwrap(), "");
        // Its first process is itself, so this is no way to ours.
        assert_eq!(other.run("tr '\\0' '\\n' < /proc/1/environ | grep -c CARGO; true").unwrap(), "0\n");
        assert_eq!(
            other.run("cat /proc/net/dev | grep -c :").unwrap(),
            "1\n",
            "the loopback, and it is down"
        );
        assert_eq!(other.run("ls /proc/self/fd").unwrap(), "0\n1\n2\n3\n", "3 is the directory that is read");
    }

    #[test]
    fn loop_a_program_of_another_system_can_not_steer_this_one() {
        let Some(other) = Other::new() else { return };
        for attempt in [
            "echo x > /proc/sys/kernel/core_pattern",
            "mount -t tmpfs x /mnt",
            "umount /proc",
            "mknod /tmp/ferric-node b 7 0",
            "chroot /tmp /",
            "echo 1 > /proc/sys/kernel/sysrq",
        ] {
            let error = other.run(attempt).unwrap_err();
            assert!(matches!(error, RunError::Failed { .. }), "{attempt}: {error}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        other.run(&format!("echo written > {path}; chown 1:1 {path}")).unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "written\n", "its own files are its own");
    }

    #[test]
    fn loop_its_end_is_told_and_what_it_left_running_ends_with_it() {
        let Some(other) = Other::new() else { return };
        let error = other.run("echo reason >&2; exit 7").unwrap_err().to_string();
        assert!(error.contains("exit status: 7") && error.contains("reason"), "{error}");
        let started = Instant::now();
        other.run("sleep 40 & exit 0").unwrap();
        assert!(started.elapsed() < Duration::from_secs(20), "nothing holds its output open");
        let command = CommandLine::new(["/bin/sleep", "40"]).inside(other.0.path());
        let error = SystemRunner.run(&command.limit(Duration::from_millis(300))).unwrap_err();
        assert!(matches!(error, RunError::TimedOut { .. }), "{error}");
        let missing = CommandLine::new(["/no/such/program"]).inside(other.0.path());
        assert!(SystemRunner.run(&missing).unwrap_err().is_missing());
        let Other(mounted) = other;
        mounted.unmount().unwrap(); // nothing uses it any more
    }
}
