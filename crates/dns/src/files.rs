//! `/etc/hosts` and `/etc/resolv.conf`, as hosts(5) and resolv.conf(5) describe them. A file that is missing is empty.

use std::io::Read;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

/// Most that is read of either file, in bytes.
const LARGEST: u64 = 1024 * 1024;
/// Most name servers and search domains that are used.
const MOST_SERVERS: usize = 8;
const MOST_DOMAINS: usize = 16;

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Each without a port.
    pub servers: Vec<SocketAddr>,
    pub search: Vec<String>,
    /// A name with so many dots is first asked for as it stands.
    pub dots: usize,
    /// How long one question waits for its answer.
    pub patience: Duration,
    /// How often the list of servers is gone through.
    pub attempts: u32,
}

impl Settings {
    /// Reads `etc/resolv.conf` below `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let index = |interface: &str| {
            let path = root.join("sys/class/net").join(interface).join("ifindex");
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        Self::parse(&text(&root.join("etc/resolv.conf")), index)
    }

    /// `index` gives the number of an interface.
    fn parse(text: &str, index: impl Fn(&str) -> Option<u32>) -> Self {
        let mut settings = Self {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            patience: Duration::from_secs(2),
            attempts: 2,
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    if let Some(server) = words.next().and_then(|word| server(word, &index))
                        && !settings.servers.contains(&server)
                    {
                        settings.servers.push(server);
                    }
                }
                // The last of them counts.
                Some("search" | "domain") => {
                    settings.search = words
                        .map(|word| word.trim_matches('.').to_owned())
                        .filter(|w| !w.is_empty())
                        .collect();
                }
                Some("options") => words.for_each(|word| settings.option(word)),
                Some(_) | None => {}
            }
        }
        settings.servers.truncate(MOST_SERVERS);
        settings.search.truncate(MOST_DOMAINS);
        settings
    }

    fn option(&mut self, word: &str) {
        let Some((name, number)) = word.split_once(':') else { return };
        let Ok(number) = number.parse::<u32>() else { return };
        match name {
            "ndots" => self.dots = usize::try_from(number.min(15)).unwrap_or(15),
            "timeout" => self.patience = Duration::from_secs(number.clamp(1, 10).into()),
            "attempts" => self.attempts = number.clamp(1, 5),
            _ => {}
        }
    }
}

/// `192.0.2.1`, `2001:db8::1`, or `fe80::1%eth0`: a server of one link, which cannot be reached without its interface.
fn server(word: &str, index: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    match word.split_once('%') {
        None => word.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 0)),
        Some((address, interface)) => {
            let address: Ipv6Addr = address.parse().ok()?;
            let scope = interface.parse().ok().or_else(|| index(interface))?;
            Some(SocketAddrV6::new(address, 0, 0, scope).into())
        }
    }
}

/// The addresses that `/etc/hosts` gives a name, in the order of its lines.
pub(crate) fn hosts(path: &Path, name: &str) -> Vec<IpAddr> {
    let text = text(path);
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)).then_some(address)
    });
    lines.collect()
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
    if let Err(error) = read
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "reading what names mean");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn resolv_conf_is_read_as_its_manual_says() {
        let index = |name: &str| (name == "eth0").then_some(7);
        let settings = Settings::parse(
            "# made by hand\ndomain first.example\nsearch a.example b.example. ; two\nnameserver 192.0.2.1\n\
             nameserver 2001:db8::53 # comment\nnameserver nonsense\nnameserver 192.0.2.1\n\
             nameserver fe80::1%eth0\nnameserver fe80::1%gone\n\
             options ndots:2 timeout:3 rotate attempts:9 timeout:x\nsortlist 1.2.3.4\n",
            index,
        );
        let servers: Vec<_> = settings.servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:0", "[2001:db8::53]:0", "[fe80::1%7]:0"]);
        assert_eq!(settings.search, ["a.example", "b.example"]);
        assert_eq!((settings.dots, settings.attempts), (2, 5));
        assert_eq!(settings.patience, Duration::from_secs(3));
    }

    #[test]
    fn hosts_gives_every_address_of_a_name_or_an_alias() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "192.0.2.1 Ironic.Lab ironic\n2001:db8::1\tironic.lab # both families\nnonsense ironic.lab\n#192.0.2.9 ironic\n",
        )
        .unwrap();
        let found = |name: &str| hosts(file.path(), name).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(found("ironic.lab"), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(found("IRONIC"), ["192.0.2.1"]);
        assert!(found("other").is_empty());
        assert!(hosts(Path::new("/nonexistent"), "ironic").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = Settings::parse(&text, |_| None);
        }
    }
}
