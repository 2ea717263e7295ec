//! The `log` extension: what an operator needs after a failure, as base64 of a gzipped tar.
//!
//! What a tool of the ramdisk prints is taken from the tool; where there is none, a table of the same things is made here, under
//! the same name. Every member is bounded, the whole takes less than a minute, and what cannot be read is left out. Secrets are
//! hidden in every member, wherever they came from (`crate::secrets`). Source: agent protocol page, 7.2 (a conductor stores the archive and never looks inside).

mod archive;
mod kernel;
mod tables;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use hwm::{Context, Registry};
use serde_json::json;
use sys::{CommandLine, Host};

use archive::Archive;

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

/// Member name, and the programs that print it: the first that is there and works.
const PROGRAMS: [(&str, &[&[&str]]); 10] = [
    (
        "lsblk",
        &[&[
            "/usr/bin/lsblk",
            "--all",
            "-o",
            "KNAME,MODEL,SIZE,ROTA,TYPE,UUID,PARTUUID,SERIAL,WWN,MOUNTPOINT",
        ]],
    ),
    ("lsblk-full", &[&["/usr/bin/lsblk", "--all", "--json", "-O"]]),
    ("ip_addr", &[&["/usr/sbin/ip", "addr"], &["/sbin/ip", "addr"]]),
    ("efibootmgr", &[&["/usr/bin/efibootmgr", "-v"], &["/usr/sbin/efibootmgr", "-v"]]),
    ("df", &[&["/usr/bin/df", "-a"], &["/bin/df", "-a"]]),
    ("ps", &[&["/usr/bin/ps", "auxww"], &["/bin/ps", "auxww"]]),
    ("lshw", &[&["/usr/bin/lshw", "-quiet", "-json"], &["/usr/sbin/lshw", "-quiet", "-json"]]),
    ("iptables", &[&["/usr/sbin/iptables", "-L"], &["/sbin/iptables", "-L"]]),
    ("multipath", &[&["/usr/sbin/multipath", "-ll"], &["/sbin/multipath", "-ll"]]),
    ("parted", &[&["/usr/sbin/parted", "-l"], &["/sbin/parted", "-l"]]),
];
/// Whole journal of this boot, where there is one.
const JOURNAL: [&str; 4] = ["/usr/bin/journalctl", "--full", "--no-pager", "-b"];
/// Longest run of one program, and of all of them: a conductor waits a minute for the archive.
const PROGRAM_LIMIT: Duration = Duration::from_secs(10);
const PROGRAMS_LIMIT: Duration = Duration::from_secs(30);
/// Files taken from `/var/log`.
const LOG_FILES: usize = 64;

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
        self.learn_secrets();
        let mut archive = Archive::new(longest_member, self.log.secrets());
        self.fill(&mut archive);
        Ok(base64::engine::general_purpose::STANDARD.encode(archive.finish()?))
    }

    /// Reads what may hold secrets that no option brought here: the kernel command line, this process's environment, and unknown
    /// options of configuration files.
    fn learn_secrets(&self) {
        let (host, secrets) = (&self.context.host, self.log.secrets());
        let read = |path: &Path| std::fs::read(host.path(path)).unwrap_or_default();
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        secrets.add_words(words(&read(Path::new("/proc/cmdline"))).split_whitespace());
        for environment in ["/proc/self/environ", "/proc/1/environ"] {
            secrets.add_words(words(&read(Path::new(environment))).split('\0'));
        }
        secrets.add_file(&words(&read(Path::new("/etc/ironic-python-agent.conf"))));
        let folder = Path::new("/etc/ironic-python-agent.d");
        for name in host.names(folder).unwrap_or_default() {
            secrets.add_file(&words(&read(&folder.join(name))));
        }
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
            archive.add("cmdline", words.into_bytes());
        }
        match kernel::messages(host) {
            Ok(text) => archive.add("dmesg", text),
            Err(error) => tracing::debug!(%error, "kernel messages can not be read"),
        }
        for (name, path) in FILES {
            if let Ok(bytes) = std::fs::read(host.path(path)) {
                archive.add(name, bytes);
            }
        }
        let programs = Programs { host, until: Instant::now() + PROGRAMS_LIMIT };
        if !programs.add(archive, "journal", &[&JOURNAL]) {
            add_folder(archive, host, Path::new("/var/log"), &mut LOG_FILES.clone());
        }
        for (name, commands) in PROGRAMS {
            if !programs.add(archive, name, commands)
                && let Some(table) = tables::of(name, host)
            {
                archive.add(name, table.into_bytes());
            }
        }
        for (name, properties) in tables::block_devices(host) {
            archive.add(&format!("udev/{name}"), properties.into_bytes());
        }
    }
}

/// Programs of the ramdisk, while there is time.
struct Programs<'a> {
    host: &'a Host,
    until: Instant,
}

