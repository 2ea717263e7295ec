//! Talking to the management controller (BMC) through the kernel's IPMI driver, `/dev/ipmi0`.
//!
//! The mechanism only: one request, one answer (`linux/ipmi.h`). What to ask is the inventory's business.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A request to the management controller of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpmiRequest {
    /// The network function: a family of commands. Even numbers; the answer's is one more.
    pub function: u8,
    /// The command.
    pub command: u8,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// `IPMI_SYSTEM_INTERFACE_ADDR_TYPE` and `IPMI_BMC_CHANNEL`: the controller of this very machine.
const SYSTEM_INTERFACE: libc::c_int = 0x0c;
const OWN_CONTROLLER: libc::c_short = 0xf;
/// `IPMI_RESPONSE_RECV_TYPE`: an answer, as against an event.
const RESPONSE: libc::c_int = 1;
/// `IPMI_MAX_MSG_LENGTH` of `linux/ipmi_msgdefs.h`.
const LONGEST: usize = 272;
/// The number by which the answer is told from others. A descriptor of its own carries one request.
const NUMBER: libc::c_long = 1;

/// `struct ipmi_system_interface_addr`.
#[repr(C)]
struct Address {
    kind: libc::c_int,
    channel: libc::c_short,
    unit: u8,
}

/// `struct ipmi_msg`.
#[repr(C)]
struct Message {
    function: u8,
    command: u8,
    length: u16,
    data: *mut u8,
}

/// `struct ipmi_req`.
#[repr(C)]
struct Request {
    address: *mut Address,
    address_length: libc::c_uint,
    number: libc::c_long,
    message: Message,
}

/// `struct ipmi_recv`.
#[repr(C)]
struct Received {
    kind: libc::c_int,
    address: *mut [u8; 64],
    address_length: libc::c_uint,
    number: libc::c_long,
    message: Message,
}

nix::ioctl_read!(ipmictl_send_command, b'i', 13, Request);
nix::ioctl_readwrite!(ipmictl_receive_msg_trunc, b'i', 11, Received);

/// Sends a request and waits for its answer: the completion code first, then the data.
pub(crate) fn ask(device: &Path, request: &IpmiRequest, patience: Duration) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(device)?;
    let mut data = request.data.clone();
    let length = u16::try_from(data.len()).map_err(io::Error::other)?;
    let mut address = Address { kind: SYSTEM_INTERFACE, channel: OWN_CONTROLLER, unit: 0 };
    let mut send = Request {
        address: &raw mut address,
        address_length: libc::c_uint::try_from(size_of::<Address>()).map_err(io::Error::other)?,
        number: NUMBER,
        message: Message {
            function: request.function,
            command: request.command,
            length,
            data: data.as_mut_ptr(),
        },
    };
    // SAFETY: the kernel reads the address and `length` bytes of data; both outlive the call.
    unsafe { ipmictl_send_command(file.as_raw_fd(), &mut send) }?;

    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut waiting = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) if Instant::now() >= deadline => {
                let reason = "the management controller does not answer";
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(answer) = receive(&file)? {
            return Ok(answer);
        }
    }
}

/// Takes one message off the queue: the answer, or `None` when it was something else.
fn receive(file: &std::fs::File) -> io::Result<Option<Vec<u8>>> {
    let mut from = [0_u8; 64];
    let mut data = vec![0_u8; LONGEST];
    let mut received = Received {
        kind: 0,
        address: &raw mut from,
        address_length: 64,
        number: 0,
        message: Message {
            function: 0,
            command: 0,
            length: u16::try_from(data.len()).unwrap_or_default(),
            data: data.as_mut_ptr(),
        },
    };
    // SAFETY: the kernel writes at most 64 bytes of address and `length` bytes of data into buffers that outlive the call.
    unsafe { ipmictl_receive_msg_trunc(file.as_raw_fd(), &mut received) }?;
    if received.kind != RESPONSE || received.number != NUMBER {
        return Ok(None);
    }
    data.truncate(usize::from(received.message.length));
    Ok(Some(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_laid_out_as_the_kernel_reads_them() {
        if cfg!(target_pointer_width = "64") {
            assert_eq!((size_of::<Address>(), size_of::<Message>()), (8, 16));
            assert_eq!((size_of::<Request>(), size_of::<Received>()), (40, 48));
        }
    }

    #[test]
    fn what_is_no_ipmi_device_is_an_error() {
        let request = IpmiRequest { function: 6, command: 1, data: Vec::new() };
        let ask = |path: &str| ask(Path::new(path), &request, Duration::from_millis(10));
        assert_eq!(ask("/no/such/ipmi0").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(ask("/dev/null").unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
