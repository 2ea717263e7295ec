//! How much memory a process may still take.

use crate::Host;

/// Where control groups of either version are mounted. Version 1 has one hierarchy for memory.
const VERSION_2: &str = "/sys/fs/cgroup";
const VERSION_1: &str = "/sys/fs/cgroup/memory";

impl Host {
    /// Returns the bytes of memory that this process can still take: what the kernel calls available (`MemAvailable`), and no more
    /// than what its control groups leave. `None` where the kernel does not say.
    pub fn available_memory(&self) -> Option<u64> {
        let meminfo = self.attribute("/proc/meminfo")?;
        let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        let available = kib.saturating_mul(1024);
        Some(self.left_in_groups().map_or(available, |left| left.min(available)))
    }

    /// Returns what the tightest control group of this process leaves, where one has a limit.
    fn left_in_groups(&self) -> Option<u64> {
        let groups = self.attribute("/proc/self/cgroup")?;
        groups.lines().filter_map(|line| self.left_in(line)).min()
    }

    /// As [`Host::left_in_groups`], of one hierarchy: `ID:CONTROLLERS:PATH`, with the ID 0 and no controllers in version 2.
    fn left_in(&self, hierarchy: &str) -> Option<u64> {
        let (id, rest) = hierarchy.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mount, names) = match id {
            "0" => (VERSION_2, ["memory.max", "memory.current", "active_file", "inactive_file"]),
            _ if controllers.split(',').any(|name| name == "memory") => {
                let names = [
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "total_active_file",
                    "total_inactive_file",
                ];
                (VERSION_1, names)
            }
            _ => return None,
        };
        // Limits of the groups around it count as well. Inside a container, the outer part of the path is not there.
        let groups = std::path::Path::new(path.trim_start_matches('/')).ancestors();
        let folders = groups.map(|group| std::path::Path::new(mount).join(group));
        folders.filter_map(|folder| self.left_in_folder(&folder, names)).min()
    }

    fn left_in_folder(&self, folder: &std::path::Path, names: [&str; 4]) -> Option<u64> {
        let [limit, usage, active, inactive] = names;
        let limit: u64 = self.number(folder.join(limit))?;
        let usage: u64 = self.number(folder.join(usage))?;
        let statistics = self.attribute(folder.join("memory.stat")).unwrap_or_default();
        let value = |name: &str| {
            let mut lines = statistics.lines().filter_map(|line| line.split_once(' '));
            lines
                .find_map(|(key, value)| if key == name { value.trim().parse().ok() } else { None })
                .unwrap_or(0u64)
        };
        // The page cache gives way.
        let cache = value(active).saturating_add(value(inactive));
        Some(limit.saturating_sub(usage.saturating_sub(cache)))
    }
}

#[cfg(test)]
mod tests {
    const MIB: u64 = 1 << 20;

    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let file = root.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        crate::fake::host(root.path()).available_memory()
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal: 1048576 kB\nMemFree: 1 kB\nMemAvailable:    524288 kB\n");

    #[test]
    fn what_the_kernel_calls_available_counts_where_no_group_has_a_limit() {
        assert_eq!(machine(&[]), None);
        assert_eq!(machine(&[("proc/meminfo", "MemTotal: 5 kB\n")]), None);
        assert_eq!(machine(&[MEMINFO]), Some(512 * MIB));
        let unlimited = [MEMINFO, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")];
        assert_eq!(machine(&unlimited), Some(512 * MIB));
    }

    #[test]
    fn the_tightest_group_of_either_version_bounds_it_and_its_cache_gives_way() {
        let second = [
            MEMINFO,
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "104857600"),
            ("sys/fs/cgroup/outer/memory.current", "62914560"),
            ("sys/fs/cgroup/outer/memory.stat", "anon 5\nactive_file 10485760\ninactive_file 20971520\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max"),
        ];
        assert_eq!(machine(&second), Some(70 * MIB));
        let first = [
            MEMINFO,
            ("proc/self/cgroup", "3:cpuset:/\n5:memory,other:/job\n0::/\n"),
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "50331648"),
            ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1048576"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576"),
        ];
        assert_eq!(machine(&first), Some(47 * MIB));
        let used_up = [
            MEMINFO,
            ("proc/self/cgroup", "0::/job\n"),
            ("sys/fs/cgroup/job/memory.max", "1048576"),
            ("sys/fs/cgroup/job/memory.current", "2097152"),
        ];
        assert_eq!(machine(&used_up), Some(0));
    }
}
