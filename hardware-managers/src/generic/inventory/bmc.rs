//! The addresses of the management controller (BMC), asked through the kernel's IPMI device: no ipmitool.
//!
//! Source: IPMI 2.0 rev. 1.1, 22.24 (Get Channel Info), 23.2 and table 23-4 (Get LAN Configuration Parameters). Which of a
//! controller's addresses counts is ironic-python-agent's rule (data plane page, 10.4), and so are the texts for "none":
//! `0.0.0.0` and `::/0` where there is a controller without address, null where there is none to ask.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::{Host, IpmiRequest};
use wire::Bmc;

use super::interfaces::colons;

/// How long one answer may take. The first silence ends the whole search.
const PATIENCE: Duration = Duration::from_secs(5);
/// Channels that can be a network. Source: IPMI 2.0, 6.3.
const CHANNELS: std::ops::RangeInclusive<u8> = 1..=11;
/// How often a busy controller is asked again, and how long to wait before that.
const BUSY_ATTEMPTS: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Network functions.
const APPLICATION: u8 = 0x06;
const TRANSPORT: u8 = 0x0c;
/// Commands.
const GET_CHANNEL_INFO: u8 = 0x42;
const GET_LAN_PARAMETER: u8 = 0x02;
/// Completion codes.
const SUCCESS: u8 = 0;
const BUSY: u8 = 0xc0;
/// Channel media: Ethernet, and another kind of network.
const NETWORKS: [u8; 2] = [0x04, 0x06];
/// LAN parameters.
const IP_ADDRESS: u8 = 3;
const MAC_ADDRESS: u8 = 5;
const IPV6_ENABLES: u8 = 51;
const IPV6_STATUS: u8 = 55;
const IPV6_STATIC_ADDRESS: u8 = 56;
const IPV6_DYNAMIC_ADDRESS: u8 = 59;

/// What the controller says; everything empty without an IPMI device, or when the controller does not answer.
pub(crate) fn read(host: &Host) -> Bmc {
    let Some(device) = device(host) else {
        tracing::debug!("no IPMI device, so no management controller to ask");
        return Bmc::default();
    };
    let controller = Controller { host, device: &device };
    match controller.addresses() {
        Ok(bmc) => bmc,
        Err(error) => {
            tracing::warn!(device = %device.display(), %error, "the management controller can not be asked for its addresses");
            Bmc::default()
        }
    }
}

/// The first of the names that the driver's device node has had over the years.
fn device(host: &Host) -> Option<PathBuf> {
    let in_directory = |directory: &str, prefix: &str| -> Option<PathBuf> {
        let names = host.names(directory).unwrap_or_default();
        let paths =
            names.iter().filter(|name| name.starts_with(prefix)).map(|name| Path::new(directory).join(name));
        let is_node = |path: &PathBuf| {
            std::fs::metadata(host.path(path)).is_ok_and(|node| node.file_type().is_char_device())
        };
        paths.into_iter().find(is_node)
    };
    in_directory("/dev", "ipmi")
        .or_else(|| in_directory("/dev/ipmi", ""))
        .or_else(|| in_directory("/dev/ipmidev", ""))
}

struct Controller<'a> {
    host: &'a Host,
    device: &'a Path,
}

/// An IPv6 address of a channel.
struct Address6 {
    address: Ipv6Addr,
    /// Whether it is meant to be used: a static one that is enabled, a dynamic one that came by DHCPv6 or advertisement.
    enabled: bool,
    active: bool,
}

