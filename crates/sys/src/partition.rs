//! Telling the kernel of partitions, one by one, without having it read the disk (`BLKPG` of `linux/blkpg.h`).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

mod ioctl {
    nix::ioctl_write_ptr_bad!(blkpg, 0x1269, super::Argument);
}

const ADD: libc::c_int = 1;
const DELETE: libc::c_int = 2;

/// What the kernel shall know.
pub(crate) enum Change {
    Add { number: u32, start_byte: u64, size_byte: u64 },
    Delete { number: u32 },
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
pub(crate) struct Argument {
    operation: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    data: *mut Partition,
}

/// `struct blkpg_partition`; offsets in bytes.
#[repr(C)]
struct Partition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    device_name: [libc::c_char; 64],
    volume_name: [libc::c_char; 64],
}

pub(crate) fn change(disk: &File, change: Change) -> io::Result<()> {
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidInput, "a partition that no disk can hold");
    let (operation, number, start, length) = match change {
        Change::Add { number, start_byte, size_byte } => (ADD, number, start_byte, size_byte),
        Change::Delete { number } => (DELETE, number, 0, 0),
    };
    let mut partition = Partition {
        start: start.try_into().map_err(invalid)?,
        length: length.try_into().map_err(invalid)?,
        number: number.try_into().map_err(invalid)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = Argument {
        operation,
        flags: 0,
        length: size_of::<Partition>().try_into().map_err(invalid)?,
        data: &raw mut partition,
    };
    // SAFETY: the descriptor is open for the whole call; the kernel reads one `blkpg_ioctl_arg` and the one
    // `blkpg_partition` it points to, which both outlive the call, and keeps neither.
    unsafe { ioctl::blkpg(disk.as_raw_fd(), &raw const argument) }?;
    Ok(())
}
