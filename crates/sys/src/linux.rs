//! The real [`Kernel`]: Linux.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::mount::{MntFlags, MsFlags};
use nix::sys::reboot::{RebootMode, reboot};

use crate::{
    AtaCommand, IpmiRequest, Kernel, MountRequest, NvmeCommand, Power, ata, ethtool, interfaces, ipmi, net,
    nvme, partition,
};

/// Linux, as this process finds it.
pub(crate) struct LinuxKernel;

nix::ioctl_none!(blkrrpart, 0x12, 95);
nix::ioctl_none!(blkflsbuf, 0x12, 97);
nix::ioctl_read!(fs_ioc_getflags, b'f', 1, libc::c_long);
nix::ioctl_write_ptr!(fs_ioc_setflags, b'f', 2, libc::c_long);

/// `FS_IMMUTABLE_FL` of `linux/fs.h`.
const FS_IMMUTABLE: libc::c_long = 0x10;

/// The machine of a ramdisk whose first process this is may be switched off and have its clock set; every other one is somebody's.
fn may_govern(is_first_process: bool, root_is_in_memory: bool) -> io::Result<()> {
    if is_first_process && root_is_in_memory {
        return Ok(());
    }
    let reason = "this process is not the first one of a ramdisk, so the machine is somebody's";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

impl Kernel for LinuxKernel {
    fn mount(&self, request: &MountRequest) -> io::Result<()> {
        let mut flags = MsFlags::empty();
        flags.set(MsFlags::MS_RDONLY, request.read_only);
        flags.set(MsFlags::MS_BIND, request.is_bind);
        flags.set(MsFlags::MS_NODEV | MsFlags::MS_NOSUID, request.is_guarded);
        let options = (!request.options.is_empty()).then_some(request.options.as_str());
        let filesystem = (!request.is_bind).then_some(request.filesystem.as_str());
        nix::mount::mount(Some(request.source.as_path()), &request.target, filesystem, flags, options)?;
        Ok(())
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        Ok(nix::mount::umount2(target, MntFlags::empty())?)
    }

    fn detach(&self, target: &Path) -> io::Result<()> {
        Ok(nix::mount::umount2(target, MntFlags::MNT_DETACH)?)
    }

    fn sync(&self) {
        nix::unistd::sync();
    }

    fn power(&self, action: Power) -> io::Result<()> {
        may_govern(crate::pid1::is_first_process(), crate::pid1::root_is_in_memory())?;
        let mode = match action {
            Power::Off => RebootMode::RB_POWER_OFF,
            Power::Reboot => RebootMode::RB_AUTOBOOT,
        };
        match reboot(mode) {
            Ok(never) => match never {},
            Err(error) => Err(error.into()),
        }
    }

    fn load_module(&self, file: &Path, parameters: &str) -> io::Result<()> {
        let module = File::open(file)?;
        let parameters = CString::new(parameters)?;
        Ok(nix::kmod::finit_module(&module, &parameters, nix::kmod::ModuleInitFlags::empty())?)
    }

    fn reread_partition_table(&self, device: &Path) -> io::Result<()> {
        let file = open_device(device)?;
        // SAFETY: BLKRRPART takes no argument; the descriptor is open for the length of the call.
        unsafe { blkrrpart(file.as_raw_fd()) }?;
        Ok(())
    }

    fn add_partition(&self, device: &Path, number: u32, start_byte: u64, size_byte: u64) -> io::Result<()> {
        partition::change(&open_device(device)?, partition::Change::Add { number, start_byte, size_byte })
    }

    fn delete_partition(&self, device: &Path, number: u32) -> io::Result<()> {
        partition::change(&open_device(device)?, partition::Change::Delete { number })
    }

    fn flush_buffers(&self, device: &Path) -> io::Result<()> {
        let file = open_device(device)?;
        // SAFETY: BLKFLSBUF takes no argument; the descriptor is open for the length of the call.
        unsafe { blkflsbuf(file.as_raw_fd()) }?;
        Ok(())
    }

    fn ata(&self, device: &Path, command: &AtaCommand, data: &mut [u8]) -> io::Result<()> {
        // The kernel lets only writers send what changes a disk.
        let disk = OpenOptions::new().read(true).write(true).custom_flags(OPEN_FLAGS).open(device)?;
        ata::send(&disk, command, data)
    }

    fn nvme_admin(&self, device: &Path, command: &NvmeCommand, data: &mut [u8]) -> io::Result<()> {
        let disk = OpenOptions::new().read(true).write(true).custom_flags(OPEN_FLAGS).open(device)?;
        nvme::send(&disk, command, data)
    }

    fn nvme_namespace(&self, device: &Path) -> io::Result<u32> {
        nvme::namespace_id(&open_device(device)?)
    }

    fn set_immutable(&self, file: &Path, immutable: bool) -> io::Result<()> {
        let file = File::open(file)?;
        let mut flags: libc::c_long = 0;
        // SAFETY: the kernel writes one flags word into `flags`, which outlives the call.
        unsafe { fs_ioc_getflags(file.as_raw_fd(), &mut flags) }?;
        let wanted = if immutable { flags | FS_IMMUTABLE } else { flags & !FS_IMMUTABLE };
        if wanted != flags {
            // SAFETY: the kernel reads one flags word from `wanted`, which outlives the call.
            unsafe { fs_ioc_setflags(file.as_raw_fd(), &wanted) }?;
        }
        Ok(())
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        Ok(nix::unistd::sethostname(name)?)
    }

    fn set_clock(&self, time: SystemTime) -> io::Result<()> {
        may_govern(crate::pid1::is_first_process(), crate::pid1::root_is_in_memory())?;
        let since = time.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let clock = nix::time::ClockId::CLOCK_REALTIME;
        Ok(nix::time::clock_settime(clock, nix::sys::time::TimeSpec::from_duration(since))?)
    }

    fn set_hardware_clock(&self, time: SystemTime) -> io::Result<()> {
        may_govern(crate::pid1::is_first_process(), crate::pid1::root_is_in_memory())?;
        crate::rtc::set(Path::new("/dev/rtc0"), time)
    }

    fn set_link_down(&self, interface: &str) -> io::Result<()> {
        crate::net::route::set_down(crate::net::route::interface_index(interface)?)
    }

    fn interface_addresses(&self) -> io::Result<Vec<(String, IpAddr)>> {
        interfaces::addresses()
    }

    fn permanent_address(&self, interface: &str) -> io::Result<Vec<u8>> {
        ethtool::permanent_address(interface)
    }

    fn supported_link_modes(&self, interface: &str) -> io::Result<Vec<u32>> {
        ethtool::supported_link_modes(interface)
    }

    fn capture_frames(
        &self,
        interfaces: &[String],
        ethertype: u16,
        silence: Duration,
    ) -> Vec<io::Result<Option<Vec<u8>>>> {
        net::frames::capture(interfaces, ethertype, silence)
    }

    fn ipmi(&self, device: &Path, request: &IpmiRequest, patience: Duration) -> io::Result<Vec<u8>> {
        ipmi::ask(device, request, patience)
    }
}

const OPEN_FLAGS: libc::c_int = libc::O_NONBLOCK | libc::O_CLOEXEC;

/// Opens a block device for an ioctl, without waiting for a medium.
fn open_device(device: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OPEN_FLAGS).open(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_process_of_a_ramdisk_may_switch_the_machine_off() {
        assert!(may_govern(true, true).is_ok());
        for (first, memory) in [(true, false), (false, true), (false, false)] {
            assert_eq!(may_govern(first, memory).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }
}
