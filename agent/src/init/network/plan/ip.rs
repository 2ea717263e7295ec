//! One `ip=`: the kernel's form, dracut's forms. Pure.
//!
//! - `ADDRESS:PEER:GATEWAY:MASK:HOSTNAME:DEVICE:METHOD`, then either `DNS0:DNS1:NTP0` (kernel, dracut) or `MTU:MAC` (dracut);
//! - `DEVICE:METHOD`, then `MTU:MAC`;
//! - `METHOD`.
//!
//! Every field may be empty, IPv6 addresses stand in brackets. A field that is not understood is reported by its name and counts
//! as empty: the rest still holds. Source: Documentation/admin-guide/nfs/nfsroot.rst of the kernel; dracut.cmdline(7).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::super::mac::Mac;
use super::address::{fields, mask_of, prefix_of_class};

/// The packet sizes that an interface may be asked for, in bytes.
pub(super) const MTU: RangeInclusive<u32> = 68..=65535;
/// The number of the field that follows the method in the long form.
const AFTER_METHOD: usize = 7;

/// What one `ip=` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Request {
    /// The interface's name, or its MAC address with dashes: names follow the order in which drivers find their cards.
    /// Without one it is the one booted from, or for DHCP all.
    pub device: Option<String>,
    pub method: Method,
    pub host_name: Option<String>,
    pub name_servers: Vec<IpAddr>,
    pub time_servers: Vec<IpAddr>,
    /// The largest packet, in bytes.
    pub mtu: Option<u32>,
    /// The address that the interface is given instead of its own.
    pub mac: Option<Mac>,
}

/// How an interface gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Method {
    Dhcp,
    Static(StaticAddress),
    /// IPv6 alone: the kernel does it from router advertisements, and DHCPv6 where they ask for it.
    RouterAdvertisement,
    /// IPv6 alone: from a DHCPv6 server, whatever routers say.
    Dhcp6,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct StaticAddress {
    pub address: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
}

/// Reads one `ip=`. The second value names each field that is not understood.
pub(super) fn request(text: &str) -> (Option<Request>, Vec<String>) {
    let fields = fields(text);
    let mut reader = Reader { fields: &fields, complaints: Vec::new() };
    let request = match fields.as_slice() {
        [word] if !is_address(word) => match method(word) {
            Some(method) => Some(plain(None, method)),
            None => {
                reader.complain("method", word, METHODS);
                None // nothing is left of it
            }
        },
        // `DEVICE:` alone means DHCP, as an empty method does everywhere.
        [device, word, rest @ ..]
            if !device.is_empty()
                && !is_address(device)
                && (!word.is_empty() || rest.is_empty())
                && !is_address(word) =>
        {
            let method = reader.method(word);
            let mut request = plain(Some(device), method);
            reader.rest(2, &mut request);
            Some(request)
        }
        _ => Some(reader.long_form()),
    };
    (request, reader.complaints)
}

const METHODS: &str = "use dhcp, dhcp6, auto6, off, none or an address (ibft, the iSCSI table of the firmware, is not supported)";

fn plain(device: Option<&str>, method: Method) -> Request {
    Request {
        device: device.map(str::to_owned),
        method,
        host_name: None,
        name_servers: Vec::new(),
        time_servers: Vec::new(),
        mtu: None,
        mac: None,
    }
}

fn method(word: &str) -> Option<Method> {
    match word.to_ascii_lowercase().as_str() {
        "dhcp" | "on" | "any" | "both" | "bootp" | "rarp" | "dhcp4" | "single-dhcp" | "auto" | "" => {
            Some(Method::Dhcp)
        }
        "off" | "none" | "static" | "disabled" => Some(Method::Off),
        "auto6" | "either6" | "link6" | "link-local" => Some(Method::RouterAdvertisement),
        "dhcp6" => Some(Method::Dhcp6),
        _ => None,
    }
}

/// With or without a prefix length.
fn is_address(text: &str) -> bool {
    text.split('/').next().is_some_and(|address| address.parse::<IpAddr>().is_ok())
}

struct Reader<'a> {
    fields: &'a [String],
    complaints: Vec<String>,
}

