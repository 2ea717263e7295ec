//! Timers for a statsd server: one UDP datagram each, `name:milliseconds|ms`, sent and forgotten.
//! Source: ironic-python-agent `metrics_lib` (agent protocol page, 7.3).

use std::net::UdpSocket;
use std::time::Duration;

/// The module that ironic-python-agent names its timers after.
const MODULE: &str = "ironic_python_agent.api.app";

/// The statsd server can not be used.
#[derive(Debug, thiserror::Error)]
#[error("statsd server {server} can not be used")]
pub(super) struct StatsdError {
    server: String,
    #[source]
    source: std::io::Error,
}

/// A statsd server.
pub(super) struct Statsd {
    socket: UdpSocket,
    prefix: String,
}

impl Statsd {
    /// Looks the server up and opens a socket towards it. Blocks for as long as a name takes.
    pub(super) fn open(host: &str, port: u16, prefix: String) -> Result<Self, StatsdError> {
        let open = || {
            let found = dns::Resolver::system().resolve(host, port).map_err(std::io::Error::other)?;
            let address = *found.first().ok_or(std::io::ErrorKind::NotFound)?;
            let own = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(own)?;
            socket.set_nonblocking(true)?;
            socket.connect(address)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| StatsdError { server: format!("{host}:{port}"), source })?;
        Ok(Self { socket, prefix })
    }

    /// Sends how long something took.
    pub(super) fn timer(&self, name: &str, took: Duration) {
        let datagram = format!("{}.{name}:{:.3}|ms", self.prefix, took.as_secs_f64() * 1000.0);
        if let Err(error) = self.socket.send(datagram.as_bytes()) {
            tracing::debug!(%error, "a statsd timer was not sent");
        }
    }
}

/// What stands before the name of a timer: `[global.][host.]module`.
///
/// A host name is reversed by default (`box.example.org` becomes `org.example.box`), so that domains are branches of a tree.
pub(super) fn prefix(global: Option<&str>, host: Option<&str>, reverse: bool) -> String {
    let host = host.map(|host| {
        let mut labels: Vec<_> = host.split('.').collect();
        if reverse {
            labels.reverse();
        }
        labels.join(".")
    });
    let parts = [global.map(str::to_owned), host, Some(MODULE.to_owned())];
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_follow_the_options() {
        assert_eq!(prefix(None, None, true), MODULE);
        assert_eq!(
            prefix(Some("lab"), Some("box.example.org"), true),
            format!("lab.org.example.box.{MODULE}")
        );
        assert_eq!(prefix(Some(""), Some("box.example.org"), false), format!("box.example.org.{MODULE}"));
    }

    #[test]
    fn a_timer_is_one_datagram() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let port = server.local_addr().unwrap().port();
        let statsd = Statsd::open("127.0.0.1", port, prefix(Some("lab"), None, true)).unwrap();
        statsd.timer("get_status", Duration::from_micros(1500));
        let mut datagram = [0; 200];
        let length = server.recv(&mut datagram).unwrap();
        assert_eq!(&datagram[..length], b"lab.ironic_python_agent.api.app.get_status:1.500|ms");
        assert!(Statsd::open("no.such.host.invalid", 1, String::new()).is_err());
    }
}