impl Controller<'_> {
    fn addresses(&self) -> io::Result<Bmc> {
        let mut bmc = Bmc::default();
        for channel in CHANNELS {
            if !self.is_network(channel)? {
                continue;
            }
            let v4 = self.parameter(channel, IP_ADDRESS, 0)?.and_then(|data| {
                data.get(..4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(Ipv4Addr::from)
            });
            let v6 = self.addresses6(channel)?;
            if bmc.address.is_none() {
                bmc.address = v4.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
            }
            if bmc.v6address.is_none() && self.speaks_ipv6(channel)? {
                let usable = v6.iter().find(|ip| ip.enabled && ip.active && !ip.address.is_unspecified());
                bmc.v6address = usable.map(|ip| ip.address.to_string());
            }
            // A channel that can be reached by nobody is not the one an operator looks for.
            let reachable = match v4 {
                Some(v4) => !v4.is_unspecified() || v6.iter().any(|ip| is_routed(ip.address)),
                None => false,
            };
            if bmc.mac.is_none() && reachable {
                bmc.mac = self.mac(channel)?;
            }
        }
        bmc.address.get_or_insert_with(|| "0.0.0.0".into());
        bmc.v6address.get_or_insert_with(|| "::/0".into());
        Ok(bmc)
    }

    fn is_network(&self, channel: u8) -> io::Result<bool> {
        let info = self.ask(APPLICATION, GET_CHANNEL_INFO, vec![channel])?;
        let medium = info.and_then(|info| info.get(1).copied()).map(|medium| medium & 0x7f);
        Ok(medium.is_some_and(|medium| NETWORKS.contains(&medium)))
    }

    fn mac(&self, channel: u8) -> io::Result<Option<String>> {
        let data = self.parameter(channel, MAC_ADDRESS, 0)?.unwrap_or_default();
        let mac = data.get(..6).filter(|mac| mac.iter().any(|byte| *byte != 0));
        Ok(mac.map(colons))
    }

    fn speaks_ipv6(&self, channel: u8) -> io::Result<bool> {
        // 0: IPv4 alone, 1: IPv6 alone, 2: both.
        let enables = self.parameter(channel, IPV6_ENABLES, 0)?;
        Ok(enables.is_some_and(|data| matches!(data.first(), Some(1 | 2))))
    }

    /// Dynamic addresses first, as they are preferred.
    fn addresses6(&self, channel: u8) -> io::Result<Vec<Address6>> {
        let Some(status) = self.parameter(channel, IPV6_STATUS, 0)? else { return Ok(Vec::new()) };
        let [statics, dynamics, ..] = status.as_slice() else { return Ok(Vec::new()) };
        let kinds = [(IPV6_DYNAMIC_ADDRESS, *dynamics), (IPV6_STATIC_ADDRESS, *statics)];
        let mut found = Vec::new();
        for (parameter, count) in kinds {
            for set in 0..count {
                // A controller that promises more addresses than it has is asked no further.
                let Some(data) = self.parameter(channel, parameter, set)? else { break };
                found.extend(address6(&data, parameter == IPV6_DYNAMIC_ADDRESS));
            }
        }
        Ok(found)
    }

    /// A LAN parameter without its revision byte; `None` where the channel does not have it.
    fn parameter(&self, channel: u8, parameter: u8, set: u8) -> io::Result<Option<Vec<u8>>> {
        let answer = self.ask(TRANSPORT, GET_LAN_PARAMETER, vec![channel, parameter, set, 0])?;
        Ok(answer.and_then(|data| data.get(1..).map(<[u8]>::to_vec)))
    }

    /// The data of an answer; `None` when the controller declines.
    fn ask(&self, function: u8, command: u8, data: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        let request = IpmiRequest { function, command, data };
        for _ in 0..BUSY_ATTEMPTS {
            let answer = self.host.kernel().ipmi(&self.host.path(self.device), &request, PATIENCE)?;
            match answer.split_first() {
                Some((&SUCCESS, data)) => return Ok(Some(data.to_vec())),
                Some((&BUSY, _)) => std::thread::sleep(BUSY_PAUSE),
                Some(_) => return Ok(None),
                None => return Err(io::Error::other("an answer without completion code")),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the management controller is busy"))
    }
}

/// Set selector, source, sixteen bytes of address, length of the prefix, status.
fn address6(data: &[u8], dynamic: bool) -> Option<Address6> {
    let source = *data.get(1)?;
    let bytes: [u8; 16] = data.get(2..18)?.try_into().ok()?;
    let enabled = if dynamic { matches!(source & 0x0f, 1 | 2) } else { source & 0x80 != 0 };
    Some(Address6 { address: bytes.into(), enabled, active: *data.get(19)? == 0 })
}

/// Neither link-local nor in the block that starts with the unspecified address.
fn is_routed(address: Ipv6Addr) -> bool {
    let text = address.to_string();
    !text.starts_with("::") && !text.starts_with("fe80")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    /// A controller by its parameters: (channel, parameter, set) to data. Channels in `media` exist.
    #[derive(Clone, Default)]
    struct Fake {
        media: HashMap<u8, u8>,
        parameters: HashMap<(u8, u8, u8), Vec<u8>>,
        busy: Arc<Mutex<u32>>,
        silent: bool,
    }

    impl Fake {
        fn lan(mut self, channel: u8, ip: [u8; 4], mac: [u8; 6]) -> Self {
            self.media.insert(channel, 4);
            self.parameters.insert((channel, IP_ADDRESS, 0), ip.to_vec());
            self.parameters.insert((channel, MAC_ADDRESS, 0), mac.to_vec());
            self
        }

        fn v6(mut self, channel: u8, parameter: u8, set: u8, source: u8, ip: &str, status: u8) -> Self {
            let ip: Ipv6Addr = ip.parse().unwrap();
            let data = [&[set, source], ip.octets().as_slice(), &[64, status]].concat();
            self.parameters.insert((channel, parameter, set), data);
            self.parameters.insert((channel, IPV6_ENABLES, 0), vec![2]);
            self.parameters.insert((channel, IPV6_STATUS, 0), vec![2, 2, 3]);
            self
        }

        fn answer(&self, request: &IpmiRequest) -> io::Result<Vec<u8>> {
            if self.silent {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut busy = self.busy.lock().unwrap();
            if *busy > 0 {
                *busy -= 1;
                return Ok(vec![BUSY]);
            }
            let found = match (request.function, request.command, request.data.as_slice()) {
                (APPLICATION, GET_CHANNEL_INFO, [channel]) => {
                    self.media.get(channel).map(|medium| vec![*channel, *medium, 1])
                }
                (TRANSPORT, GET_LAN_PARAMETER, [channel, parameter, set, 0]) => {
                    let data = self.parameters.get(&(*channel, *parameter, *set));
                    data.map(|data| [&[0x11], data.as_slice()].concat())
                }
                other => panic!("not told of {other:?}"),
            };
            Ok(found.map_or(vec![0xcc], |data| [&[SUCCESS], data.as_slice()].concat()))
        }

        fn read(&self) -> Bmc {
            let fake = self.clone();
            let machine = Fixture::new()
                .link("/dev/ipmi0", "/dev/null") // a character device that every machine has
                .controller(move |_, request| fake.answer(request));
            read(&machine.host())
        }
    }

    fn bmc(address: &str, v6address: &str, mac: Option<&str>) -> Bmc {
        Bmc { address: Some(address.into()), v6address: Some(v6address.into()), mac: mac.map(str::to_owned) }
    }

    const MAC: [u8; 6] = [0, 0x11, 0x22, 0x33, 0x44, 0xff];
    const MAC_TEXT: &str = "00:11:22:33:44:ff";

    #[test]
    fn without_a_device_node_there_is_no_controller() {
        assert_eq!(read(&Fixture::new().host()), Bmc::default());
        let plain_file = Fixture::new().file("/dev/ipmi0", "").file("/dev/ipmi_notes", "");
        assert_eq!(read(&plain_file.host()), Bmc::default());
    }

    #[test]
    fn the_first_network_channel_with_an_address_counts() {
        let mut fake = Fake::default().lan(2, [0; 4], [9; 6]).lan(3, [192, 0, 2, 9], MAC).lan(
            8,
            [192, 0, 2, 10],
            [8; 6],
        );
        fake.media.insert(1, 5); // a serial line
        assert_eq!(fake.read(), bmc("192.0.2.9", "::/0", Some(MAC_TEXT)));
    }

    #[test]
    fn a_controller_without_addresses_has_the_texts_for_none_and_no_mac() {
        assert_eq!(Fake::default().read(), bmc("0.0.0.0", "::/0", None));
        assert_eq!(Fake::default().lan(1, [0; 4], MAC).read(), bmc("0.0.0.0", "::/0", None));
        assert_eq!(Fake::default().lan(1, [192, 0, 2, 1], [0; 6]).read(), bmc("192.0.2.1", "::/0", None));
    }

    #[test]
    fn dynamic_ipv6_addresses_beat_static_ones_and_idle_ones_do_not_count() {
        let fake = Fake::default()
            .lan(1, [0; 4], MAC)
            .v6(1, IPV6_STATIC_ADDRESS, 0, 0x80, "2001:db8::5", 0)
            .v6(1, IPV6_DYNAMIC_ADDRESS, 0, 1, "2001:db8::6", 2) // pending
            .v6(1, IPV6_DYNAMIC_ADDRESS, 1, 2, "2001:db8::7", 0);
        assert_eq!(fake.read(), bmc("0.0.0.0", "2001:db8::7", Some(MAC_TEXT)));
        let disabled = Fake::default().lan(1, [0; 4], MAC).v6(1, IPV6_STATIC_ADDRESS, 0, 0, "2001:db8::5", 0);
        assert_eq!(disabled.read().v6address.as_deref(), Some("::/0"));
        let mut ipv4_alone = fake;
        ipv4_alone.parameters.insert((1, IPV6_ENABLES, 0), vec![0]);
        assert_eq!(ipv4_alone.read().v6address.as_deref(), Some("::/0"));
    }

    #[test]
    fn a_link_local_address_makes_no_channel_reachable() {
        let fake = Fake::default().lan(1, [0; 4], MAC).v6(1, IPV6_DYNAMIC_ADDRESS, 0, 1, "fe80::1", 0);
        assert_eq!(fake.read(), bmc("0.0.0.0", "fe80::1", None));
    }

    #[test]
    fn a_busy_controller_is_asked_again_and_a_silent_one_is_none() {
        let fake = Fake::default().lan(1, [192, 0, 2, 9], MAC);
        *fake.busy.lock().unwrap() = 3;
        assert_eq!(fake.read().address.as_deref(), Some("192.0.2.9"));
        assert_eq!(Fake { silent: true, ..fake }.read(), Bmc::default());
    }

    #[test]
    fn short_answers_are_no_addresses() {
        let mut fake = Fake::default().lan(1, [192, 0, 2, 9], MAC);
        fake.parameters.insert((1, IP_ADDRESS, 0), vec![192, 0]);
        fake.parameters.insert((1, IPV6_STATUS, 0), vec![1]);
        assert_eq!(fake.read(), bmc("0.0.0.0", "::/0", None));
        assert!(address6(&[0, 0x80, 1], false).is_none());
    }
}
