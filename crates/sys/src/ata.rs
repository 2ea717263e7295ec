//! Commands to ATA disks, through the kernel's SCSI translation (`SG_IO` with ATA PASS-THROUGH(16), SAT-4 12.2).
//!
//! The mechanism only: which command is sent to which disk, and what it means, is decided in the `disk` crate.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Length of the data of every ATA command that is sent here.
pub const ATA_SECTOR: usize = 512;

/// A command without addresses: what the identification and the security feature set need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtaCommand {
    /// The command register.
    pub opcode: u8,
    /// Which way its data goes.
    pub transfer: AtaTransfer,
    /// When the kernel gives the command up, which resets the disk.
    pub timeout: Duration,
}

/// Which way the one sector of data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtaTransfer {
    /// There is none.
    None,
    /// From the disk.
    In,
    /// To the disk.
    Out,
}

mod ioctl {
    nix::ioctl_readwrite_bad!(sg_io, 0x2285, super::SgIoHeader);
}

/// `sg_io_hdr_t` of `scsi/sg.h`.
#[repr(C)]
pub(crate) struct SgIoHeader {
    interface_id: libc::c_int,
    direction: libc::c_int,
    command_length: u8,
    sense_limit: u8,
    iovec_count: u16,
    data_length: u32,
    data: *mut u8,
    command: *mut u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    pack_id: libc::c_int,
    user: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_written: u8,
    host_status: u16,
    driver_status: u16,
    residue: libc::c_int,
    duration: u32,
    info: u32,
}

/// Sends a command and waits for its end. `data` holds one sector, or nothing where none goes over.
pub(crate) fn send(disk: &File, command: &AtaCommand, data: &mut [u8]) -> io::Result<()> {
    let (direction, expected) = match command.transfer {
        AtaTransfer::None => (-1, 0),
        AtaTransfer::Out => (-2, ATA_SECTOR),
        AtaTransfer::In => (-3, ATA_SECTOR),
    };
    if data.len() != expected {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an ATA command moves one sector or none"));
    }
    let mut block = command_block(command);
    let mut sense = [0u8; 32];
    let mut header = SgIoHeader {
        interface_id: libc::c_int::from(b'S'),
        direction,
        command_length: 16,
        sense_limit: 32,
        iovec_count: 0,
        data_length: u32::try_from(data.len()).unwrap_or_default(),
        data: data.as_mut_ptr(),
        command: block.as_mut_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms: u32::try_from(command.timeout.as_millis()).unwrap_or(u32::MAX),
        flags: 0,
        pack_id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_written: 0,
        host_status: 0,
        driver_status: 0,
        residue: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the header and the three buffers it points to live until the call returns, with the lengths given in it.
    unsafe { ioctl::sg_io(disk.as_raw_fd(), &mut header) }?;
    // 8 in the driver status only says that there is sense data.
    if header.status == 0 && header.host_status == 0 && header.driver_status & !8 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "ATA command {:#04x} failed: status {:#04x}, host {:#06x}, driver {:#06x}, sense {}",
        command.opcode,
        header.status,
        header.host_status,
        header.driver_status,
        sense_text(sense.get(..usize::from(header.sense_written)).unwrap_or_default())
    )))
}

/// The SCSI command block that carries an ATA command.
fn command_block(command: &AtaCommand) -> [u8; 16] {
    const BLOCKS_OF_512: u8 = 0x06; // the length stands in the sector count, in sectors
    const FROM_DISK: u8 = 0x08;
    let mut block = [0u8; 16];
    let (protocol, flags, sectors) = match command.transfer {
        AtaTransfer::None => (3, 0, 0),
        AtaTransfer::In => (4, BLOCKS_OF_512 | FROM_DISK, 1),
        AtaTransfer::Out => (5, BLOCKS_OF_512, 1),
    };
    block[0] = 0x85;
    block[1] = protocol << 1;
    block[2] = flags;
    block[6] = sectors;
    block[14] = command.opcode;
    block
}

/// The key and codes of sense data in descriptor or fixed form.
fn sense_text(sense: &[u8]) -> String {
    let byte = |at: usize| sense.get(at).copied().unwrap_or_default();
    match byte(0) & 0x7f {
        0x72 | 0x73 => format!("{:x}/{:02x}/{:02x}", byte(1) & 0xf, byte(2), byte(3)),
        0x70 | 0x71 => format!("{:x}/{:02x}/{:02x}", byte(2) & 0xf, byte(12), byte(13)),
        _ => "none".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(opcode: u8, transfer: AtaTransfer) -> AtaCommand {
        AtaCommand { opcode, transfer, timeout: Duration::from_secs(1) }
    }

    #[test]
    fn command_blocks_are_those_of_the_standard() {
        let identify = command_block(&command(0xec, AtaTransfer::In));
        assert_eq!(identify, [0x85, 0x08, 0x0e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xec, 0]);
        let erase = command_block(&command(0xf4, AtaTransfer::Out));
        assert_eq!(erase, [0x85, 0x0a, 0x06, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xf4, 0]);
        let prepare = command_block(&command(0xf3, AtaTransfer::None));
        assert_eq!(prepare, [0x85, 0x06, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf3, 0]);
    }

    #[test]
    fn what_takes_no_such_commands_says_so_and_wrong_lengths_are_refused() {
        let null = File::open("/dev/null").unwrap();
        let error = send(&null, &command(0xec, AtaTransfer::In), &mut [0; 512]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
        let error = send(&null, &command(0xec, AtaTransfer::In), &mut [0; 511]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn sense_data_is_shown_in_both_forms() {
        assert_eq!(sense_text(&[0x72, 0x0b, 0x00, 0x1d]), "b/00/1d");
        assert_eq!(sense_text(&[0x70, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0]), "5/20/00");
        assert_eq!(sense_text(&[]), "none");
    }

    #[test]
    fn the_header_has_the_layout_of_the_kernel() {
        assert_eq!(
            std::mem::size_of::<SgIoHeader>(),
            if cfg!(target_pointer_width = "64") { 88 } else { 64 }
        );
    }
}
