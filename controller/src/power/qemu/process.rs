//! Starting QEMU, and seeing whether it is gone. The one place of the controller that starts a process: it depends on
//! neither the agent nor `sys`, and QEMU is the machine itself here, not a tool.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// QEMU detaches itself within a second; on a machine under load it may take its time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Flushing a large disk may take a while after `quit`.
pub const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at a process that starts or ends.
pub const TICK: Duration = Duration::from_millis(20);

/// QEMU, where distributions put it.
pub fn find_qemu() -> Option<PathBuf> {
    let places =
        ["/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"];
    places.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Starts QEMU (`-daemonize` is among `argv`) and returns when it has detached itself: it then runs in a session of its
/// own and outlives us. The error is QEMU's own words.
pub fn start(binary: &Path, argv: &[String]) -> Result<(), String> {
    tracing::debug!(program = %binary.display(), ?argv, "starting qemu");
    #[allow(
        clippy::disallowed_methods,
        reason = "the controller may not depend on crates/sys; see the module's header"
    )]
    let mut command = Command::new(binary);
    command.args(argv).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("starting {}: {e}", binary.display()))?;
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut stderr) = stderr {
            // What was read before an error is still worth showing.
            if let Err(error) = stderr.read_to_string(&mut text) {
                tracing::debug!(%error, "reading qemu's messages");
            }
        }
        text
    });
    let deadline = Instant::now() + START_LIMIT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(TICK),
            Ok(None) => {
                if let Err(error) = child.kill().and_then(|()| child.wait()) {
                    tracing::warn!(%error, "ending a qemu that did not start");
                }
                return Err(format!("QEMU did not start within {} s", START_LIMIT.as_secs()));
            }
            Err(e) => return Err(format!("waiting for {}: {e}", binary.display())),
        }
    };
    // On success QEMU has closed its messages; on failure it has ended.
    let text = reader.join().unwrap_or_default();
    if status.success() {
        return Ok(());
    }
    let tail: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = tail.iter().rev().take(5).rev().copied().collect::<Vec<_>>().join("; ");
    Err(format!("QEMU refused to start ({status}): {tail}"))
}

/// The process id in a pid file.
pub fn read_pid(file: &Path) -> Option<u32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Waits until nothing listens on the socket and the process has ended, so that its disks are free again.
pub fn wait_gone(socket: &Path, pid: Option<u32>) -> Result<(), String> {
    let deadline = Instant::now() + STOP_LIMIT;
    loop {
        let listens = std::os::unix::net::UnixStream::connect(socket).is_ok();
        if !listens && pid.is_none_or(|pid| !runs(pid, socket)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let pid = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            return Err(format!("QEMU{pid} did not end within {} s: end it by hand", STOP_LIMIT.as_secs()));
        }
        std::thread::sleep(TICK);
    }
}

/// Whether this process is the QEMU of that socket, and no zombie. A number alone may long be somebody else's.
fn runs(pid: u32, socket: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // A zombie's command line is empty.
    String::from_utf8_lossy(&line).contains(&*socket.to_string_lossy())
}
