//! Terminals that are written to without becoming ours, and the standard streams of PID 1.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a terminal for writing, without taking it as controlling terminal and without waiting for a carrier.
pub fn open(device: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(device)?;
    // O_NONBLOCK was for the open alone: a writer that may block loses nothing.
    let flags = nix::fcntl::OFlag::from_bits_retain(nix::fcntl::fcntl(&file, nix::fcntl::F_GETFL)?);
    nix::fcntl::fcntl(&file, nix::fcntl::F_SETFL(flags & !nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok(file)
}

/// Makes `device` the standard input, output and error of this process.
pub fn attach_standard_streams(device: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(device)?;
    nix::unistd::dup2_stdin(&file)?;
    nix::unistd::dup2_stdout(&file)?;
    nix::unistd::dup2_stderr(&file)?;
    Ok(())
}
