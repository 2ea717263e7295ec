//! VLAN interfaces that the option `enable_vlan_interfaces` asks for: made before anybody lists interfaces, so that the inventory and
//! the lookup have them. Source: ironic-python-agent `hardware.py`, `netutils.py` (agent protocol page, 5.7).

use std::io;
use std::time::Duration;

use sys::Host;
use sys::net::{link, route};

use crate::config::Config;

/// The Ethernet type of LLDP.
const LLDP: u16 = 0x88cc;
/// What stands before the elements of a frame: two addresses and the type.
const FRAME_HEADER: usize = 14;
/// The element that only an organisation understands; IEEE 802.1's; its VLAN name.
const ORGANISATION: u8 = 127;
const VLAN_NAME: [u8; 4] = [0x00, 0x80, 0xc2, 0x03];

/// A VLAN to make an interface for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Vlan {
    parent: String,
    id: u16,
}

/// An interface of the machine's.
#[derive(Clone, Debug)]
struct Port {
    name: String,
    mac: String,
}

/// The VLANs that the option names with their ids, each on an interface's name or MAC address: those that need no word of a switch
/// and can be made as soon as their interface is there.
pub fn explicit(config: &Config) -> Vec<(String, u16)> {
    let requests = config.enable_vlan_interfaces.iter();
    let named = requests.filter_map(|request| {
        let (parent, id) = request.rsplit_once('.')?;
        let id = id.parse().ok().filter(|id| (1..=4094).contains(id))?;
        (!parent.is_empty()).then(|| (parent.to_owned(), id))
    });
    named.collect()
}

/// Makes the interfaces, sets them up and returns their names, `PARENT.ID`; one that is there already counts. What can not be made
/// is a warning in the log. Waits for LLDP where the option leaves the ids to the switches.
pub fn create(host: &Host, config: &Config) -> Vec<String> {
    if config.enable_vlan_interfaces.is_empty() {
        return Vec::new();
    }
    let ports = ports(host);
    let heard = |ports: &[String]| match *config.collect_lldp {
        true => announced(host, ports, **config.lldp_timeout),
        false => {
            tracing::warn!(
                "enable_vlan_interfaces leaves the ids to the switches, which needs collect_lldp=true"
            );
            Vec::new()
        }
    };
    let mut made = Vec::new();
    for vlan in wanted(&config.enable_vlan_interfaces, &ports, heard) {
        let name = format!("{}.{}", vlan.parent, vlan.id);
        match make(&vlan, &name) {
            Ok(()) => {
                tracing::info!(interface = name, "VLAN interface");
                made.push(name);
            }
            Err(error) => tracing::warn!(interface = name, %error, "the VLAN interface can not be made"),
        }
    }
    made
}

fn make(vlan: &Vlan, name: &str) -> io::Result<()> {
    let parent = route::interface_index(&vlan.parent)?;
    route::set_up(parent)?;
    match link::create_vlan(parent, name, vlan.id) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created?,
    }
    route::set_up(route::interface_index(name)?)
}

/// Hardware only: a VLAN on a VLAN nobody asks for.
fn ports(host: &Host) -> Vec<Port> {
    let names = host.names("/sys/class/net").unwrap_or_default();
    let hardware =
        names.into_iter().filter(|name| host.path(format!("/sys/class/net/{name}/device")).exists());
    hardware
        .map(|name| Port {
            mac: host.attribute(format!("/sys/class/net/{name}/address")).unwrap_or_default(),
            name,
        })
        .collect()
}

/// What the requests mean on these ports: `NAME.ID`, `MAC.ID`, and `NAME`, `MAC` or `all` with the ids that `heard` tells.
fn wanted(requests: &[String], ports: &[Port], heard: impl FnOnce(&[String]) -> Vec<Vlan>) -> Vec<Vlan> {
    let port =
        |text: &str| ports.iter().find(|port| port.name == text || port.mac.eq_ignore_ascii_case(text));
    let (mut vlans, mut listening) = (Vec::new(), Vec::new());
    for request in requests {
        let explicit = request.rsplit_once('.').map(|(parent, id)| (parent, id.parse::<u16>()));
        match (explicit, port(request)) {
            _ if request == "all" => listening.extend(ports.iter().map(|port| port.name.clone())),
            (_, Some(port)) => listening.push(port.name.clone()),
            (Some((parent, Ok(id @ 1..=4094))), None) => match port(parent) {
                Some(port) => vlans.push(Vlan { parent: port.name.clone(), id }),
                None => {
                    tracing::warn!(request, "enable_vlan_interfaces names an interface that is not there")
                }
            },
            (Some(_) | None, None) => tracing::warn!(
                request,
                "enable_vlan_interfaces: not understood; use INTERFACE.ID, MAC.ID, INTERFACE or all, with an ID from 1 to 4094"
            ),
        }
    }
    listening.sort();
    listening.dedup();
    if !listening.is_empty() {
        vlans.extend(heard(&listening));
    }
    vlans.sort();
    vlans.dedup();
    vlans
}

