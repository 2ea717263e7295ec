//! The kernel's own requests for modules: it starts `modprobe` when a mount needs a character set or a socket its protocol.
//! There is none in the ramdisk, so the agent plays it: a link of that name points to the agent's own program.

use std::path::Path;

use sys::Host;

use super::index::Index;
use super::loader::{Policy, load};
use crate::cmdline::Cmdline;

const LINK: &str = "/sbin/modprobe";
/// Where the kernel looks up which program to start.
const SETTING: &str = "/proc/sys/kernel/modprobe";

/// Makes the kernel's requests come here, unless the ramdisk has a `modprobe` of its own.
pub(in crate::init) fn install(host: &Host) {
    let link = host.path(LINK);
    if std::fs::symlink_metadata(&link).is_ok() {
        return;
    }
    let installed = std::fs::read_link(host.path("/proc/self/exe"))
        .and_then(|program| {
            std::fs::create_dir_all(host.path("/sbin"))?;
            std::os::unix::fs::symlink(program, &link)
        })
        .and_then(|()| std::fs::write(host.path(SETTING), LINK));
    if let Err(error) = installed {
        tracing::debug!(%error, "the kernel can not ask for modules");
    }
}

/// Whether the kernel started this process to load modules: `main` asks this before anything else.
pub fn is_helper_call() -> bool {
    let called = std::env::args_os().next();
    called.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == "modprobe"))
}

/// Loads what the arguments name, as `modprobe -q -- NAME` would. Failures are the kernel's business, which sees what it lacks.
pub fn run_helper(host: &Host) {
    let release = host.attribute("/proc/sys/kernel/osrelease").unwrap_or_default();
    let index = Index::read(host, &release);
    let policy = Policy::new(&Cmdline::parse(&host.attribute("/proc/cmdline").unwrap_or_default()));
    for name in std::env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
        for module in index.resolve(&name) {
            for module in index.load_order(module) {
                // What is loaded answers that it exists, and is no failure.
                let _ = load(host, &index, &policy, module);
            }
        }
    }
}
