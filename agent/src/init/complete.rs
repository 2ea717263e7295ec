//! Whether the kernel unpacked the whole ramdisk. Where memory ends it stops, says so in its own log at the most, and starts
//! `/init` with the files that it has: later a driver is missing, and the network seems to be broken.

use sys::Host;

use super::Error;
use crate::cmdline::Cmdline;

/// Written by `ferric-image`. It is near the start of the archive and names the archive's last file.
const RELEASE: &str = "/etc/ferric-release";
const KEY: &str = "FERRIC_LAST_FILE=";
/// What to do about an incomplete ramdisk, for the console.
pub const ADVICE: &str = "give the machine at least 512 MiB of memory, and the kernel the parameter rootfstype=ramfs: without it only \
                          half of the memory is there for the ramdisk; if there is memory enough, the download of the ramdisk was cut \
                          off: try again";

/// Fails where the ramdisk names its last file and that file is not there. A ramdisk made by another program names none, and passes.
pub fn check(host: &Host, cmdline: &Cmdline) -> Result<(), Error> {
    let Ok(release) = std::fs::read_to_string(host.path(RELEASE)) else { return Ok(()) };
    let Some(last) = release.lines().find_map(|line| line.strip_prefix(KEY)) else { return Ok(()) };
    // An empty file is one whose bytes found no room.
    if std::fs::metadata(host.path(last.trim())).is_ok_and(|about| about.len() > 0) {
        return Ok(());
    }
    Err(Error::Incomplete {
        mebibytes: memory(host).unwrap_or_default(),
        root: if cmdline.get("rootfstype") == Some("ramfs") { "ramfs" } else { "tmpfs" },
    })
}

/// The machine's memory without what the kernel keeps for itself, in MiB.
fn memory(host: &Host) -> Option<u64> {
    let text = std::fs::read_to_string(host.path("/proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes / 1024)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sys::fake::{FakeRunner, RecordingKernel};

    use super::*;

    fn ramdisk(release: Option<&str>, last: Option<&str>) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for folder in ["etc", "proc"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        if let Some(text) = release {
            std::fs::write(root.path().join("etc/ferric-release"), text).unwrap();
        }
        if let Some(text) = last {
            std::fs::write(root.path().join("etc/the-end"), text).unwrap();
        }
        std::fs::write(root.path().join("proc/meminfo"), "MemTotal:         225280 kB\nMemFree: 1 kB\n")
            .unwrap();
        let host =
            Host::new(root.path(), Arc::new(FakeRunner::default()), Arc::new(RecordingKernel::default()));
        (root, host)
    }

    const RELEASE: Option<&str> = Some("NAME=\"Ferric ramdisk\"\nFERRIC_LAST_FILE=/etc/the-end\n");

    #[test]
    fn a_ramdisk_without_its_last_file_is_reported_with_the_memory_and_what_to_do() {
        for (last, parameters, root) in
            [(None, "quiet", "tmpfs"), (Some(""), "quiet rootfstype=ramfs", "ramfs")]
        {
            let (_folder, host) = ramdisk(RELEASE, last);
            let text = check(&host, &Cmdline::parse(parameters)).unwrap_err().to_string();
            assert!(text.contains("220 MiB") && text.contains(root), "{text}");
        }
        assert!(ADVICE.contains("rootfstype=ramfs") && ADVICE.contains("512 MiB"));
    }

    #[test]
    fn a_whole_ramdisk_and_one_of_another_maker_pass() {
        for (release, last) in [(RELEASE, Some("complete\n")), (None, None), (Some("NAME=other\n"), None)] {
            let (_folder, host) = ramdisk(release, last);
            assert!(check(&host, &Cmdline::parse("")).is_ok(), "{release:?}");
        }
    }
}
