//! InfiniBand interfaces have an address of twenty bytes, where Ironic wants six and a DHCP client id.
//!
//! Source: ironic-python-agent `hardware_managers/mlnx.py`: Mellanox's own rule, so for Mellanox's cards alone.

/// PCI vendor of the cards whose rule this is.
const MELLANOX: &str = "0x15b3";
/// Type of hardware, then the maker's prefix of a client id.
const CLIENT_ID_PREFIX: [u8; 12] = [0xff, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0xc9, 0];

/// What stands for the hardware address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Six bytes.
    pub(super) mac: Vec<u8>,
    /// As text, `ff:00:...`.
    pub(super) client_id: String,
}

/// The identity of a card by its address and vendor; `None` for anything but InfiniBand by Mellanox.
pub(super) fn identity(address: &[u8], vendor: Option<&str>) -> Option<Identity> {
    let guid = address.get(12..).filter(|guid| guid.len() == 8 && vendor == Some(MELLANOX))?;
    // The two bytes in the middle of the GUID are the same for every port.
    let mac = [guid.get(..3)?, guid.get(5..)?].concat();
    let client_id = super::interfaces::colons(&[&CLIENT_ID_PREFIX, guid].concat());
    Some(Identity { mac, client_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: [u8; 20] =
        [0xa0, 0, 0, 0x27, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x7c, 0xfe, 0x90, 3, 0, 0x29, 0x26, 0x52];

    #[test]
    fn the_guid_gives_the_mac_and_the_client_id() {
        let identity = identity(&ADDRESS, Some("0x15b3")).unwrap();
        assert_eq!(identity.mac, [0x7c, 0xfe, 0x90, 0x29, 0x26, 0x52]);
        assert_eq!(identity.client_id, "ff:00:00:00:00:00:02:00:00:02:c9:00:7c:fe:90:03:00:29:26:52");
    }

    #[test]
    fn ethernet_and_other_vendors_have_none() {
        assert_eq!(identity(&ADDRESS, Some("0x8086")), None);
        assert_eq!(identity(&ADDRESS[..6], Some("0x15b3")), None);
        assert_eq!(identity(&[], None), None);
    }
}
