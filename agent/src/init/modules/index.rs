//! The index that depmod makes: which files a module needs, which module an alias names. See modules.dep(5).

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use sys::Host;

use super::pattern;

/// The largest index file that is read. Debian's largest has 1.6 MB.
const LARGEST: u64 = 32 * 1024 * 1024;
/// How deep soft dependencies may name each other.
const DEEPEST: usize = 16;

/// The modules of this ramdisk.
#[derive(Debug, Default)]
pub(super) struct Index {
    modules: HashMap<String, Module>,
    /// Aliases without wildcards.
    exact: HashMap<String, Vec<String>>,
    /// Aliases with wildcards, by what stands before the first colon: that alone rules out nearly all of them.
    patterns: HashMap<String, Vec<(String, String)>>,
    soft: HashMap<String, Soft>,
    builtin: HashSet<String>,
}

#[derive(Debug)]
struct Module {
    file: PathBuf,
    /// All that must be loaded before, the last one first.
    needs: Vec<String>,
}

#[derive(Debug, Default)]
struct Soft {
    before: Vec<String>,
    after: Vec<String>,
}

impl Index {
    /// Reads the index of a kernel release. What is missing counts as empty.
    pub(super) fn read(host: &Host, release: &str) -> Self {
        let folder = PathBuf::from("/lib/modules").join(release);
        let text = |name: &str| {
            let path = host.path(folder.join(name));
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.len() > LARGEST => {
                    tracing::warn!(path = %path.display(), bytes = metadata.len(), "module index is too large");
                    String::new()
                }
                _ => {
                    std::fs::read(&path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
                }
            }
        };
        let mut index = Self::default();
        index.add_dependencies(&host.path(&folder), &text("modules.dep"));
        index.add_aliases(&text("modules.alias"));
        index.add_soft_dependencies(&text("modules.softdep"));
        index.builtin = text("modules.builtin").lines().map(|line| name_of(line.trim())).collect();
        index
    }

    /// `kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko ...`
    fn add_dependencies(&mut self, folder: &std::path::Path, text: &str) {
        for line in text.lines() {
            let Some((file, needs)) = line.split_once(':') else { continue };
            let module = Module {
                file: folder.join(file.trim()),
                needs: needs.split_whitespace().map(name_of).collect(),
            };
            self.modules.insert(name_of(file.trim()), module);
        }
    }

    /// `alias PATTERN MODULE`
    fn add_aliases(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("alias"), Some(alias), Some(module)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let module = normal(module);
            if alias.contains(['*', '?', '[', '\\']) {
                self.patterns.entry(bucket(alias).into()).or_default().push((alias.into(), module));
            } else {
                self.exact.entry(normal(alias)).or_default().push(module);
            }
        }
    }

    /// `softdep MODULE pre: A B post: C`
    fn add_soft_dependencies(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { continue };
            let soft = self.soft.entry(normal(module)).or_default();
            let mut list = None;
            for word in words {
                match (word, &list) {
                    ("pre:", _) => list = Some(false),
                    ("post:", _) => list = Some(true),
                    (name, Some(false)) => soft.before.push(normal(name)),
                    (name, Some(true)) => soft.after.push(normal(name)),
                    (_, None) => {}
                }
            }
        }
    }

    /// How many modules there are.
    pub(super) fn len(&self) -> usize {
        self.modules.len()
    }

    /// Where a module's file is.
    pub(super) fn file(&self, module: &str) -> Option<&std::path::Path> {
        self.modules.get(module).map(|module| module.file.as_path())
    }

    /// The modules that an alias names: of devices (`pci:v...`), of the kernel's own requests (`fs-vfat`), or a module's name.
    pub(super) fn resolve(&self, alias: &str) -> Vec<&str> {
        let plain = normal(alias);
        let mut found: Vec<&str> = self.exact.get(&plain).into_iter().flatten().map(String::as_str).collect();
        let own = self.patterns.get(bucket(alias)).into_iter().flatten();
        let any = self.patterns.get("").into_iter().flatten().filter(|_| !bucket(alias).is_empty());
        for (pattern, module) in own.chain(any) {
            if !found.contains(&module.as_str()) && pattern::matches(pattern, alias) {
                found.push(module);
            }
        }
        if let Some((name, _)) = self.modules.get_key_value(&plain).filter(|_| found.is_empty()) {
            found.push(name);
        }
        found
    }

    /// Everything to load for a module, in order: soft dependencies, dependencies, itself, what should follow it. Built-in
    /// and missing modules are left out.
    pub(super) fn load_order<'a>(&'a self, module: &'a str) -> Vec<&'a str> {
        let mut order = Vec::new();
        self.add_to_order(module, &mut order, &mut HashSet::new(), 0);
        order
    }

    fn add_to_order<'a>(
        &'a self,
        module: &'a str,
        order: &mut Vec<&'a str>,
        visited: &mut HashSet<&'a str>,
        depth: usize,
    ) {
        if depth > DEEPEST || !visited.insert(module) {
            return;
        }
        let soft = self.soft.get(module);
        for name in soft.map(|soft| soft.before.as_slice()).unwrap_or_default() {
            for target in self.resolve(name) {
                self.add_to_order(target, order, visited, depth + 1);
            }
        }
        if let Some((name, found)) =
            self.modules.get_key_value(module).filter(|_| !self.builtin.contains(module))
        {
            for need in found.needs.iter().rev() {
                self.add_to_order(need, order, visited, depth + 1);
            }
            order.push(name);
        }
        for name in soft.map(|soft| soft.after.as_slice()).unwrap_or_default() {
            for target in self.resolve(name) {
                self.add_to_order(target, order, visited, depth + 1);
            }
        }
    }
}