/// The VLANs that switches announce on these ports.
fn announced(host: &Host, ports: &[String], silence: Duration) -> Vec<Vlan> {
    tracing::info!(interfaces = ports.join(", "), seconds = silence.as_secs(), "listening for VLANs (LLDP)");
    let heard = host.kernel().capture_frames(ports, LLDP, silence);
    let told = ports.iter().zip(heard).flat_map(|(port, frame)| match frame {
        Ok(frame) => vlan_ids(&frame.unwrap_or_default()).into_iter().map(|id| (port, id)).collect(),
        Err(error) => {
            tracing::warn!(interface = port, %error, "listening for LLDP failed");
            Vec::new()
        }
    });
    told.map(|(port, id)| Vlan { parent: port.clone(), id }).collect()
}

/// The ids of the VLAN names in an LLDP frame.
fn vlan_ids(frame: &[u8]) -> Vec<u16> {
    let mut ids = Vec::new();
    let mut rest = frame.get(FRAME_HEADER..).unwrap_or_default();
    while let [high, low, after @ ..] = rest {
        let length = usize::from(high & 1) << 8 | usize::from(*low);
        let Some((value, next)) = after.split_at_checked(length) else { break };
        if high >> 1 == ORGANISATION
            && let Some([a, b, ..]) = value.strip_prefix(&VLAN_NAME)
            && let id @ 1..=4094 = u16::from_be_bytes([*a, *b])
        {
            ids.push(id);
        }
        rest = next;
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(requests: &[&str], heard: &[(&str, u16)]) -> Vec<String> {
        let port = |name: &str, mac: &str| Port { name: name.into(), mac: mac.into() };
        let ports = [port("eth0", "52:54:00:00:00:01"), port("eth1", "52:54:00:00:00:02")];
        let requests: Vec<_> = requests.iter().map(ToString::to_string).collect();
        let vlans = wanted(&requests, &ports, |asked| {
            let on = |(name, _): &&(&str, u16)| asked.iter().any(|asked| asked == name);
            heard.iter().filter(on).map(|(name, id)| Vlan { parent: (*name).into(), id: *id }).collect()
        });
        vlans.into_iter().map(|vlan| format!("{}.{}", vlan.parent, vlan.id)).collect()
    }

    #[test]
    fn every_form_of_a_request_is_understood() {
        let heard = [("eth0", 7), ("eth1", 8), ("eth1", 9)];
        assert_eq!(shown(&["eth0.5"], &heard), ["eth0.5"]);
        assert_eq!(shown(&["52:54:00:00:00:02.12", "eth1.12"], &heard), ["eth1.12"]);
        assert_eq!(shown(&["eth1"], &heard), ["eth1.8", "eth1.9"]);
        assert_eq!(shown(&["52:54:00:00:00:01", "eth0.5"], &heard), ["eth0.5", "eth0.7"]);
        assert_eq!(shown(&["all"], &heard), ["eth0.7", "eth1.8", "eth1.9"]);
        let nonsense = ["eth9.5", "eth0.0", "eth0.4095", "eth0.x", "eth9", ".5"];
        assert!(shown(&nonsense, &heard).is_empty());
    }

    #[test]
    fn only_requests_with_an_id_can_be_made_at_once() {
        let mut config = Config::default();
        let requests = ["eth0.5", "52:54:00:00:00:02.12", "eth1", "all", "eth0.0", "eth0.x", ".5"];
        config.enable_vlan_interfaces.value = requests.map(str::to_owned).into();
        assert_eq!(explicit(&config), [("eth0".to_owned(), 5), ("52:54:00:00:00:02".to_owned(), 12)]);
    }

    #[test]
    fn ids_come_from_the_vlan_names_of_a_switch() {
        let mut frame = vec![0; FRAME_HEADER];
        for element in [
            &[2, 3, 7, 1, 2][..],
            &[254, 9, 0x00, 0x80, 0xc2, 0x03, 0x00, 0x64, 2, b'v', b'x'],
            &[254, 6, 0x00, 0x80, 0xc2, 0x01, 0x00, 0x65],
            &[254, 6, 0x00, 0x80, 0xc2, 0x03, 0x0f, 0xff],
            &[0, 0],
        ] {
            frame.extend(element);
        }
        assert_eq!(vlan_ids(&frame), [100]);
    }

    proptest! {
        #[test]
        fn any_frame_is_survived(frame in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = vlan_ids(&frame);
        }
    }
}
