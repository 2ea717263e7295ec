//! The processors, from `/proc/cpuinfo` and the topology in sysfs, in the words of `lscpu`.

use std::collections::BTreeSet;

use sys::Host;
use wire::Cpu;

/// Reads the processors. What can not be read stays empty.
pub(crate) fn read(host: &Host) -> Cpu {
    let cpuinfo = host.attribute("/proc/cpuinfo").unwrap_or_default();
    let field = |names: &[&str]| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| names.contains(&key.trim())).map(|(_, value)| value.trim().to_owned())
    };
    let processors = cpuinfo.lines().filter(|line| is_key(line, "processor")).count();
    Cpu {
        model_name: field(&["model name", "cpu model"]).filter(|name| !name.is_empty()),
        frequency: frequency(host).or_else(|| field(&["cpu MHz"])).unwrap_or_default(),
        count: u32::try_from(processors).unwrap_or(u32::MAX),
        architecture: std::env::consts::ARCH.into(),
        flags: field(&["flags", "Features"])
            .map(|flags| flags.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default(),
        socket_count: sockets(host, &cpuinfo),
    }
}

fn is_key(line: &str, key: &str) -> bool {
    line.split_once(':').is_some_and(|(name, _)| name.trim() == key)
}

/// The greatest frequency in MHz with four decimals, as `lscpu` prints it.
fn frequency(host: &Host) -> Option<String> {
    let khz: u64 = host.number("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")?;
    Some(format!("{}.{:04}", khz / 1000, khz % 1000 * 10))
}

/// How many physical packages there are: by sysfs on every architecture, by `/proc/cpuinfo` where sysfs is silent.
fn sockets(host: &Host, cpuinfo: &str) -> Option<u32> {
    let mut packages = BTreeSet::new();
    for name in host.names("/sys/devices/system/cpu").unwrap_or_default() {
        let number =
            name.strip_prefix("cpu").filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if number.is_some() {
            let package = format!("/sys/devices/system/cpu/{name}/topology/physical_package_id");
            packages.extend(host.attribute(package).filter(|id| id != "-1"));
        }
    }
    if packages.is_empty() {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        packages
            .extend(lines.filter(|(key, _)| key.trim() == "physical id").map(|(_, id)| id.trim().to_owned()));
    }
    u32::try_from(packages.len()).ok().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;

    const TWO_SOCKETS: &str = "processor\t: 0\nmodel name\t: AMD EPYC\ncpu MHz\t\t: 2445.404\nphysical id\t: 0\n\
        flags\t\t: fpu vme\n\nprocessor\t: 1\nmodel name\t: AMD EPYC\nphysical id\t: 1\nflags\t\t: fpu vme\n";

    #[test]
    fn counts_model_and_flags_come_from_cpuinfo() {
        let machine = Fixture::new().file("/proc/cpuinfo", TWO_SOCKETS);
        let cpu = read(&machine.host());
        assert_eq!((cpu.model_name.as_deref(), cpu.count, cpu.socket_count), (Some("AMD EPYC"), 2, Some(2)));
        assert_eq!((cpu.frequency.as_str(), cpu.flags), ("2445.404", vec!["fpu".to_owned(), "vme".into()]));
    }

    #[test]
    fn sysfs_beats_cpuinfo_for_frequency_and_sockets() {
        let machine = Fixture::new()
            .file("/proc/cpuinfo", TWO_SOCKETS)
            .file("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "3500050\n")
            .file("/sys/devices/system/cpu/cpu0/topology/physical_package_id", "0\n")
            .file("/sys/devices/system/cpu/cpu1/topology/physical_package_id", "0\n")
            .directory("/sys/devices/system/cpu/cpufreq");
        let cpu = read(&machine.host());
        assert_eq!((cpu.frequency.as_str(), cpu.socket_count), ("3500.0500", Some(1)));
    }

    #[test]
    fn arm_features_are_flags_and_nothing_is_invented() {
        let machine = Fixture::new().file("/proc/cpuinfo", "processor : 0\nFeatures : fp asimd\n");
        let cpu = read(&machine.host());
        assert_eq!((cpu.model_name, cpu.frequency.as_str(), cpu.socket_count), (None, "", None));
        assert_eq!(cpu.flags, ["fp", "asimd"]);
        assert_eq!(read(&Fixture::new().host()).count, 0);
    }
}
