//! What the kernel command line wants of the network: `ip=`, `nameserver=`, `BOOTIF=`.
//!
//! `ip=` is the kernel's own form (Documentation/admin-guide/nfs/nfsroot.rst: `client:server:gateway:mask:host:device:autoconf:dns0:
//! dns1:ntp0`) and the short forms of dracut.cmdline(7) (`dhcp`, `DEVICE:dhcp`). IPv6 addresses stand in brackets, with a
//! prefix length for a mask. What is not understood is reported and passed over: a machine with DHCP is worth more than a strict one.

use std::net::IpAddr;

use super::given::Given;
use super::mac::Mac;
use crate::cmdline::Cmdline;

/// What to do with which interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// One an `ip=`. Empty: DHCP everywhere.
    pub requests: Vec<Request>,
    /// The interface that the machine was booted from.
    pub boot_interface: Option<Mac>,
    /// The static network that virtual media describes: goes before the rest, for the cards that it names.
    pub given: Given,
    /// Name servers that go before those of DHCP.
    pub name_servers: Vec<IpAddr>,
    /// What was not understood, in words.
    pub complaints: Vec<String>,
}

/// One `ip=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The interface's name, or its MAC address with dashes: names follow the order in which drivers find their cards.
    /// Without one it is the one booted from, or for DHCP all.
    pub device: Option<String>,
    pub method: Method,
    pub host_name: Option<String>,
    pub name_servers: Vec<IpAddr>,
}

/// How an interface gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Dhcp,
    Static(StaticAddress),
    /// IPv6 alone: the kernel does it from router advertisements, and DHCPv6 where they ask for it.
    RouterAdvertisement,
    /// IPv6 alone: from a DHCPv6 server, whatever routers say.
    Dhcp6,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StaticAddress {
    pub address: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
}

impl Plan {
    pub(super) fn new(cmdline: &Cmdline) -> Self {
        let mut plan = Self::default();
        if let Some(text) = cmdline.get("BOOTIF") {
            match text.parse() {
                Ok(mac) => plan.boot_interface = Some(mac),
                Err(error) => plan.complaints.push(format!("BOOTIF={text} is ignored: {error}")),
            }
        }
        for text in cmdline.all("ip") {
            match request(text) {
                Ok(request) => plan.requests.push(request),
                Err(reason) => plan.complaints.push(format!("ip={text} is ignored: {reason}")),
            }
        }
        for text in cmdline.all("nameserver") {
            match text.trim_matches(['[', ']']).parse() {
                Ok(server) => plan.name_servers.push(server),
                Err(_) => plan.complaints.push(format!("nameserver={text} is ignored: not an IP address")),
            }
        }
        plan
    }

    /// What to do with an interface. The one booted from is the one that requests without a device mean; where it is not
    /// known, `first` tells whether this is the first interface of the machine.
    pub(super) fn method_for(&self, name: &str, mac: Mac, first: bool) -> Method {
        if self.requests.is_empty() {
            return Method::Dhcp;
        }
        let is_meant = |device: &str| device == name || device.parse() == Ok(mac);
        let named = self.requests.iter().find(|request| request.device.as_deref().is_some_and(is_meant));
        let meant = self.boot_interface.map_or(first, |boot| boot == mac);
        let unnamed = self.requests.iter().filter(|request| request.device.is_none()).find(|request| {
            match request.method {
                Method::Static(_) => meant,
                Method::Dhcp | Method::Dhcp6 | Method::RouterAdvertisement | Method::Off => true,
            }
        });
        named.or(unnamed).map_or(Method::Off, |request| request.method)
    }

    /// Whether the command line asks for no network at all.
    pub(super) fn is_off(&self) -> bool {
        !self.requests.is_empty() && self.requests.iter().all(|request| request.method == Method::Off)
    }

    /// The host name that the command line gives.
    pub(super) fn host_name(&self) -> Option<&str> {
        self.requests.iter().find_map(|request| request.host_name.as_deref())
    }

