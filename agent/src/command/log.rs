//! The `log` extension: what an operator needs after a failure, as base64 of a gzipped tar.
//!
//! Every member is bounded, and what can not be read is left out. Secrets on the kernel command line are masked; the agent's
//! own log never held any. Source: agent protocol page, 7.2 (a conductor stores the archive and never looks inside).

use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use base64::Engine;
use flate2::Compression;
use flate2::write::GzEncoder;
use hwm::{Context, Registry};
use serde_json::json;
use sys::{CommandLine, Host};

use super::error::{ErrorClass, Failure};
use super::extensions::Extensions;
use super::record::Outcome;
use crate::logging::LogRing;

/// Longest member of what a conductor asks for, in bytes; of a longer one the end is kept.
const MEMBER_LIMIT: usize = 2 * 1024 * 1024;
/// Events in the archive.
const EVENT_LIMIT: usize = 4096;

/// Member name and file.
const FILES: [(&str, &str); 11] = [
    ("mount", "/proc/mounts"),
    ("partitions", "/proc/partitions"),
    ("mdstat", "/proc/mdstat"),
    ("meminfo", "/proc/meminfo"),
    ("agent_status", "/proc/self/status"), // the agent's own memory, now and at its peak
    ("modules", "/proc/modules"),
    ("swaps", "/proc/swaps"),
    ("net_dev", "/proc/net/dev"),
    ("net_route", "/proc/net/route"),
    ("net_if_inet6", "/proc/net/if_inet6"),
    ("resolv.conf", "/etc/resolv.conf"),
];

/// Member name and program: left out where the program is not there.
const PROGRAMS: [(&str, &[&str]); 6] = [
    ("lsblk", &["/usr/bin/lsblk", "--all", "--json", "-O"]),
    ("ip_addr", &["/usr/sbin/ip", "addr"]),
    ("efibootmgr", &["/usr/bin/efibootmgr", "-v"]),
    ("df", &["/usr/bin/df", "-a"]),
    ("ps", &["/usr/bin/ps", "au"]),
    ("lshw", &["/usr/bin/lshw", "-quiet", "-json"]),
];

impl Extensions {
    pub(super) fn collect_system_logs(&self) -> Result<Outcome, Failure> {
        let context = self.context();
        let (registry, log) = (&self.machine.registry, &self.machine.log);
        let text = LogSources { context: &context, registry, log }.pack(MEMBER_LIMIT).map_err(|error| {
            Failure::new(ErrorClass::CommandExecutionError, format!("packing the system logs: {error}"))
        })?;
        Ok(Outcome::Json(json!({ "system_logs": text })))
    }
}

/// Where the logs come from: for this extension, and for the data of an inspection.
pub(crate) struct LogSources<'a> {
    /// Host, events.
    pub(crate) context: &'a Context,
    /// Asked for the inventory.
    pub(crate) registry: &'a Registry,
    /// The agent's own log.
    pub(crate) log: &'a LogRing,
}

