//! `ferric forward SOCKET`: joins a guest's connection, on stdin and stdout, with a Unix socket of the controller. QEMU starts
//! it for each connection that a machine makes to the controller's address: the one way out that such a machine has. Prints
//! nothing, because stderr leads to the guest as well.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

/// Runs until the controller has closed the connection, or the guest is gone.
pub fn run(socket: &Path) -> ExitCode {
    let Ok(stream) = UnixStream::connect(socket) else { return ExitCode::FAILURE };
    let Ok(sending) = stream.try_clone() else { return ExitCode::FAILURE };
    // Not joined: it may wait for a guest that says nothing more, and ends with the process.
    std::thread::spawn(move || {
        copy(std::io::stdin().lock(), &sending);
        // The guest has said all; it may still want the reply. Fails only when the connection is gone.
        let _ = sending.shutdown(Shutdown::Write);
    });
    copy(&stream, std::io::stdout().lock());
    ExitCode::SUCCESS
}

/// Copies until an end or an error: both mean that one side is gone.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let piece = buffer.get(..length).unwrap_or_default();
                if to.write_all(piece).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