    /// All name servers that the command line gives.
    pub(super) fn all_name_servers(&self) -> impl Iterator<Item = IpAddr> {
        self.name_servers
            .iter()
            .chain(self.requests.iter().flat_map(|request| &request.name_servers))
            .chain(&self.given.name_servers)
            .copied()
    }
}

fn request(text: &str) -> Result<Request, String> {
    let fields = fields(text);
    let field = |number: usize| fields.get(number).map(String::as_str).filter(|field| !field.is_empty());
    let plain = |device: Option<&str>, method| Request {
        device: device.map(str::to_owned),
        method,
        host_name: None,
        name_servers: Vec::new(),
    };
    match fields.as_slice() {
        [word] if word.parse::<IpAddr>().is_err() => return Ok(plain(None, method(word)?)),
        // `DEVICE:dhcp`, then MTU and MAC in dracut's form, which are for interfaces that have to be made first.
        [device, word, ..] if !device.is_empty() && device.parse::<IpAddr>().is_err() => {
            return Ok(plain(Some(device), method(word)?));
        }
        _ => {}
    }
    let name_servers =
        [field(7), field(8)].into_iter().flatten().map(address).collect::<Result<Vec<_>, _>>()?;
    let method = match field(0) {
        Some(client) => Method::Static(static_address(client, field(2), field(3))?),
        None => method(field(6).unwrap_or("dhcp"))?,
    };
    Ok(Request {
        device: field(5).map(str::to_owned),
        method,
        host_name: field(4).map(str::to_owned),
        name_servers,
    })
}

fn method(word: &str) -> Result<Method, String> {
    match word {
        "dhcp" | "on" | "any" | "both" | "dhcp4" | "" => Ok(Method::Dhcp),
        "off" | "none" | "static" => Ok(Method::Off),
        "auto6" | "either6" | "link6" | "link-local" => Ok(Method::RouterAdvertisement),
        "dhcp6" => Ok(Method::Dhcp6),
        other => Err(format!(
            "`{other}` is not a way to get an address; use dhcp, dhcp6, auto6, off or an address"
        )),
    }
}

fn static_address(client: &str, gateway: Option<&str>, mask: Option<&str>) -> Result<StaticAddress, String> {
    let address = address(client)?;
    let gateway = gateway.map(self::address).transpose()?;
    if gateway.is_some_and(|gateway| gateway.is_ipv4() != address.is_ipv4()) {
        return Err("address and gateway are of different IP versions".into());
    }
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match mask {
        None => class_prefix(address),
        Some(mask) => match (mask.parse::<u8>(), mask.parse::<IpAddr>()) {
            (Ok(prefix), _) if prefix <= longest => prefix,
            (_, Ok(IpAddr::V4(mask))) if address.is_ipv4() => {
                prefix_of(mask).ok_or_else(|| format!("`{mask}` is not a network mask"))?
            }
            _ => return Err(format!("`{mask}` is not a network mask; use 255.255.255.0 or 24")),
        },
    };
    Ok(StaticAddress { address, prefix, gateway })
}

/// The prefix length of a mask, if its ones are all on the left.
pub(super) fn prefix_of(mask: std::net::Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let ones = bits.leading_ones();
    (bits.count_ones() == ones).then(|| u8::try_from(ones).unwrap_or(32))
}

/// Without a mask the kernel takes that of the address's class.
fn class_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [0..=127, ..] => 8,
            [128..=191, ..] => 16,
            _ => 24,
        },
        IpAddr::V6(_) => 64,
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an IP address"))
}

