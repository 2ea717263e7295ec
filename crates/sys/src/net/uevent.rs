//! The kernel's announcements of devices that come and go (`NETLINK_KOBJECT_UEVENT`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// Room for announcements that arrive while nobody reads: a machine with hundreds of devices announces them in a burst.
const QUEUE_BYTES: libc::c_int = 2 * 1024 * 1024;
/// Group 1 carries the kernel's own messages; group 2 would carry udev's.
const KERNEL_GROUP: u32 = 1;

/// What [`UeventSocket::receive`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message of this many bytes in the buffer.
    Message(usize),
    /// Messages were lost because the queue was full: look at sysfs instead.
    Lost,
    /// Nothing came in time.
    Nothing,
}

/// A listener to the kernel's announcements.
#[derive(Debug)]
pub struct UeventSocket(OwnedFd);

impl UeventSocket {
    /// Listens from now on.
    pub fn open() -> io::Result<Self> {
        let socket = super::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT)?;
        let bytes = QUEUE_BYTES;
        // SAFETY: the kernel reads one int from `bytes`. Failure leaves the default size, which only loses sooner.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const bytes).cast(),
                super::length_of::<libc::c_int>(),
            )
        };
        super::bind(&socket, &super::route::netlink_address(KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// Waits for one message of the kernel. Messages of other processes are passed over.
    pub fn receive(&self, buffer: &mut [u8], patience: Duration) -> io::Result<Received> {
        let mut sender = super::route::netlink_address(0);
        match super::receive(&self.0, buffer, &mut sender, patience) {
            Ok(Some(length)) if sender.nl_pid == 0 => Ok(Received::Message(length)),
            Ok(_) => Ok(Received::Nothing),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Received::Lost),
            Err(error) => Err(error),
        }
    }
}
