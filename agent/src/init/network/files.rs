//! What names mean on this machine: `/etc/resolv.conf`, `/etc/hosts`, the host name.
//!
//! musl reads nothing else, and without these files it asks 127.0.0.1 and blocks for five seconds, even for `localhost`.

use std::io;
use std::net::IpAddr;

use sys::Host;

/// musl asks at most three servers.
const MOST_SERVERS: usize = 3;

/// Writes `/etc/resolv.conf`, if it would say something else than it does.
pub(super) fn write_resolv_conf(host: &Host, servers: &[IpAddr], search: &[String]) {
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in servers.iter().take(MOST_SERVERS) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    // Short: a name server that is gone must not hold up a lookup that has another to ask.
    text.push_str("options timeout:2 attempts:2\n");
    write(host, "/etc/resolv.conf", &text);
}

/// Writes `/etc/hosts` and sets the host name.
pub(super) fn name_host(host: &Host, name: &str) {
    write(host, "/etc/hosts", &format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n"));
    if let Err(error) = host.kernel().set_hostname(name) {
        tracing::warn!(%error, name, "the host name can not be set");
    }
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

    #[test]
    fn servers_and_search_domains_are_written_and_no_more_than_musl_reads() {
        let root = tempfile::tempdir().unwrap();
        let host = sys::fake::host(root.path());
        let servers: Vec<IpAddr> = (1..=5).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        write_resolv_conf(&host, &servers, &["a.example".into(), "b.example".into()]);
        let text = std::fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap();
        assert_eq!(
            text,
            "search a.example b.example\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n\
             options timeout:2 attempts:2\n"
        );
        assert!(!root.path().join("etc/resolv.new").exists());
    }
}