impl LogSources<'_> {
    /// The archive as base64 text. Of a member that is longer than `longest_member` bytes the end is kept.
    pub(crate) fn pack(&self, longest_member: usize) -> io::Result<String> {
        let mut archive = Archive::new(longest_member);
        self.fill(&mut archive);
        Ok(base64::engine::general_purpose::STANDARD.encode(archive.finish()?))
    }

    fn fill(&self, archive: &mut Archive) {
        let context = self.context;
        let host = &context.host;
        archive.add("ferric-agent.log", self.log.text().into_bytes());
        let page = context.events.after(0, EVENT_LIMIT);
        let lines: Vec<_> =
            page.events.iter().filter_map(|event| serde_json::to_string(event).ok()).collect();
        archive.add("events.jsonl", lines.join("\n").into_bytes());
        match self.registry.inventory(context).map(|inventory| serde_json::to_vec_pretty(&inventory)) {
            Ok(Ok(text)) => archive.add("inventory.json", text),
            Ok(Err(error)) => tracing::warn!(%error, "the inventory is left out of the logs"),
            Err(error) => tracing::warn!(error = hwm::chain(&error), "the inventory is left out of the logs"),
        }
        if let Some(words) = host.attribute("/proc/cmdline") {
            archive.add("cmdline", mask(&words).into_bytes());
        }
        match kernel_messages(host) {
            Ok(text) => archive.add("dmesg", text),
            Err(error) => tracing::debug!(%error, "kernel messages can not be read"),
        }
        for (name, path) in FILES {
            if let Ok(bytes) = std::fs::read(host.path(path)) {
                archive.add(name, bytes);
            }
        }
        for (name, argv) in PROGRAMS {
            let command = CommandLine::new(argv.iter().copied()).limit(std::time::Duration::from_secs(5));
            if let Ok(output) = host.runner().run(&command) {
                archive.add(name, output.stdout);
            }
        }
    }
}

/// A tar being gzipped. An error is kept until the end.
struct Archive {
    tar: tar::Builder<GzEncoder<Vec<u8>>>,
    error: Option<io::Error>,
    longest_member: usize,
}

impl Archive {
    fn new(longest_member: usize) -> Self {
        let gzip = GzEncoder::new(Vec::new(), Compression::fast());
        Self { tar: tar::Builder::new(gzip), error: None, longest_member }
    }

    fn add(&mut self, name: &str, bytes: Vec<u8>) {
        let start = bytes.len().saturating_sub(self.longest_member);
        let Some(bytes) = bytes.get(start..).filter(|bytes| !bytes.is_empty()) else { return };
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64); // usize fits u64 on every target of this agent
        header.set_mode(0o600);
        header.set_mtime(unix_now());
        if let Err(error) = self.tar.append_data(&mut header, name, bytes) {
            self.error.get_or_insert(error);
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut gzip = self.tar.into_inner()?;
        gzip.flush()?;
        gzip.finish()
    }
}

fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// Everything in the kernel's ring. One read of `/dev/kmsg` is one record; at the end a non-blocking read says so.
fn kernel_messages(host: &Host) -> io::Result<Vec<u8>> {
    let mut options = std::fs::OpenOptions::new();
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
    let mut device = options.read(true).custom_flags(flags.bits()).open(host.path("/dev/kmsg"))?;
    let mut text = Vec::new();
    let mut record = vec![0_u8; 8192];
    while text.len() < MEMBER_LIMIT {
        match device.read(&mut record) {
            Ok(0) => break,
            Ok(length) => text.extend(record.iter().take(length)),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {} // overwritten while reading: go on
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// The words of a kernel command line with the values of secret parameters hidden.
fn mask(words: &str) -> String {
    let shown = words.split_whitespace().map(|word| match word.split_once('=') {
        Some((key, _)) if ["token", "password", "secret"].iter().any(|s| key.contains(s)) => {
            format!("{key}=***")
        }
        _ => word.to_owned(),
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_on_the_command_line_are_hidden() {
        assert_eq!(mask("quiet ipa-agent-token=abc a=b"), "quiet ipa-agent-token=*** a=b");
    }

    #[test]
    fn an_archive_holds_its_members_and_the_end_of_what_is_too_long() {
        let mut archive = Archive::new(MEMBER_LIMIT);
        archive.add("small", b"text".to_vec());
        archive.add("empty", Vec::new());
        let mut long = vec![b'a'; MEMBER_LIMIT];
        long.extend(b"the end");
        archive.add("long", long);
        let bytes = archive.finish().unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut members = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            members.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(members.len(), 2);
        assert_eq!(members[0], ("small".to_owned(), b"text".to_vec()));
        assert_eq!(members[1].1.len(), MEMBER_LIMIT);
        assert!(members[1].1.ends_with(b"the end"));
    }
}
