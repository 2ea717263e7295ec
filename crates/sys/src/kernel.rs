//! The system calls that decisions depend on, as a trait, so that a test can play the kernel.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::ipmi::IpmiRequest;
use crate::{AtaCommand, NvmeCommand};

/// A mount to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRequest {
    /// Device or label (`proc`, `/dev/sda1`).
    pub source: PathBuf,
    /// Where; must exist.
    pub target: PathBuf,
    /// `proc`, `vfat`, ...
    pub filesystem: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Options of the file system (`mode=755`); empty for none.
    pub options: String,
    /// Whether `source` is a directory that shall be seen at `target` too; then there is no file system to name.
    pub is_bind: bool,
    /// Whether device nodes and set-user-id bits of the file system count for nothing.
    pub is_guarded: bool,
}

impl MountRequest {
    /// A read-write mount without options.
    pub fn new(source: impl Into<PathBuf>, target: impl Into<PathBuf>, filesystem: &str) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            filesystem: filesystem.into(),
            read_only: false,
            options: String::new(),
            is_bind: false,
            is_guarded: false,
        }
    }

    /// A directory that is seen at another place too.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { is_bind: true, ..Self::new(source, target, "") }
    }

    /// The same for a file system that somebody else made: device nodes and set-user-id bits in it count for nothing.
    pub fn guarded(mut self) -> Self {
        self.is_guarded = true;
        self
    }

    /// The same, refusing writes.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// The same with options of the file system.
    pub fn options(mut self, options: &str) -> Self {
        self.options = options.into();
        self
    }
}

/// What to do with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Switch it off.
    Off,
    /// Start it anew.
    Reboot,
}

/// The kernel, as far as Ferric asks it for something.
pub trait Kernel: Send + Sync {
    /// Mounts a file system.
    fn mount(&self, request: &MountRequest) -> io::Result<()>;
    /// Unmounts what is mounted at `target`.
    fn unmount(&self, target: &Path) -> io::Result<()>;
    /// Takes what is mounted at `target` out of the tree at once; it ends when nobody uses it any more.
    fn detach(&self, target: &Path) -> io::Result<()>;
    /// Writes all dirty pages to their disks. May take long.
    fn sync(&self);
    /// **Switches the machine off or reboots it at once**, without flushing. Returns only on failure.
    fn power(&self, action: Power) -> io::Result<()>;
    /// Loads a kernel module from an uncompressed file. `AlreadyExists` when it is loaded.
    fn load_module(&self, file: &Path, parameters: &str) -> io::Result<()>;
    /// Makes the kernel read a disk's partition table again.
    fn reread_partition_table(&self, device: &Path) -> io::Result<()>;
    /// Tells the kernel of a partition, which lies at `start_byte`. The disk itself is neither read nor written.
    fn add_partition(&self, device: &Path, number: u32, start_byte: u64, size_byte: u64) -> io::Result<()>;
    /// Makes the kernel forget a partition. Busy while somebody uses it.
    fn delete_partition(&self, device: &Path, number: u32) -> io::Result<()>;
    /// Drops the kernel's buffers of a block device after writing them out.
    fn flush_buffers(&self, device: &Path) -> io::Result<()>;
    /// Sends a command to an ATA disk; `data` is the sector that it moves, or empty. **Some commands destroy data.**
    ///
    /// # Errors
    /// Also for a device that is no ATA disk.
    fn ata(&self, device: &Path, command: &AtaCommand, data: &mut [u8]) -> io::Result<()>;
    /// Sends an admin command to the controller of an NVMe namespace; what it reads goes to `data`. **Some commands
    /// destroy data.**
    fn nvme_admin(&self, device: &Path, command: &NvmeCommand, data: &mut [u8]) -> io::Result<()>;
    /// The number of the namespace behind a block device.
    fn nvme_namespace(&self, device: &Path) -> io::Result<u32>;
    /// Sets or clears the immutable flag of a file (efivarfs protects its variables with it).
    fn set_immutable(&self, file: &Path, immutable: bool) -> io::Result<()>;
    /// Sets the host name.
    fn set_hostname(&self, name: &str) -> io::Result<()>;
    /// **Sets the system's clock.** Refused (`PermissionDenied`) unless this is the first process of a ramdisk.
    fn set_clock(&self, time: SystemTime) -> io::Result<()>;
    /// **Sets the machine's hardware clock**, in UTC as every Linux since long expects it.
    fn set_hardware_clock(&self, time: SystemTime) -> io::Result<()>;
    /// **Takes a network interface down**: its addresses stop answering.
    fn set_link_down(&self, interface: &str) -> io::Result<()>;
    /// Every IP address of every network interface, as (interface, address), in the kernel's order.
    fn interface_addresses(&self) -> io::Result<Vec<(String, IpAddr)>>;
    /// The hardware address that an interface's maker gave it; an error or all zeroes where the driver does not say.
    fn permanent_address(&self, interface: &str) -> io::Result<Vec<u8>>;
    /// The link modes an interface's hardware can do, as numbers of `ETHTOOL_LINK_MODE_*_BIT`, ascending.
    fn supported_link_modes(&self, interface: &str) -> io::Result<Vec<u32>>;
    /// Waits for one Ethernet frame of a type on each interface, all at once, headers included; `None` where none came. Ends
    /// when every interface has one, or when none came anywhere for the time of `silence`. The answers stand in the order
    /// of the interfaces. The interfaces receive everything meanwhile (promiscuous). Needs root.
    fn capture_frames(
        &self,
        interfaces: &[String],
        ethertype: u16,
        silence: Duration,
    ) -> Vec<io::Result<Option<Vec<u8>>>>;
    /// Asks the management controller behind an IPMI device and waits for its answer: the completion code and the data.
    fn ipmi(&self, device: &Path, request: &IpmiRequest, patience: Duration) -> io::Result<Vec<u8>>;
}
