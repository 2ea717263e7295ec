//! What the kernel said: its messages and its command line.

use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use sys::Host;

/// Longest text, in bytes.
const LIMIT: usize = 2 * 1024 * 1024;

/// Everything in the kernel's ring. One read of `/dev/kmsg` is one record; at the end a non-blocking read says so.
pub(super) fn messages(host: &Host) -> io::Result<Vec<u8>> {
    let mut options = std::fs::OpenOptions::new();
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
    let mut device = options.read(true).custom_flags(flags.bits()).open(host.path("/dev/kmsg"))?;
    let mut text = Vec::new();
    let mut record = vec![0_u8; 8192];
    while text.len() < LIMIT {
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
pub(super) fn masked_command_line(words: &str) -> String {
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
        assert_eq!(masked_command_line("quiet ipa-agent-token=abc a=b"), "quiet ipa-agent-token=*** a=b");
    }
}
