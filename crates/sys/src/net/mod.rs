//! What bringing up a network needs from the kernel: links, addresses and routes ([`route`]), raw IPv4 frames for DHCP
//! ([`packet`]), router advertisements ([`icmp6`]), interfaces made of others ([`link`]), and the kernel's announcements of new devices ([`uevent`]). And what listening to switches needs (`frames`).
//!
//! The first three are called by the agent's `init` alone. These change the network of the machine they run on, so they are not behind the
//! [`crate::Kernel`] seam: a test plays with them in a network namespace of its own.

pub mod connect;
pub(crate) mod frames;
pub mod icmp6;
pub mod link;
pub mod packet;
pub mod route;
pub mod uevent;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Opens a socket that closes on exec.
fn socket(domain: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: `socket` takes three numbers and no pointer.
    let raw = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` was just opened, is valid, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Binds a socket to an address structure.
fn bind<A>(socket: &OwnedFd, address: &A) -> io::Result<()> {
    let length = length_of::<A>();
    // SAFETY: `address` is a plain socket address of `length` bytes that outlives the call.
    let answer = unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(address).cast(), length) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives one datagram and its sender into `sender`; `None` when nothing came in time.
fn receive<A>(
    socket: &OwnedFd,
    buffer: &mut [u8],
    sender: &mut A,
    patience: Duration,
) -> io::Result<Option<usize>> {
    if !wait_readable(socket, patience)? {
        return Ok(None);
    }
    let mut length = length_of::<A>();
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer` and `length` bytes into `sender`, both of
    // which are exclusively borrowed for the call.
    let got = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
            std::ptr::from_mut(sender).cast(),
            &mut length,
        )
    };
    match usize::try_from(got) {
        Ok(got) => Ok(Some(got)),
        Err(_) => match io::Error::last_os_error() {
            error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            error => Err(error),
        },
    }
}

/// Waits until there is something to read. An interrupted wait counts as nothing.
fn wait_readable(socket: &OwnedFd, patience: Duration) -> io::Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    // Rounded up, so that the last fraction of a millisecond is no busy loop.
    let patience = patience.saturating_add(Duration::from_micros(999));
    match poll(&mut waiting, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX)) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The size of an address structure, as socket calls want it. They are all far smaller than the type's range.
fn length_of<A>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<A>()).unwrap_or(libc::socklen_t::MAX)
}