/// `kernel/drivers/net/e1000e/e1000e.ko.xz` is `e1000e`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split(".ko").next().unwrap_or(file))
}

/// `-` and `_` are the same in names.
pub(super) fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// What stands before the first colon, if no wildcard does: `pci`, `usb`, `virtio`.
fn bucket(alias: &str) -> &str {
    let literal = alias.split(['*', '?', '[', '\\']).next().unwrap_or_default();
    literal.split_once(':').map_or("", |(bus, _)| bus)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A machine with a small index, as depmod writes it.
    pub(in super::super) fn fixture() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("lib/modules/6.1.0");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        std::fs::write(root.path().join("proc/sys/kernel/osrelease"), "6.1.0\n").unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write(
            "modules.dep",
            "kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko\n\
             kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko\n\
             kernel/net/core/failover.ko:\n\
             kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n\
             kernel/fs/jbd2/jbd2.ko:\n\
             kernel/lib/crc16.ko:\n\
             kernel/crypto/crc32c_generic.ko:\n\
             kernel/fs/nls/nls_iso8859-1.ko:\n\
             kernel/drivers/scsi/sd_mod.ko:\n\
             garbage without a separator\n",
        );
        write(
            "modules.alias",
            "# Aliases extracted from modules themselves.\n\
             alias virtio:d00000001v* virtio_net\n\
             alias crypto-crc32c crc32c_generic\n\
             alias scsi:t-0x00* sd_mod\n\
             alias *odd* failover\n\
             alias fs-ext4 ext4\n\
             alias broken\n",
        );
        write(
            "modules.softdep",
            "softdep ext4 pre: crypto-crc32c\nsoftdep failover post: failover net_failover\n",
        );
        write("modules.builtin", "kernel/lib/crc16.ko\n");
        root
    }

    fn index(root: &tempfile::TempDir) -> Index {
        Index::read(&sys::fake::host(root.path()), "6.1.0")
    }

    #[test]
    fn dependencies_come_before_what_needs_them_and_builtin_ones_not_at_all() {
        let root = fixture();
        let index = index(&root);
        assert_eq!(index.load_order("ext4"), ["crc32c_generic", "jbd2", "ext4"]);
        assert_eq!(index.load_order("no_such_module"), Vec::<&str>::new());
        assert_eq!(index.load_order("crc16"), Vec::<&str>::new());
    }

    #[test]
    fn soft_dependencies_in_a_circle_end() {
        let root = fixture();
        let index = index(&root);
        assert_eq!(index.load_order("failover"), ["failover", "net_failover"]);
        let order = index.load_order("virtio_net");
        assert_eq!(order.last(), Some(&"virtio_net"));
        assert_eq!(order.len(), 3);
    }

    #[test]
    fn aliases_of_devices_of_the_kernel_and_names_resolve() {
        let root = fixture();
        let index = index(&root);
        assert_eq!(index.resolve("virtio:d00000001v00001AF4"), ["virtio_net"]);
        assert_eq!(index.resolve("scsi:t-0x00"), ["sd_mod"]);
        assert_eq!(index.resolve("fs-ext4"), ["ext4"]);
        assert_eq!(index.resolve("pci:odd"), ["failover"]);
        assert_eq!(index.resolve("nls-iso8859-1"), ["nls_iso8859_1"]);
        assert_eq!(index.resolve("virtio:d00000002v00001AF4"), Vec::<&str>::new());
    }

    #[test]
    fn a_ramdisk_without_an_index_has_no_modules() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Index::read(&sys::fake::host(root.path()), "6.1.0").len(), 0);
    }
}
