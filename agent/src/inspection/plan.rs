//! What the configuration wants of inspection: where to, with which collectors, and how patient to be.

use std::time::Duration;

use crate::config::Config;

/// The collectors where the configuration names none.
const DEFAULT: [&str; 2] = ["default", "logs"];

/// How to wait for addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpWait {
    /// The interface that the machine booted from, as the boot loader wrote it.
    pub boot_interface: Option<String>,
    /// Whether every interface has to have one.
    pub all_interfaces: bool,
    /// How long.
    pub limit: Duration,
}

/// One inspection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where the data go: tried in turn until one answers.
    pub urls: Vec<String>,
    /// The names of the collectors, in order, known or not.
    pub names: Vec<String>,
    /// Nothing: do not wait.
    pub dhcp: Option<DhcpWait>,
    /// How often to look for a disk that an image could go to; 0 and 1 are once.
    pub disk_looks: u32,
    /// Pause between those looks.
    pub disk_pause: Duration,
    /// The benchmarks that the collector `extra-hardware` is asked for.
    pub benchmarks: Vec<String>,
}

impl Plan {
    /// `None` when no inspection is wanted: it is when there is a URL to post to, or when collectors are named and there is a
    /// conductor.
    pub fn of(config: &Config) -> Option<Self> {
        let callback = config.inspection_callback_url.as_deref().unwrap_or_default();
        let mut urls: Vec<String> =
            callback.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect();
        if urls.is_empty() {
            let named = config.inspection_collectors.as_ref().is_some_and(|names| !names.is_empty());
            let path = |url: &String| format!("{}/v1/continue_inspection", url.trim_end_matches('/'));
            urls = config.api_url.iter().filter(|_| named).map(path).collect();
        }
        (!urls.is_empty()).then(|| Self { urls, ..Self::without_urls(config) })
    }

    /// The same without anywhere to post to.
    pub fn without_urls(config: &Config) -> Self {
        let names = config.inspection_collectors.value.clone().unwrap_or_default();
        let names = names.into_iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let mut names: Vec<String> = names.collect();
        if names.is_empty() {
            names = DEFAULT.map(str::to_owned).into();
        }
        let limit = *config.inspection_dhcp_wait_timeout;
        let dhcp = DhcpWait {
            boot_interface: config.boot_interface.value.clone(),
            all_interfaces: *config.inspection_dhcp_all_interfaces,
            limit,
        };
        Self {
            urls: Vec::new(),
            names,
            dhcp: (limit > Duration::ZERO).then_some(dhcp),
            disk_looks: *config.disk_wait_attempts,
            disk_pause: *config.disk_wait_delay,
            benchmarks: config.inspection_benchmarks.value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::Cmdline;
    use crate::config::Overrides;

    fn plan(cmdline: &str) -> Option<Plan> {
        let host = sys::fake::host("/nonexistent");
        let (config, _) = Config::load(&host, &Cmdline::parse(cmdline), &Overrides::default()).unwrap();
        Plan::of(&config)
    }

    #[test]
    fn inspection_is_wanted_with_a_callback_or_with_collectors_and_a_conductor() {
        assert_eq!(plan(""), None);
        assert_eq!(plan("ipa-api-url=http://a"), None);
        assert_eq!(plan("ipa-inspection-collectors=default"), None);
        let both = plan("ipa-api-url=http://a/,http://b ipa-inspection-collectors=logs").unwrap();
        assert_eq!(both.urls, ["http://a/v1/continue_inspection", "http://b/v1/continue_inspection"]);
        assert_eq!(both.names, ["logs"]);
    }

    #[test]
    fn callback_urls_are_verbatim_and_beat_the_conductors() {
        let plan =
            plan("ipa-api-url=http://a ipa-inspection-callback-url=http://c/x/?y,https://d/v1/continue")
                .unwrap();
        assert_eq!(plan.urls, ["http://c/x/?y", "https://d/v1/continue"]);
        assert_eq!(plan.names, ["default", "logs"]);
    }

    #[test]
    fn waiting_for_addresses_can_be_switched_off() {
        let wait = |more: &str| plan(&format!("ipa-inspection-callback-url=http://c {more}")).unwrap().dhcp;
        let expected = DhcpWait {
            boot_interface: Some("01-52-54-00-00-00-01".into()),
            all_interfaces: false,
            limit: Duration::from_secs(60),
        };
        assert_eq!(wait("BOOTIF=01-52-54-00-00-00-01"), Some(expected));
        assert_eq!(wait("ipa-inspection-dhcp-wait-timeout=0"), None);
        assert!(wait("ipa-inspection-dhcp-all-interfaces=1").unwrap().all_interfaces);
    }
}
