//! A control group that limits memory, of whichever version this machine has, for tests that say how much a program may take.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// A group whose processes may take so much memory together: their own, and the page cache and kernel memory that they cause.
/// Whoever takes more is killed by the kernel. Dropping it removes it.
#[derive(Debug)]
pub struct MemoryLimit {
    folder: PathBuf,
    peak: &'static str,
}

impl MemoryLimit {
    /// A group of `bytes` bytes; `None` where this machine lets nobody make one (no controller, no root).
    pub fn new(name: &str, bytes: u64) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mounted = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let mut words = line.split(' ').skip(1);
                let (place, this, options) = (words.next()?, words.next()?, words.next()?);
                (this == kind && (option.is_empty() || options.split(',').any(|one| one == option)))
                    .then(|| PathBuf::from(place))
            })
        };
        let name = format!("ferric-test-{name}-{}", std::process::id());
        if let Some(root) = mounted("cgroup", "memory") {
            let group = Self { folder: root.join(name), peak: "memory.max_usage_in_bytes" };
            return group.make(&[("memory.limit_in_bytes", bytes)], &["memory.memsw.limit_in_bytes"], bytes);
        }
        let root = mounted("cgroup2", "")?;
        // Children have the controller only if their parent hands it down. It may do so already.
        let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
        let group = Self { folder: root.join(name), peak: "memory.peak" };
        group.make(&[("memory.max", bytes)], &["memory.swap.max"], 0)
    }

    fn make(self, needed: &[(&str, u64)], swap: &[&str], swap_bytes: u64) -> Option<Self> {
        fs::create_dir(&self.folder).ok()?;
        for (file, value) in needed {
            fs::write(self.folder.join(file), value.to_string()).ok()?;
        }
        for file in swap {
            // Not there where the kernel accounts no swap.
            let _ = fs::write(self.folder.join(file), swap_bytes.to_string());
        }
        Some(self)
    }

    /// The command, started inside the group.
    pub fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(self.folder.join("cgroup.procs"));
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }

    /// The most that was taken at a time, page cache included.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn peak(&self) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join(self.peak)).context("reading the group's peak")?;
        text.trim().parse().context("reading the group's peak")
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Its processes were waited for; what they left in the cache goes to the parent.
        let _ = fs::remove_dir(&self.folder);
    }
}
