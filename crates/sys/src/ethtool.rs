//! Questions to network drivers through `SIOCETHTOOL`: the maker's address and the link modes that the hardware can do.
//!
//! Called through [`crate::Kernel`] by the inventory. Brings no interface up and changes none.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::c_int = 0x8946;
/// `ETHTOOL_GPERMADDR` of `linux/ethtool.h`.
const ETHTOOL_GPERMADDR: u32 = 0x20;
/// `ETHTOOL_GLINKSETTINGS` of `linux/ethtool.h`.
const ETHTOOL_GLINKSETTINGS: u32 = 0x4c;
/// `MAX_ADDR_LEN` of `linux/netdevice.h`.
const MAX_ADDRESS: usize = 32;
/// The size of a mask in words can not exceed what fits its signed byte.
const MAX_MASK_WORDS: usize = 127;

/// `struct ethtool_perm_addr` with room for the longest address.
#[repr(C)]
struct PermanentAddress {
    command: u32,
    size: u32,
    data: [u8; MAX_ADDRESS],
}

/// `struct ethtool_link_settings` with room for its three masks, each of as many words as the kernel says.
#[repr(C)]
struct LinkSettings {
    command: u32,
    speed: u32,
    duplex: u8,
    port: u8,
    phy_address: u8,
    autonegotiation: u8,
    mdio_support: u8,
    crossover: u8,
    crossover_control: u8,
    mask_words: i8,
    others: [u8; 4],
    reserved: [u32; 7],
    masks: [u32; 3 * MAX_MASK_WORDS],
}

nix::ioctl_readwrite_bad!(siocethtool, SIOCETHTOOL, libc::ifreq);

/// The permanent hardware address of an interface, as many bytes as it has.
pub(crate) fn permanent_address(interface: &str) -> io::Result<Vec<u8>> {
    let size = u32::try_from(MAX_ADDRESS).unwrap_or(u32::MAX);
    let mut answer = PermanentAddress { command: ETHTOOL_GPERMADDR, size, data: [0; MAX_ADDRESS] };
    // SAFETY: the structure has the room that its `size` field promises.
    unsafe { ask(interface, &mut answer) }?;
    let length = usize::try_from(answer.size).unwrap_or(MAX_ADDRESS).min(MAX_ADDRESS);
    Ok(answer.data.iter().take(length).copied().collect())
}

/// The link modes an interface's hardware supports, as numbers of `ETHTOOL_LINK_MODE_*_BIT`, ascending.
pub(crate) fn supported_link_modes(interface: &str) -> io::Result<Vec<u32>> {
    // SAFETY: every field is a plain number for which zero is a valid value.
    let mut settings: LinkSettings = unsafe { std::mem::zeroed() };
    settings.command = ETHTOOL_GLINKSETTINGS;
    // The first call only tells the size of the masks, as a negative number.
    // SAFETY: with `mask_words` 0 the kernel writes the fixed part alone.
    unsafe { ask(interface, &mut settings) }?;
    settings.command = ETHTOOL_GLINKSETTINGS;
    settings.mask_words = settings.mask_words.checked_neg().filter(|words| *words > 0).ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "the kernel does not say how many link modes it knows")
    })?;
    // SAFETY: the structure has room for three masks of the greatest size that `mask_words` can express.
    unsafe { ask(interface, &mut settings) }?;
    let words = usize::try_from(settings.mask_words).unwrap_or_default();
    let supported = settings.masks.iter().take(words).zip(0_u32..);
    let bits = supported.flat_map(|(word, index)| {
        (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| index * 32 + bit)
    });
    Ok(bits.collect())
}

/// Sends one request.
///
/// # Safety
/// `request` must be a structure of `linux/ethtool.h` that starts with its command, with all the room its fields promise.
unsafe fn ask<R>(interface: &str, request: &mut R) -> io::Result<()> {
    let name = CString::new(interface)?;
    // SAFETY: `socket` takes three numbers and no pointer.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` was just opened, is valid, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };

    // SAFETY: `ifreq` is plain data for which all zeroes is a valid value.
    let mut envelope: libc::ifreq = unsafe { std::mem::zeroed() };
    let bytes = name.as_bytes();
    if bytes.len() >= envelope.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface name is too long"));
    }
    for (to, from) in envelope.ifr_name.iter_mut().zip(bytes) {
        *to = from.cast_signed() as libc::c_char; // c_char is signed on some architectures and not on others
    }
    envelope.ifr_ifru.ifru_data = std::ptr::from_mut(request).cast();
    // SAFETY: the envelope holds a terminated name and a pointer to `request`, which outlives the call; that it has the
    // room the kernel writes to is the caller's promise.
    unsafe { siocethtool(socket.as_raw_fd(), &mut envelope) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_interfaces_are_errors() {
        assert!(permanent_address("no-such-if0").is_err());
        assert!(permanent_address("a-name-longer-than-any-interface").is_err());
        assert!(supported_link_modes("no-such-if0").is_err());
    }

    #[test]
    fn the_structure_is_laid_out_as_the_kernel_writes_it() {
        assert_eq!(std::mem::offset_of!(LinkSettings, mask_words), 15);
        assert_eq!(std::mem::offset_of!(LinkSettings, masks), 48);
    }

    #[test]
    fn loopback_is_a_driver_without_link_modes() {
        // The loopback driver knows its speed-less link settings or refuses the question; either way nothing is invented.
        assert!(supported_link_modes("lo").unwrap_or_default().is_empty());
    }
}
