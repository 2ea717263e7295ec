//! IPv6 on one interface. The kernel makes addresses from router advertisements and keeps the default route; what it does not
//! do happens here: name servers from the same advertisements, DHCPv6 where they ask for it, and knowing what has come of it.

pub(super) mod addresses;
mod advertisement;

use std::thread;
use std::time::{Duration, Instant};

use sys::Host;
use sys::net::icmp6::AdvertisementSocket;

use super::link::{self, Link};
pub(super) use addresses::Address;
pub(super) use advertisement::Advertisement;

/// How often addresses are looked at while the machine starts, and after that.
const EARLY_LOOK: Duration = Duration::from_millis(200);
const LATE_LOOK: Duration = Duration::from_secs(5);
const EARLY: Duration = Duration::from_secs(60);
/// How often routers are asked until one answers (RFC 4861, 10), and how often when the first three did not help.
const SOLICITATION_PAUSE: Duration = Duration::from_secs(4);
const LATER_PAUSE: Duration = Duration::from_secs(60);
const QUICK_SOLICITATIONS: u32 = 3;
/// The largest packet that is read.
const LARGEST: usize = 2048;

/// What happens on an interface.
#[derive(Debug)]
pub(super) enum Progress<'a> {
    /// A router spoke, for the first time or differently than before.
    Advertised(&'a Advertisement),
    /// The interface has other addresses than before.
    Addresses(&'a [Address]),
}

/// Looks after one interface for as long as it is there.
pub(super) fn run(host: &Host, link: &Link, interface: u32, mut report: impl FnMut(Progress<'_>)) {
    let socket = match AdvertisementSocket::open(interface) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(interface = link.name, %error, "no IPv6");
            return;
        }
    };
    let started = Instant::now();
    let (mut asked, mut next_question) = (0, Instant::now());
    let mut heard: Option<Advertisement> = None;
    let mut known: Vec<Address> = Vec::new();
    let mut buffer = vec![0; LARGEST];
    while host.path(format!("/sys/class/net/{}", link.name)).exists() {
        let addresses = addresses::of(host, &link.name);
        let has_address = addresses.iter().any(|address| !address.is_global());
        if addresses != known {
            report(Progress::Addresses(&addresses));
            known = addresses;
        }
        // A question without an address of one's own would go to nobody: routers answer to it.
        if heard.is_none()
            && has_address
            && link::has_carrier(host, &link.name)
            && Instant::now() >= next_question
        {
            if let Err(error) = socket.solicit() {
                tracing::debug!(interface = link.name, %error, "asking for routers");
            }
            asked += 1;
            next_question =
                Instant::now() + if asked < QUICK_SOLICITATIONS { SOLICITATION_PAUSE } else { LATER_PAUSE };
        }
        let patience = if started.elapsed() < EARLY { EARLY_LOOK } else { LATE_LOOK };
        match socket.receive(&mut buffer, patience) {
            // Only a station of this link has such an address: routers pass none of them on.
            Ok(Some((length, router))) if router.is_unicast_link_local() => {
                let Some(advertisement) = buffer.get(..length).and_then(Advertisement::decode) else {
                    continue;
                };
                if heard.as_ref() != Some(&advertisement) {
                    tracing::info!(interface = link.name, %router, ?advertisement, "router advertisement");
                    report(Progress::Advertised(&advertisement));
                    heard = Some(advertisement);
                }
            }
            Ok(Some((_, router))) => tracing::warn!(%router, "a router advertisement from beyond the link"),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(interface = link.name, %error, "listening for routers");
                thread::sleep(LATE_LOOK);
            }
        }
    }
}
