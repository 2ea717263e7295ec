//! Waits until the interface that the machine booted from, or every interface, has an IPv4 address. Source: agent protocol
//! page, 6.3. That time runs out is no error: the data say who has an address.

use std::time::{Duration, Instant};

use wire::Interface;

use super::plan::DhcpWait;
use crate::init::network::Mac;

/// How often to look.
const PAUSE: Duration = Duration::from_secs(2);

/// Waits as long as `wait` says; `interfaces` lists them anew. Blocks.
pub(super) fn wait(wait: &DhcpWait, interfaces: impl Fn() -> Vec<Interface>) {
    let boot = wait.boot_interface.as_deref().filter(|text| !text.is_empty()).and_then(|text| {
        let mac = text.parse::<Mac>();
        mac.inspect_err(|error| tracing::warn!(boot_interface = text, %error, "the interface booted from"))
            .ok()
    });
    if boot.is_none() && !wait.all_interfaces {
        tracing::warn!("the boot loader named no interface, so there is none to wait for");
        return;
    }
    let deadline = Instant::now() + wait.limit;
    loop {
        let missing = without_address(&interfaces(), boot.filter(|_| !wait.all_interfaces));
        if missing.is_empty() {
            return;
        }
        let missing = missing.join(", ");
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let seconds = wait.limit.as_secs();
            tracing::warn!(missing, seconds, "interfaces have no IPv4 address; going on without");
            return;
        }
        tracing::debug!(missing, "waiting for IPv4 addresses");
        std::thread::sleep(PAUSE.min(left));
    }
}

/// The names of the interfaces without an address, among all or those with this hardware address.
fn without_address(interfaces: &[Interface], boot: Option<Mac>) -> Vec<String> {
    let wanted = interfaces.iter().filter(|nic| boot.is_none_or(|mac| nic.mac_address.parse() == Ok(mac)));
    wanted.filter(|nic| nic.ipv4_address.is_none()).map(|nic| nic.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn nic(name: &str, mac: &str, address: Option<&str>) -> Interface {
        Interface {
            name: name.into(),
            mac_address: mac.into(),
            ipv4_address: address.map(str::to_owned),
            ..Interface::default()
        }
    }

    #[test]
    fn every_form_of_bootif_is_waited_for() {
        let nics = || vec![nic("eth0", "52:54:00:ab:00:01", None), nic("ib0", "7c:fe:90:29:26:52", None)];
        for (text, name) in [
            ("01-52-54-00-AB-00-01", "eth0"),
            ("52:54:00:AB:00:01", "eth0"),
            ("52-54-00-ab-00-01", "eth0"),
            ("01:52:54:00:ab:00:01", "eth0"),
            ("525400AB0001", "eth0"),
            ("20-7c-fe-90-29-26-52", "ib0"),
            ("20-a0-00-00-27-fe-80-00-00-00-00-00-00-7c-fe-90-03-00-29-26-52", "ib0"),
        ] {
            assert_eq!(without_address(&nics(), Some(text.parse().unwrap())), [name], "{text}");
        }
    }

    #[test]
    fn only_the_wanted_interfaces_are_missed() {
        let nics =
            [nic("eth0", "52:54:00:00:00:01", None), nic("eth1", "52:54:00:00:00:02", Some("192.0.2.1"))];
        let boot = |last| Some(Mac([0x52, 0x54, 0, 0, 0, last]));
        assert_eq!(without_address(&nics, boot(1)), ["eth0"]);
        assert!(without_address(&nics, boot(2)).is_empty());
        assert_eq!(without_address(&nics, None), ["eth0"]);
        assert!(without_address(&nics, boot(9)).is_empty(), "an unknown one is not waited for");
    }

    #[test]
    fn it_ends_with_the_address_or_with_the_time() {
        let looks = Cell::new(0);
        let list = || {
            looks.set(looks.get() + 1);
            vec![nic("eth0", "52:54:00:00:00:01", (looks.get() > 1).then_some("192.0.2.1"))]
        };
        let plan = |boot: Option<&str>, all_interfaces, milliseconds| DhcpWait {
            boot_interface: boot.map(str::to_owned),
            all_interfaces,
            limit: Duration::from_millis(milliseconds),
        };
        wait(&plan(Some("01-52-54-00-00-00-01"), false, 50), list);
        assert_eq!(looks.get(), 2);
        wait(&plan(None, false, 60_000), || panic!("nobody to wait for"));
        let started = Instant::now();
        wait(&plan(None, true, 20), || vec![nic("eth0", "52:54:00:00:00:01", None)]);
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}
