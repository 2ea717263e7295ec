//! Admin commands to NVMe controllers (`linux/nvme_ioctl.h`).
//!
//! The mechanism only: which command is sent to which device, and what it means, is decided in the `disk` crate.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// An admin command that reads data, or moves none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvmeCommand {
    /// The operation.
    pub opcode: u8,
    /// The namespace; 0 is none.
    pub namespace: u32,
    /// Command dword 10.
    pub dword10: u32,
    /// When the kernel gives the command up, which resets the controller.
    pub timeout: Duration,
}

mod ioctl {
    nix::ioctl_none!(nvme_id, b'N', 0x40);
    nix::ioctl_readwrite!(nvme_admin, b'N', 0x41, super::Passthrough);
}

/// `struct nvme_passthru_cmd`.
#[repr(C)]
#[derive(Default)]
pub struct Passthrough {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    dword2: u32,
    dword3: u32,
    metadata: u64,
    address: u64,
    metadata_length: u32,
    data_length: u32,
    dword10: u32,
    dword11: u32,
    dword12: u32,
    dword13: u32,
    dword14: u32,
    dword15: u32,
    timeout_ms: u32,
    result: u32,
}

/// Sends a command and waits for its end; what it reads goes to `data`.
pub(crate) fn send(device: &File, command: &NvmeCommand, data: &mut [u8]) -> io::Result<()> {
    let mut passthrough = Passthrough {
        opcode: command.opcode,
        namespace: command.namespace,
        address: u64::try_from(data.as_mut_ptr().addr()).map_err(io::Error::other)?,
        data_length: u32::try_from(data.len()).map_err(io::Error::other)?,
        dword10: command.dword10,
        timeout_ms: u32::try_from(command.timeout.as_millis()).unwrap_or(u32::MAX),
        ..Passthrough::default()
    };
    // The kernel writes through the address: the pointer must count as known to others.
    let _ = data.as_mut_ptr().expose_provenance();
    // SAFETY: the structure and the buffer whose address and length it holds live until the call returns.
    let status = unsafe { ioctl::nvme_admin(device.as_raw_fd(), &mut passthrough) }?;
    match status {
        0 => Ok(()),
        status => {
            let opcode = command.opcode;
            Err(io::Error::other(format!("NVMe admin command {opcode:#04x} ended with status {status:#06x}")))
        }
    }
}

/// The number of the namespace that a block device stands for.
pub(crate) fn namespace_id(device: &File) -> io::Result<u32> {
    // SAFETY: NVME_IOCTL_ID takes no argument; the descriptor is open for the length of the call.
    let id = unsafe { ioctl::nvme_id(device.as_raw_fd()) }?;
    u32::try_from(id).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_the_layout_of_the_kernel() {
        assert_eq!(std::mem::size_of::<Passthrough>(), 72);
    }

    #[test]
    fn what_is_no_nvme_device_says_so() {
        let null = File::open("/dev/null").unwrap();
        let command = NvmeCommand { opcode: 6, namespace: 0, dword10: 1, timeout: Duration::from_secs(1) };
        assert_eq!(send(&null, &command, &mut [0; 4096]).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(namespace_id(&null).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
