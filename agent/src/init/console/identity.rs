//! The banner: who this machine is, so that somebody in front of it can tell which one it is.

use sys::Host;

use crate::config::Config;
use crate::init::Network;
use crate::init::network::describe_links;
use crate::secrets::hide_by_place;

/// What the banner says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Maker and model, as the firmware tells.
    pub model: String,
    /// Serial number, as the firmware tells.
    pub serial: String,
    /// Host name.
    pub hostname: String,
    /// One line an interface: name, MAC, address or why there is none.
    pub interfaces: Vec<String>,
    /// URL of the controller, or that there is none.
    pub controller: String,
}

impl Identity {
    /// Reads it from the machine, its network (or, without one, what the kernel says of it) and its configuration, where that
    /// is known already.
    pub fn collect(host: &Host, config: Option<&Config>, network: Option<&Network>) -> Self {
        let dmi = |name: &str| host.attribute(format!("/sys/class/dmi/id/{name}"));
        let model: Vec<_> = [dmi("sys_vendor"), dmi("product_name")].into_iter().flatten().collect();
        let unknown = || "unknown".to_owned();
        let named = |parts: Vec<String>| if parts.is_empty() { unknown() } else { parts.join(" ") };
        Self {
            model: named(model),
            serial: dmi("product_serial").unwrap_or_else(unknown),
            hostname: host
                .attribute("/proc/sys/kernel/hostname")
                .filter(|name| name != "(none)") // the kernel's word for a name that was not set
                .unwrap_or_else(unknown),
            interfaces: network.map_or_else(|| describe_links(host), Network::describe),
            controller: config.map_or_else(|| "not known yet".into(), controller),
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let rule = "-".repeat(72);
        let mut lines = vec![
            String::new(),
            rule.clone(),
            format!(" Ferric agent {}", env!("CARGO_PKG_VERSION")),
            format!(" machine     {} (serial {})", self.model, self.serial),
            format!(" host name   {}", self.hostname),
        ];
        for (number, interface) in self.interfaces.iter().enumerate() {
            let label = if number == 0 { "network" } else { "" };
            lines.push(format!(" {label:11} {interface}"));
        }
        if self.interfaces.is_empty() {
            lines.push(" network     no network interface".into());
        }
        lines.push(format!(" controller  {}", self.controller));
        lines.push(rule);
        lines
    }
}

/// The URL of the controller and who gave it, or that there is none.
fn controller(config: &Config) -> String {
    let urls = &config.api_url;
    if urls.is_mdns() || (urls.is_empty() && *config.mdns_use) {
        "to be found on the local network (mDNS)".into()
    } else if urls.is_empty() {
        "none given (kernel parameter ipa-api-url, or api_url in a configuration file)".into()
    } else {
        let urls_text = hide_by_place(urls.join(", ").as_bytes()); // no passwords on consoles
        format!("{} ({})", String::from_utf8_lossy(&urls_text), urls.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_tells_machine_host_network_and_controller() {
        let root = tempfile::tempdir().unwrap();
        let dmi = root.path().join("sys/class/dmi/id");
        std::fs::create_dir_all(&dmi).unwrap();
        std::fs::write(dmi.join("sys_vendor"), "ACME\n").unwrap();
        std::fs::write(dmi.join("product_serial"), "S-1\n").unwrap();
        let host = sys::fake::host(root.path());
        let config = |cmdline: &str, values: &[(&str, &str)]| {
            let values = values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let overrides = crate::config::Overrides { values, ..Default::default() };
            Config::load(&host, &crate::cmdline::Cmdline::parse(cmdline), &overrides).unwrap().0
        };
        let known = config("ipa-api-url=http://10.0.2.2:6385", &[]);
        let mut identity = Identity::collect(&host, Some(&known), None);
        identity.interfaces = vec!["eth0 up".into(), "eth1 no carrier".into()];
        let text = identity.lines().join("\n");
        for part in ["ACME (serial S-1)", "network     eth0 up", "            eth1", "http://10.0.2.2:6385"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(identity.controller.ends_with("(kernel parameter ipa-api-url)"), "{}", identity.controller);
        for (values, expected) in [
            (&[("api_url", "http://a,http://b")][..], "http://a, http://b (command line)"),
            (&[("api_url", "mdns")], "to be found on the local network (mDNS)"),
            (&[("mdns.use_mdns", "true")], "to be found on the local network (mDNS)"),
            (&[], "none given (kernel parameter ipa-api-url, or api_url in a configuration file)"),
        ] {
            assert_eq!(controller(&config("", values)), expected);
        }
    }
}