impl Reader<'_> {
    fn field(&self, number: usize) -> Option<&str> {
        self.fields.get(number).map(|field| field.trim()).filter(|field| !field.is_empty())
    }

    fn complain(&mut self, name: &str, text: &str, advice: &str) {
        self.complaints.push(format!("its {name} `{text}` is not understood and left out; {advice}"));
    }

    fn method(&mut self, word: &str) -> Method {
        method(word).unwrap_or_else(|| {
            let advice = format!("{METHODS}; it counts as dhcp");
            self.complain("method", word, &advice);
            Method::Dhcp
        })
    }

    fn address(&mut self, number: usize, name: &str) -> Option<IpAddr> {
        let text = self.field(number)?.to_owned();
        let address = text.parse().ok();
        if address.is_none() {
            self.complain(name, &text, "use an IP address, an IPv6 one in brackets");
        }
        address
    }

    fn long_form(&mut self) -> Request {
        let word = self.field(6).unwrap_or_default().to_owned();
        let method = match self.client() {
            // `none` and `off` are what one writes beside an address; an odd word changes nothing about it.
            Some(fixed) => {
                let _ = self.method(&word);
                Method::Static(fixed)
            }
            // An address that is not understood leaves DHCP: a machine with some address is worth more than one with none.
            None if self.field(0).is_some() => Method::Dhcp,
            None => self.method(&word),
        };
        let _ = self.address(1, "peer"); // for network file systems; nothing here asks it
        let mut request = plain(None, method);
        request.device = self.field(5).map(str::to_owned);
        request.host_name = self.field(4).map(str::to_owned);
        self.rest(AFTER_METHOD, &mut request);
        request
    }

    /// Address, mask and gateway.
    fn client(&mut self) -> Option<StaticAddress> {
        let text = self.field(0)?.to_owned();
        let (bare, own_prefix) = match text.split_once('/') {
            Some((bare, prefix)) => (bare, Some(prefix)),
            None => (text.as_str(), None),
        };
        let Ok(address) = bare.parse::<IpAddr>() else {
            self.complain(
                "address",
                &text,
                "use an IP address, an IPv6 one in brackets; DHCP is asked instead",
            );
            return None;
        };
        let mask = own_prefix.or(self.field(3)).map(str::to_owned);
        let prefix = mask.and_then(|mask| {
            let prefix = mask_of(&mask, address);
            if prefix.is_none() {
                let advice = format!("use 255.255.255.0 or 24; /{} is taken", prefix_of_class(address));
                self.complain("mask", &mask, &advice);
            }
            prefix
        });
        let mut gateway = self.address(2, "gateway");
        if let Some(other) = gateway.filter(|gateway| gateway.is_ipv4() != address.is_ipv4()) {
            self.complain("gateway", &other.to_string(), "it is of another IP version than the address");
            gateway = None;
        }
        Some(StaticAddress { address, prefix: prefix.unwrap_or_else(|| prefix_of_class(address)), gateway })
    }

    /// What follows the method: addresses of servers by their place, or a packet size and a MAC address (whose bytes colons may
    /// part).
    fn rest(&mut self, first: usize, request: &mut Request) {
        let mut at = first;
        while let Some(field) = self.fields.get(at).cloned() {
            let whole_mac = self.fields.get(at..).unwrap_or_default().join(":");
            let six_parts: Vec<_> = whole_mac.splitn(7, ':').take(6).collect();
            let place = at.saturating_sub(first);
            at += 1;
            if field.is_empty() {
                continue;
            }
            if let Ok(address) = field.parse::<IpAddr>() {
                match place {
                    0 | 1 => request.name_servers.push(address),
                    _ => request.time_servers.push(address),
                }
            } else if let (6, Ok(mac)) = (six_parts.len(), six_parts.join(":").parse::<Mac>()) {
                request.mac = Some(mac);
                at += 5;
            } else if let Ok(mac) = field.parse::<Mac>() {
                request.mac = Some(mac);
            } else if let Ok(size) = field.parse::<u32>() {
                if MTU.contains(&size) {
                    request.mtu = Some(size);
                } else {
                    self.complain("packet size (MTU)", &field, "use 68 to 65535 bytes");
                }
            } else {
                let number = at;
                self.complain(
                    &format!("field {number}"),
                    &field,
                    "use the address of a name server, a packet size (MTU) or a MAC address there",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Request {
        let (request, complaints) = request(text);
        assert!(complaints.is_empty(), "{text}: {complaints:?}");
        request.unwrap_or_else(|| panic!("{text}"))
    }

    fn fixed(address: &str, prefix: u8, gateway: Option<&str>) -> Method {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Method::Static(StaticAddress { address: address.parse().unwrap(), prefix, gateway })
    }

    #[test]
    fn every_form_of_ip_is_understood() {
        for (text, device, method) in [
            ("dhcp", None, Method::Dhcp),
            ("on", None, Method::Dhcp),
            ("any", None, Method::Dhcp),
            ("off", None, Method::Off),
            ("none", None, Method::Off),
            ("auto6", None, Method::RouterAdvertisement),
            ("either6", None, Method::RouterAdvertisement),
            ("link-local", None, Method::RouterAdvertisement),
            ("dhcp6", None, Method::Dhcp6),
            ("eth0:dhcp6", Some("eth0"), Method::Dhcp6),
            ("eth0:dhcp", Some("eth0"), Method::Dhcp),
            ("eth0:", Some("eth0"), Method::Dhcp),
            ("eth1:off", Some("eth1"), Method::Off),
            ("enp3s0:dhcp:9000", Some("enp3s0"), Method::Dhcp),
            ("01-52-54-00-ab-cd-ef:dhcp", Some("01-52-54-00-ab-cd-ef"), Method::Dhcp),
            (":::::eth0:dhcp", Some("eth0"), Method::Dhcp),
            ("::::box:eth0:off", Some("eth0"), Method::Off),
            ("10.0.2.15::10.0.2.2:255.255.255.0", None, fixed("10.0.2.15", 24, Some("10.0.2.2"))),
            (
                "10.0.2.15:10.0.2.3:10.0.2.2:24:box:eth0:none:1.1.1.1:8.8.8.8",
                Some("eth0"),
                fixed("10.0.2.15", 24, Some("10.0.2.2")),
            ),
            ("10.0.2.15", None, fixed("10.0.2.15", 8, None)),
            ("10.0.2.15/22", None, fixed("10.0.2.15", 22, None)),
            ("172.16.0.9:::::eth0", Some("eth0"), fixed("172.16.0.9", 16, None)),
            ("192.168.1.9", None, fixed("192.168.1.9", 24, None)),
            (
                "[2001:db8::9]::[2001:db8::1]:64::eth0:none",
                Some("eth0"),
                fixed("2001:db8::9", 64, Some("2001:db8::1")),
            ),
            ("[2001:db8::9]/48::::box:eth0", Some("eth0"), fixed("2001:db8::9", 48, None)),
        ] {
            let request = parsed(text);
            assert_eq!((request.device.as_deref(), request.method), (device, method), "{text}");
        }
        let full = parsed("10.0.2.15::10.0.2.2:24:box:eth0:none:1.1.1.1:[2001:db8::53]:10.0.2.4");
        assert_eq!(full.host_name.as_deref(), Some("box"));
        assert_eq!((full.name_servers.len(), full.time_servers.len()), (2, 1));
    }

    #[test]
    fn a_packet_size_and_a_mac_address_follow_the_method_in_both_forms() {
        let mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
        for (text, mtu, given) in [
            ("10.0.2.15::10.0.2.2:24:box:eth0:none:1400", Some(1400), None),
            ("10.0.2.15::10.0.2.2:24:box:eth0:none:1400:52:54:00:01:02:03", Some(1400), Some(mac)),
            ("10.0.2.15::10.0.2.2:24:box:eth0:none::52:54:00:01:02:03", None, Some(mac)),
            ("eth0:dhcp:9000", Some(9000), None),
            ("eth0:dhcp:9000:52:54:00:01:02:03", Some(9000), Some(mac)),
            ("eth0:dhcp::52-54-00-01-02-03", None, Some(mac)),
            ("eth0:dhcp::52:54:00:01:02:03", None, Some(mac)),
            ("[fd00::9]::[fd00::1]:64::eth0:none:1400:52:54:00:01:02:03", Some(1400), Some(mac)),
            (":::::eth0:dhcp:1400", Some(1400), None),
        ] {
            let request = parsed(text);
            assert_eq!((request.mtu, request.mac), (mtu, given), "{text}");
        }
        let servers = parsed("10.0.2.15::10.0.2.2:24:box:eth0:none::10.0.2.53:10.0.2.4");
        assert_eq!((servers.name_servers.len(), servers.time_servers.len()), (1, 1));
    }

    #[test]
    fn one_bad_field_is_named_and_leaves_the_rest() {
        let address = |prefix, gateway| fixed("10.0.2.15", prefix, gateway);
        for (text, part, method, device) in [
            ("10.0.2.15::nowhere:24::eth0:none", "gateway `nowhere`", address(24, None), Some("eth0")),
            ("10.0.2.15::10.0.2.2:33::eth0", "mask `33`", address(8, Some("10.0.2.2")), Some("eth0")),
            ("10.0.2.15:::255.0.255.0", "mask `255.0.255.0`", address(8, None), None),
            ("10.0.2.15::[2001:db8::1]:24", "gateway `2001:db8::1`", address(24, None), None),
            ("10.0.2.15:x:10.0.2.2:24", "peer `x`", address(24, Some("10.0.2.2")), None),
            ("10.0.2.15:::24::eth0:warp", "method `warp`", address(24, None), Some("eth0")),
            ("10.0.2.15:::24::eth0:none:dns", "field 8 `dns`", address(24, None), Some("eth0")),
            ("10.0.2.15:::24::eth0:none:99999", "packet size (MTU) `99999`", address(24, None), Some("eth0")),
            ("10.0.2.600::10.0.2.2:24::eth0:none", "address `10.0.2.600`", Method::Dhcp, Some("eth0")),
            ("eth0:warp:1400", "method `warp`", Method::Dhcp, Some("eth0")),
        ] {
            let (request, complaints) = request(text);
            let request = request.unwrap_or_else(|| panic!("{text}"));
            assert!(complaints.len() == 1 && complaints[0].contains(part), "{text}: {complaints:?}");
            assert_eq!((request.method, request.device.as_deref()), (method, device), "{text}");
        }
        let (nothing, complaints) = request("warp");
        assert_eq!((nothing, complaints.len()), (None, 1));
        assert_eq!(request("eth0:warp:1400").0.unwrap().mtu, Some(1400));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[a-z0-9:./\\[\\]-]{0,60}") {
            let _ = request(&text);
        }
    }
}
