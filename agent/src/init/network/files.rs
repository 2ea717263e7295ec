//! What names mean on this machine: `/etc/resolv.conf`, `/etc/hosts`, the host name.
//!
//! Both files may be in the ramdisk already (`--add`, virtual media): what they say is kept, and what is learned is added to it.

use std::io;
use std::net::IpAddr;

use sys::Host;

/// Most name servers that are written; the agent's own resolver asks no more.
const MOST_SERVERS: usize = 8;

/// What the two files said before the network was brought up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Baked {
    hosts: String,
    servers: Vec<String>,
    search: Vec<String>,
    /// `options`, `sortlist`: as they stood.
    other_lines: Vec<String>,
}

/// Name servers and search domains to write, the best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Servers {
    /// Those of the kernel command line: before the ones of the ramdisk.
    pub given: Vec<IpAddr>,
    /// Those of the network: after them. One of a single link carries its interface, `fe80::1%eth0`.
    pub learned: Vec<String>,
    pub search: Vec<String>,
}

impl Baked {
    /// Reads both files; one that is missing says nothing.
    pub(super) fn read(host: &Host) -> Self {
        let text = |path: &str| std::fs::read_to_string(host.path(path)).unwrap_or_default();
        let mut baked = Self { hosts: text("/etc/hosts"), ..Self::default() };
        for line in text("/etc/resolv.conf").lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => baked.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => baked.search = words.map(str::to_owned).collect(),
                Some(_) => baked.other_lines.push(line.to_owned()),
                None => {}
            }
        }
        baked
    }

    /// Writes `/etc/resolv.conf`, if it would say something else than it does.
    pub(super) fn write_resolv_conf(&self, host: &Host, servers: &Servers) {
        let mut text = String::new();
        let search = unique(self.search.iter().chain(&servers.search).cloned());
        if !search.is_empty() {
            text.push_str(&format!("search {}\n", search.join(" ")));
        }
        let given = servers.given.iter().map(IpAddr::to_string);
        let all = unique(given.chain(self.servers.iter().cloned()).chain(servers.learned.iter().cloned()));
        for server in all.iter().take(MOST_SERVERS) {
            text.push_str(&format!("nameserver {server}\n"));
        }
        for line in &self.other_lines {
            text.push_str(line);
            text.push('\n');
        }
        if !self.other_lines.iter().any(|line| line.starts_with("options")) {
            // Short: a name server that is gone must not hold up a lookup that has another to ask.
            text.push_str("options timeout:2 attempts:2\n");
        }
        write(host, "/etc/resolv.conf", &text);
    }

    /// Writes `/etc/hosts` and sets the host name.
    pub(super) fn name_host(&self, host: &Host, name: &str) {
        let mut text = self.hosts.clone();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for (address, name) in [("127.0.0.1", "localhost"), ("::1", "localhost"), ("127.0.1.1", name)] {
            if !self.knows(address, name) {
                text.push_str(&format!("{address} {name}\n"));
            }
        }
        write(host, "/etc/hosts", &text);
        if let Err(error) = host.kernel().set_hostname(name) {
            tracing::warn!(%error, name, "the host name cannot be set");
        }
    }

    /// Whether the hosts file of the ramdisk gives a name this address; for the host's own name, any address.
    fn knows(&self, address: &str, name: &str) -> bool {
        self.hosts.lines().any(|line| {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let is_its = words.next().is_some_and(|first| first == address || address == "127.0.1.1");
            is_its && words.any(|word| word.eq_ignore_ascii_case(name))
        })
    }
}

/// Each once, where it stood first: several servers of one network say the same.
fn unique(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

/// Replaces a file as a whole, so that nobody reads half of it.
fn write(host: &Host, absolute: &str, text: &str) {
    let path = host.path(absolute);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return;
    }
    let replace = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, text)?;
        std::fs::rename(&fresh, &path)
    };
    if let Err(error) = replace() {
        tracing::warn!(%error, file = absolute, "not written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(root: &tempfile::TempDir, name: &str) -> String {
        std::fs::read_to_string(root.path().join("etc").join(name)).unwrap()
    }

    #[test]
    fn servers_and_search_domains_are_written_each_once() {
        let root = tempfile::tempdir().unwrap();
        let host = sys::fake::host(root.path());
        let servers = Servers {
            given: vec![[10, 0, 0, 1].into()],
            learned: vec!["10.0.0.2".into(), "10.0.0.1".into(), "fe80::1%eth0".into()],
            search: vec!["a.example".into(), "b.example".into(), "a.example".into()],
        };
        Baked::read(&host).write_resolv_conf(&host, &servers);
        assert_eq!(
            text(&root, "resolv.conf"),
            "search a.example b.example\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\n\
             options timeout:2 attempts:2\n"
        );
        assert!(!root.path().join("etc/resolv.new").exists());
    }

    #[test]
    fn what_the_ramdisk_brought_is_kept_and_added_to() {
        let root = tempfile::tempdir().unwrap();
        let host = sys::fake::host(root.path());
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/hosts"), "127.0.0.1 localhost\n10.9.0.1 ironic.lab # fixed")
            .unwrap();
        std::fs::write(
            root.path().join("etc/resolv.conf"),
            "# by hand\ndomain lab.example\nnameserver 10.9.0.53\noptions ndots:2\n",
        )
        .unwrap();
        let baked = Baked::read(&host);
        let servers = Servers {
            given: vec![[10, 0, 0, 1].into()],
            learned: vec!["10.0.0.2".into()],
            search: vec!["b.example".into()],
        };
        for name in ["localhost", "node-7"] {
            baked.name_host(&host, name);
            baked.write_resolv_conf(&host, &servers);
        }
        assert_eq!(
            text(&root, "hosts"),
            "127.0.0.1 localhost\n10.9.0.1 ironic.lab # fixed\n::1 localhost\n127.0.1.1 node-7\n"
        );
        assert_eq!(
            text(&root, "resolv.conf"),
            "search lab.example b.example\nnameserver 10.0.0.1\nnameserver 10.9.0.53\nnameserver 10.0.0.2\noptions ndots:2\n"
        );
    }
}
