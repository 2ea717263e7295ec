//! The processors, from `/proc/cpuinfo` and the topology in sysfs, in the words of `lscpu`.

use std::collections::BTreeSet;

use sys::Host;
use wire::Cpu;

const CPUS: &str = "/sys/devices/system/cpu";

/// Reads the processors. What can not be read stays empty.
pub(crate) fn read(host: &Host) -> Cpu {
    let cpuinfo = host.attribute("/proc/cpuinfo").unwrap_or_default();
    let field = |names: &[&str]| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| names.contains(&key.trim())).map(|(_, value)| value.trim().to_owned())
    };
    let processors = cpuinfo.lines().filter(|line| is_key(line, "processor")).count();
    let model = field(&["model name", "cpu model"]).filter(|name| !name.is_empty());
    let part = || arm_name(&field(&["CPU implementer"])?, &field(&["CPU part"])?);
    Cpu {
        model_name: Some(model.or_else(part).unwrap_or_default()),
        frequency: frequency(host).unwrap_or_default(),
        count: present(host).unwrap_or_else(|| u32::try_from(processors).unwrap_or(u32::MAX)),
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

/// How many processors are plugged in, those that are switched off included: a list such as `0-3,8`.
fn present(host: &Host) -> Option<u32> {
    let mut count: u32 = 0;
    for range in host.attribute(format!("{CPUS}/present"))?.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

/// The greatest frequency of any processor in MHz with four decimals, as `lscpu` prints its `CPU max MHz`; nothing where the
/// kernel does not scale frequencies: what a processor happens to run at this moment describes no machine, and lscpu has
/// stopped to say it.
fn frequency(host: &Host) -> Option<String> {
    let names = host.names(CPUS).unwrap_or_default();
    let greatest = |name: &String| host.number::<u64>(format!("{CPUS}/{name}/cpufreq/cpuinfo_max_freq"));
    let khz = names.iter().filter_map(greatest).max()?;
    Some(format!("{}.{:04}", khz / 1000, khz % 1000 * 10))
}

/// The name that lscpu gives to the cores of servers, whose kernel tells numbers alone. Source: ARM's and the makers' MIDR values.
fn arm_name(implementer: &str, part: &str) -> Option<String> {
    let name = match (implementer, part) {
        ("0x41", "0xd07") => "Cortex-A57",
        ("0x41", "0xd08") => "Cortex-A72",
        ("0x41", "0xd0c") => "Neoverse-N1",
        ("0x41", "0xd40") => "Neoverse-V1",
        ("0x41", "0xd49") => "Neoverse-N2",
        ("0x41", "0xd4f") => "Neoverse-V2",
        ("0x43", "0x0a1") => "ThunderX-88XX",
        ("0x43", "0x0af") => "ThunderX2-99xx",
        ("0x46", "0x001") => "A64FX",
        ("0x48", "0xd01") => "TaiShan-v110",
        ("0xc0", "0xac3") => "Ampere-1",
        ("0xc0", "0xac4") => "Ampere-1a",
        _ => return None,
    };
    Some(name.into())
}

/// How many physical packages there are: by sysfs on every architecture, by `/proc/cpuinfo` where sysfs is silent.
fn sockets(host: &Host, cpuinfo: &str) -> Option<u32> {
    let mut packages = BTreeSet::new();
    for name in host.names(CPUS).unwrap_or_default() {
        let number =
            name.strip_prefix("cpu").filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if number.is_some() {
            let package = format!("{CPUS}/{name}/topology/physical_package_id");
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
        // Not the 2445.404 MHz of this moment.
        assert_eq!((cpu.frequency.as_str(), cpu.flags), ("", vec!["fpu".to_owned(), "vme".into()]));
    }

    #[test]
    fn sysfs_beats_cpuinfo_for_frequency_count_and_sockets() {
        let machine = Fixture::new()
            .file("/proc/cpuinfo", TWO_SOCKETS)
            .file("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "2500000\n")
            .file("/sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq", "3500050\n")
            .file("/sys/devices/system/cpu/present", "0-3,8\n")
            .file("/sys/devices/system/cpu/cpu0/topology/physical_package_id", "0\n")
            .file("/sys/devices/system/cpu/cpu1/topology/physical_package_id", "0\n")
            .directory("/sys/devices/system/cpu/cpufreq");
        let cpu = read(&machine.host());
        assert_eq!((cpu.frequency.as_str(), cpu.count, cpu.socket_count), ("3500.0500", 5, Some(1)));
    }

    #[test]
    fn arm_features_are_flags_and_nothing_is_invented() {
        let machine = Fixture::new().file("/proc/cpuinfo", "processor : 0\nFeatures : fp asimd\n");
        let cpu = read(&machine.host());
        assert_eq!(
            (cpu.model_name.as_deref(), cpu.frequency.as_str(), cpu.socket_count),
            (Some(""), "", None)
        );
        assert_eq!(cpu.flags, ["fp", "asimd"]);
        assert_eq!(read(&Fixture::new().host()).count, 0);
        let known = "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd0c\n";
        let cpu = read(&Fixture::new().file("/proc/cpuinfo", known).host());
        assert_eq!(cpu.model_name.as_deref(), Some("Neoverse-N1"));
    }
}
