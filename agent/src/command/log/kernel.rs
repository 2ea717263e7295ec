//! What the kernel said.

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
