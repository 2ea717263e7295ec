//! Patience with what is busy for a moment: a probe, or a child process that was started just now and has not closed what it
//! inherited, holds a disk as firmly as somebody who means it.

use std::io;
use std::thread::sleep;
use std::time::Duration;

const ATTEMPTS: u32 = 10;
const INTERVAL: Duration = Duration::from_millis(200);

/// Tries again while it is busy, for two seconds.
pub(crate) fn patiently<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut attempt = 1;
    loop {
        match act() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt < ATTEMPTS => {
                attempt += 1;
                sleep(INTERVAL);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_busy_for_a_moment_is_waited_for_and_nothing_else() {
        let mut left = 3;
        let opened = patiently(|| {
            left -= 1;
            if left > 0 { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(left) }
        });
        assert_eq!(opened.unwrap(), 0);
        let mut tries = 0;
        let refused: io::Result<()> = patiently(|| {
            tries += 1;
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!((refused.unwrap_err().kind(), tries), (io::ErrorKind::PermissionDenied, 1));
    }
}