/// Splits at colons outside brackets, and takes the brackets off.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut inside = false;
    for c in text.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            ':' if !inside => fields.push(String::new()),
            other => {
                if let Some(field) = fields.last_mut() {
                    field.push(other);
                }
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Request {
        request(text).unwrap_or_else(|error| panic!("{text}: {error}"))
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
            ("dhcp6", None, Method::Dhcp6),
            ("eth0:dhcp6", Some("eth0"), Method::Dhcp6),
            ("eth0:dhcp", Some("eth0"), Method::Dhcp),
            ("eth1:off", Some("eth1"), Method::Off),
            ("enp3s0:dhcp:9000", Some("enp3s0"), Method::Dhcp),
            (":::::eth0:dhcp", Some("eth0"), Method::Dhcp),
            ("::::box:eth0:off", Some("eth0"), Method::Off),
            ("10.0.2.15::10.0.2.2:255.255.255.0", None, fixed("10.0.2.15", 24, Some("10.0.2.2"))),
            (
                "10.0.2.15:10.0.2.3:10.0.2.2:24:box:eth0:none:1.1.1.1:8.8.8.8",
                Some("eth0"),
                fixed("10.0.2.15", 24, Some("10.0.2.2")),
            ),
            ("10.0.2.15", None, fixed("10.0.2.15", 8, None)),
            ("172.16.0.9:::::eth0", Some("eth0"), fixed("172.16.0.9", 16, None)),
            ("192.168.1.9", None, fixed("192.168.1.9", 24, None)),
            (
                "[2001:db8::9]::[2001:db8::1]:64::eth0:none",
                Some("eth0"),
                fixed("2001:db8::9", 64, Some("2001:db8::1")),
            ),
        ] {
            let request = parsed(text);
            assert_eq!((request.device.as_deref(), request.method), (device, method), "{text}");
        }
        let full = parsed("10.0.2.15::10.0.2.2:24:box:eth0:none:1.1.1.1:8.8.8.8");
        assert_eq!(full.host_name.as_deref(), Some("box"));
        assert_eq!(full.name_servers.len(), 2);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for text in [
            "eth0:warp",
            "10.0.2.15::nowhere:24",
            "10.0.2.15::10.0.2.2:33",
            "10.0.2.15:::255.0.255.0",
            "10.0.2.15::[2001:db8::1]:24",
            "10.0.0.1:::24::eth0:none:dns",
        ] {
            assert!(!request(text).unwrap_err().is_empty(), "{text}");
        }
        let plan = Plan::new(&Cmdline::parse("ip=warp BOOTIF=x nameserver=y nameserver=[2001:db8::53]"));
        assert_eq!(plan.complaints.len(), 3, "{:?}", plan.complaints);
        assert_eq!(plan.name_servers.len(), 1);
        assert_eq!(plan.method_for("eth0", Mac([0; 6]), true), Method::Dhcp, "one bad word leaves DHCP");
    }

    #[test]
    fn requests_reach_the_interfaces_they_mean() {
        let (one, two) = (Mac([1; 6]), Mac([2; 6]));
        let methods = |text: &str| {
            let plan = Plan::new(&Cmdline::parse(text));
            (plan.method_for("eth0", one, true), plan.method_for("eth1", two, false))
        };
        let address = fixed("10.0.0.9", 24, None);
        assert_eq!(methods(""), (Method::Dhcp, Method::Dhcp));
        assert_eq!(methods("BOOTIF=01-02-02-02-02-02-02"), (Method::Dhcp, Method::Dhcp));
        assert_eq!(methods("ip=eth1:dhcp"), (Method::Off, Method::Dhcp));
        assert_eq!(methods("ip=10.0.0.9:::24"), (address, Method::Off));
        assert_eq!(methods("ip=10.0.0.9:::24 BOOTIF=02:02:02:02:02:02"), (Method::Off, address));
        assert_eq!(methods("ip=02-02-02-02-02-02:dhcp"), (Method::Off, Method::Dhcp));
        assert_eq!(methods("ip=10.0.0.9:::24::01-02-02-02-02-02-02:none"), (Method::Off, address));
        assert_eq!(methods("ip=eth0:off ip=dhcp"), (Method::Off, Method::Dhcp));
        assert!(Plan::new(&Cmdline::parse("ip=none")).is_off());
        assert!(!Plan::new(&Cmdline::parse("")).is_off());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[a-z0-9:.\\[\\]]{0,40}") {
            let _ = request(&text);
        }
    }
}