impl Programs<'_> {
    /// Adds what the first of these that is there and works prints, and says whether one did.
    fn add(&self, archive: &mut Archive, member: &str, commands: &[&[&str]]) -> bool {
        for argv in commands {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let command = CommandLine::new(argv.iter().copied()).limit(left.min(PROGRAM_LIMIT));
            match self.host.runner().run(&command) {
                Ok(output) => {
                    archive.add(member, output.stdout);
                    return true;
                }
                Err(error) if error.is_missing() => {}
                Err(error) => tracing::debug!(member, error = hwm::chain(&error), "left out of the logs"),
            }
        }
        false
    }
}

/// Adds the files of a folder and those below it, as many as are left; links are not followed.
fn add_folder(archive: &mut Archive, host: &Host, folder: &Path, left: &mut usize) {
    for name in host.names(folder).unwrap_or_default() {
        let path = folder.join(name);
        let Ok(file) = std::fs::symlink_metadata(host.path(&path)) else { continue };
        if file.is_dir() {
            add_folder(archive, host, &path, left);
        } else if file.is_file() && *left > 0 {
            *left = left.saturating_sub(1);
            if let Ok(bytes) = std::fs::read(host.path(&path)) {
                archive.add(&path.strip_prefix("/").unwrap_or(&path).to_string_lossy(), bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::sync::Arc;

    use super::*;
    use crate::cmdline::Cmdline;
    use crate::config::{Config, Overrides};
    use sys::fake::{FakeRunner, RecordingKernel};

    fn members(root: &Path, runner: FakeRunner) -> BTreeMap<String, String> {
        let mut kernel = RecordingKernel::default();
        kernel.addresses = vec![("eth0".into(), "192.0.2.7".parse().unwrap())];
        let host = Host::new(root, Arc::new(runner), Arc::new(kernel));
        let registry = Registry::probe(&host, Vec::new());
        let context = Context::new(host, events::Events::default());
        let sources = LogSources { context: &context, registry: &registry, log: &LogRing::default() };
        unpack(&sources.pack(MEMBER_LIMIT).unwrap())
    }

    fn unpack(text: &str) -> BTreeMap<String, String> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut members = BTreeMap::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            members.insert(entry.path().unwrap().display().to_string(), text);
        }
        members
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_ramdisk_without_tools_tells_the_same_in_tables_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "proc/mounts", "tmpfs / tmpfs rw 0 0\n");
        write(root, "proc/mdstat", "Personalities :\n");
        write(root, "proc/cmdline", "quiet ipa-agent-token=s3cret");
        write(root, "proc/7/stat", "7 (init (x)) S 0 7 7 0 -1 0 0 0 0 0 100 50 0 0 20 0 3 0 1 4096 25 0");
        write(root, "proc/7/cmdline", "/init\0--debug\0");
        write(root, "sys/class/net/eth0/address", "52:54:00:00:00:01\n");
        write(root, "sys/class/net/eth0/operstate", "up\n");
        write(root, "sys/class/block/sda/size", "2048\n");
        write(root, "sys/class/block/sda/uevent", "MAJOR=8\nDEVNAME=sda\nDEVTYPE=disk\n");
        write(root, "sys/class/block/sda/dev", "8:0\n");
        write(root, "run/udev/data/b8:0", "S:disk/by-id/x\nE:ID_SERIAL=abc\n");
        write(root, "var/log/vendor/tool.log", "a line\n");
        let members = members(root, FakeRunner::default());
        for (member, part) in [
            ("mount", "tmpfs / tmpfs"),
            ("mdstat", "Personalities"),
            ("cmdline", "quiet ipa-agent-token=***"),
            ("ps", "init (x)"),
            ("ps", "/init --debug"),
            ("ip_addr", "192.0.2.7"),
            ("ip_addr", "52:54:00:00:00:01"),
            ("lsblk", "sda"),
            ("udev/sda", "\"ID_SERIAL\": \"abc\""),
            ("udev/sda", "\"DEVTYPE\": \"disk\""),
            ("var/log/vendor/tool.log", "a line"),
        ] {
            let text = members.get(member).unwrap_or_else(|| panic!("{member}: {:?}", members.keys()));
            assert!(text.contains(part), "{member}: {text}");
        }
        assert!(!members.values().any(|text| text.contains("s3cret")));
    }

    #[test]
    fn tools_are_preferred_where_there_are_some() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "var/log/messages", "x");
        let runner = FakeRunner::default()
            .answer("/usr/bin/journalctl --full --no-pager -b", "the journal")
            .answer("/sbin/ip addr", "of the tool")
            .fail("/usr/bin/ps auxww", "broken");
        let members = members(root.path(), runner);
        assert_eq!(
            (members["journal"].as_str(), members["ip_addr"].as_str()),
            ("the journal", "of the tool")
        );
        assert!(!members.contains_key("var/log/messages"), "the journal has it all");
    }

    /// Every member that a ramdisk without tools has, full of one text.
    fn members_holding(
        text: &str,
        secrets: impl Fn(&Path, &LogRing, &events::Events),
    ) -> BTreeMap<String, String> {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for (_, path) in FILES {
            write(root, path.trim_start_matches('/'), text);
        }
        write(root, "dev/kmsg", text);
        write(root, "proc/7/stat", "7 (init) S 0 7 7 0 -1 0 0 0 0 0 100 50 0 0 20 0 3 0 1 4096 25 0");
        write(root, "proc/7/cmdline", &text.replace(' ', "\0"));
        write(root, "var/log/tool.log", text);
        write(root, "sys/class/block/sda/uevent", "MAJOR=8\nDEVNAME=sda\nDEVTYPE=disk\n");
        write(root, "sys/class/block/sda/dev", "8:0\n");
        write(root, "run/udev/data/b8:0", &format!("E:ID_NOTE={text}\n"));
        let (log, events) = (LogRing::default(), events::Events::default());
        secrets(root, &log, &events);
        events.emit(events::EventKind::Notice { message: text.into() });
        let host = Host::new(root, Arc::new(FakeRunner::default()), Arc::new(RecordingKernel::default()));
        let registry = Registry::probe(&host, Vec::new());
        let context = Context::new(host, events);
        unpack(&LogSources { context: &context, registry: &registry, log: &log }.pack(MEMBER_LIMIT).unwrap())
    }

    #[test]
    fn a_secret_of_any_source_is_in_no_member() {
        let said = "before S3cretOfAnySource behind";
        let conf = "etc/ironic-python-agent.d/site.conf";
        type Tell<'a> = &'a dyn Fn(&Path, &LogRing);
        let sources: [(&str, Tell<'_>); 12] = [
            ("kernel parameter", &|root, _| {
                write(root, "proc/cmdline", "quiet ipa-agent-token=S3cretOfAnySource")
            }),
            ("URL of the kernel", &|root, _| {
                write(root, "proc/cmdline", "ipa-api-url=https://u:S3cretOfAnySource@h")
            }),
            ("signed URL", &|root, _| {
                write(root, "proc/cmdline", "live=https://h/x?X-Amz-Signature=S3cretOfAnySource")
            }),
            ("environment", &|root, _| {
                write(root, "proc/self/environ", "A=b\0AGENT_TOKEN=S3cretOfAnySource\0")
            }),
            ("environment of process 1", &|root, _| {
                write(root, "proc/1/environ", "http_proxy=http://u:S3cretOfAnySource@p\0");
            }),
            ("file", &|root, _| write(root, conf, "[DEFAULT]\nimage_server_password = S3cretOfAnySource\n")),
            ("unknown option", &|root, _| write(root, conf, "site_secret=S3cretOfAnySource\n")),
            ("virtual media", &|_, log| {
                let mut cmdline = Cmdline::parse("quiet");
                cmdline.override_with(&Cmdline::parse("ipa-agent-token=S3cretOfAnySource"));
                log.secrets().add_cmdline(&cmdline);
            }),
            ("flag", &|_, log| {
                let values = vec![("agent_token".into(), "S3cretOfAnySource".into())];
                let overrides = Overrides { values, ..Overrides::default() };
                let host = sys::fake::host("/nonexistent");
                let (config, _) = Config::load(&host, &Cmdline::default(), &overrides).unwrap();
                config.tell_secrets(log.secrets());
            }),
            ("lookup", &|_, log| {
                log.secrets().add_json("", &json!({"config": {"agent_token": "S3cretOfAnySource"}}))
            }),
            ("rescue", &|_, log| {
                log.secrets().add_json("", &json!({"rescue_password": "S3cretOfAnySource"}))
            }),
            ("image", &|_, log| {
                let image = json!({"image_request_authorization": "Bearer S3cretOfAnySource"});
                log.secrets().add_json("", &json!({"step": {"args": {"image_info": image}}}));
            }),
        ];
        for (source, tell) in sources {
            let members = members_holding(said, |root, log, _| tell(root, log));
            assert!(members.len() > 12, "{source}: {:?}", members.keys());
            for (member, text) in &members {
                assert!(!text.contains("S3cretOfAnySource"), "{source}, {member}: {text}");
            }
            for member in ["dmesg", "mount", "ps", "events.jsonl", "var/log/tool.log", "udev/sda"] {
                assert!(members[member].contains("***"), "{source}, {member}: {}", members[member]);
            }
        }
    }

    #[test]
    fn the_kernel_repeats_its_command_line_and_the_token_is_in_none_of_its_lines() {
        let kernel = "6,1,1,-;Command line: quiet ipa-agent-token=S3cretTok b=c\n\
                      5,2,2,-;Unknown kernel command line parameters \"ipa-agent-token=S3cretTok a=b\", will be passed to user space.\n\
                      7,3,3,-;    ipa-agent-token=S3cr\n";
        let members = members_holding(kernel, |_, _, _| {});
        assert!(!members.values().any(|text| text.contains("S3cr")), "{}", members["dmesg"]);
        assert!(members["dmesg"].contains("quiet ipa-agent-token=*** b=c"), "{}", members["dmesg"]);
    }

    #[test]
    fn a_token_of_one_letter_does_not_blank_the_logs() {
        let members = members_holding("tmpfs / tmpfs rw 0 0", |root, _, _| {
            write(root, "proc/cmdline", "quiet ipa-agent-token=a ipa-debug=1");
        });
        assert_eq!(members["mount"], "tmpfs / tmpfs rw 0 0");
        assert_eq!(members["cmdline"], "quiet ipa-agent-token=*** ipa-debug=1");
    }
}
