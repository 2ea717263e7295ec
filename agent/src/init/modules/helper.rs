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
        let found = index.resolve(&name);
        note(host, &name, &found);
        for module in found.into_iter().flat_map(|module| index.load_order(module)) {
            // What is loaded answers that it exists, and is no failure.
            let _ = load(host, &index, &policy, module);
        }
    }
}

/// Leaves a word in the kernel's log, at its debug level: a helper has no other place to say what it did.
fn note(host: &Host, name: &str, found: &[&str]) {
    let text = format!("<7>ferric-agent: the kernel asked for {name}: {}\n", found.join(" "));
    let _ = std::fs::OpenOptions::new().write(true).open(host.path("/dev/kmsg")).and_then(|mut log| {
        use std::io::Write;
        log.write_all(text.as_bytes())
    }); // nobody to tell when even that fails
}
