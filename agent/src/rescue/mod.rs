//! A machine that was handed to a person: `rescue.finalize_rescue` has been answered, and the agent serves no more.
//!
//! In a ramdisk with an init of its own that init takes over (ironic-python-agent-builder's path unit). Where the agent is
//! process 1 it makes the user, starts an SSH server and login prompts where the ramdisk has them, follows the network to
//! where the conductor moves it, and says on every console what there is and what is not.

mod accounts;
mod hash;
mod tools;

pub(crate) use hash::{LONGEST_PASSWORD, is_hash};

use std::time::Duration;

use sys::Host;

use crate::init::{Console, Network};

/// Where the crypt string of the user `rescue` is left.
pub const PASSWORD_FILE: &str = "/etc/ipa-rescue-config/ipa-rescue-password";
/// Says that this boot is a rescue: an agent that finds it serves nothing.
pub const MARKER: &str = "/etc/.rescued";

/// How often the consoles are told the addresses, for whoever attaches to a serial line later.
const REPEATED_EVERY: Duration = Duration::from_secs(300);

/// What process 1 does after a rescue was finalized. Never returns: the machine is power-cycled in the end.
pub fn stay(host: &Host, console: &Console, network: &Network) -> ! {
    // The conductor is about to move the machine to another network; nothing but DHCP can tell.
    network.expect_another_network();
    for line in prepare(host) {
        console.line(&format!("rescue: {line}"));
    }
    loop {
        std::thread::sleep(REPEATED_EVERY);
        console.line(&format!("rescue: {}", network.describe().join("; ")));
        console.flush();
    }
}

/// Makes a login possible. Returns what to tell on the consoles, one line each.
fn prepare(host: &Host) -> Vec<String> {
    let busybox = tools::install_busybox(host);
    let mut lines = Vec::new();
    match accounts::create(host) {
        Ok(account) => {
            lines.push("log in as user `rescue` with the password that the controller was given".into());
            lines.push(tools::start_ssh(host, account));
        }
        Err(error) => {
            tracing::error!(error = hwm::chain(&error), "no rescue user");
            lines.push(format!("there is no user to log in as: {}", hwm::chain(&error)));
        }
    }
    lines.push(tools::start_logins(host, busybox.as_deref()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::fake::{FakeRunner, RecordingKernel};

    #[test]
    fn a_ramdisk_without_tools_says_what_it_lacks() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(
            root.path(),
            std::sync::Arc::new(FakeRunner::default()),
            std::sync::Arc::new(RecordingKernel::default()),
        );
        let text = prepare(&host).join("\n");
        assert!(text.contains("there is no user to log in as: reading /etc/ipa-rescue-config"), "{text}");
        let password = host.path(PASSWORD_FILE);
        std::fs::create_dir_all(password.parent().unwrap()).unwrap();
        std::fs::write(password, "$6$salt$hash").unwrap();
        let text = prepare(&host).join("\n");
        for part in ["log in as user `rescue`", "no SSH server", "no login prompt"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("hash"));
    }
}
