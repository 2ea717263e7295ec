//! What the offline subcommands (`write`, `explain`, `inventory`) share: the allow-list, output, error reports.

use std::io::{self, Write};

use disk::AllowList;
use serde::Serialize;
use sys::Host;

use super::exit::Exit;
use crate::cmdline::Cmdline;

/// A failed subcommand: what to say, and how to exit.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failed {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }
}

impl From<hwm::Error> for Failed {
    fn from(error: hwm::Error) -> Self {
        Self { exit: Exit::from(&error), message: hwm::chain(&error) }
    }
}

/// Lets warnings be seen. What `imaging` says is said again by events and by the failure itself.
pub(crate) fn log_warnings() {
    let _ = crate::logging::start(&crate::logging::Output::Stderr, Some("warn,imaging=off"), false); // nobody asks for it back
}

/// Prints a failure to stderr, and says how to exit.
pub(crate) fn finish(result: Result<(), Failed>) -> Exit {
    match result {
        Ok(()) => Exit::Success,
        Err(Failed { exit, message }) => {
            talk(&format!("ferric-agent: {message}"));
            exit
        }
    }
}

/// The allow-list of the option, else of the kernel parameter `ferric-disks=`, else none.
pub(crate) fn allow_list(host: &Host, option: Option<&str>) -> Result<Option<AllowList>, Failed> {
    let cmdline = Cmdline::parse(&host.attribute("/proc/cmdline").unwrap_or_default());
    let text = option.or_else(|| cmdline.get("ferric-disks"));
    text.map(AllowList::parse).transpose().map_err(|error| Failed::usage(hwm::chain(&error)))
}

/// One line of talk on stderr. A closed stderr is nobody listening: not a failure.
pub(crate) fn talk(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A value as JSON on stdout: one line, or indented.
pub(crate) fn print_json(value: &impl Serialize, pretty: bool) -> Result<(), Failed> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    let text =
        text.map_err(|error| Failed { exit: Exit::Failure, message: format!("writing JSON: {error}") })?;
    print_line(&text)
}

/// A line of data on stdout.
pub(crate) fn print_line(text: &str) -> Result<(), Failed> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Failed { exit: Exit::Failure, message: format!("writing to stdout: {error}") })
}

/// `1.5 GiB`, for people.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        if bytes >> shift > 0 {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_beats_the_kernel_parameter() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        std::fs::write(root.path().join("proc/cmdline"), "quiet ferric-disks=vda,serial:A*\n").unwrap();
        let host = sys::fake::host(root.path());
        assert_eq!(allow_list(&host, None).unwrap().unwrap().to_string(), "/dev/vda,serial:A*");
        assert_eq!(allow_list(&host, Some("sdb")).unwrap().unwrap().to_string(), "/dev/sdb");
        assert_eq!(allow_list(&host, Some("/dev/sd*")).unwrap_err().exit, Exit::Usage);
        assert!(allow_list(&sys::fake::host("/nonexistent"), None).unwrap().is_none());
    }

    #[test]
    fn sizes_are_short() {
        let cases = [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1_610_612_736, "1.5 GiB")];
        for (bytes, text) in cases {
            assert_eq!(human_bytes(bytes), text);
        }
        assert_eq!(human_bytes(u64::MAX), "16777215.9 TiB");
    }
}
