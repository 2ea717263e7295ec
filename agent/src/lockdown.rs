//! After `system.lockdown`: the network goes down, and nothing happens any more until the machine is power-cycled.
//! Source: agent protocol page, 5.6.

use std::time::Duration;

use sys::Host;

use crate::init::Console;

/// How often the consoles say it again, for whoever attaches to a serial line later.
const REPEATED_EVERY: Duration = Duration::from_secs(300);

/// What process 1 does from then on: **takes the network down** and never returns.
pub fn stay(host: &Host, console: &Console) -> ! {
    disconnect(host);
    loop {
        console.line(
            "locked down by the controller: no API, no network; power-cycle the node through its controller",
        );
        console.flush();
        std::thread::sleep(REPEATED_EVERY);
    }
}

/// **Takes every network interface down**, except the loopback. Where this is no ramdisk it only says what it would have
/// done: a machine that somebody works at must not vanish from its network.
pub fn disconnect(host: &Host) {
    let names = host.names("/sys/class/net").unwrap_or_default();
    // Entries that are no interface (`bonding_masters`) have no index.
    let is_link =
        |name: &String| name != "lo" && host.path(format!("/sys/class/net/{name}/ifindex")).exists();
    let names: Vec<_> = names.into_iter().filter(is_link).collect();
    if !disk::Policy::detect(host, None).in_ramdisk {
        tracing::warn!(
            interfaces = names.join(", "),
            "locked down; the network stays up, for this is no ramdisk"
        );
        return;
    }
    for name in names {
        match host.kernel().set_link_down(&name) {
            Ok(()) => tracing::warn!(interface = name, "locked down: interface taken down"),
            Err(error) => {
                tracing::error!(interface = name, %error, "locked down, but the interface stays up")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use sys::fake::{Call, FakeRunner, RecordingKernel};

    #[test]
    fn all_interfaces_of_a_ramdisk_go_down_and_none_of_another_machine() {
        for (root_type, down) in [("rootfs", vec!["eth0", "wlan0"]), ("ext4", vec![])] {
            let root = tempfile::tempdir().unwrap();
            let write = |path: &str, text: &str| {
                let path = root.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            };
            for name in ["lo", "eth0", "wlan0"] {
                write(&format!("sys/class/net/{name}/ifindex"), "1\n");
            }
            write("sys/class/net/bonding_masters", "");
            write("proc/self/mountinfo", &format!("1 1 0:2 / / rw - {root_type} x rw\n"));
            let kernel = Arc::new(RecordingKernel::default());
            let host = Host::new(root.path(), Arc::new(FakeRunner::default()), kernel.clone());
            disconnect(&host);
            let expected: Vec<_> = down.iter().map(|name| Call::SetLinkDown((*name).into())).collect();
            assert_eq!(kernel.calls(), expected, "{root_type}");
        }
    }
}
