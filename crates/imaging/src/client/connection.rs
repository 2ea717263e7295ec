//! One connection to a server: found, connected, encrypted, through a proxy or not, and read by lines and pieces.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use url::Url;

use super::error::HttpError;
use super::head::Head;
use super::proxy::ProxyServer;

/// Bytes that are read at a time. With 128 KiB the network thread has four times the system calls, and takes a quarter more
/// of a core (measured with 1 GiB over the loopback, a release build).
const BUFFER: usize = 512 * 1024;

/// The largest head, and the longest line of a chunk, with all its folded lines and extensions.
const LARGEST_HEAD: usize = 256 * 1024;

/// Time until the next address is tried as well (RFC 8305 section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// What bytes go over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An open connection, and what of it was received and not yet taken.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Connection {
    /// Connects to the server of `url`, through `proxy` where there is one.
    pub(super) async fn open(
        url: &Url,
        proxy: Option<&ProxyServer>,
        tls: &Arc<rustls::ClientConfig>,
        limit: Duration,
    ) -> Result<Self, HttpError> {
        let server = authority(url);
        let steps = async {
            let first = proxy.map_or(url, |proxy| &proxy.url);
            let mut stream = connect(first, proxy.is_some()).await?;
            if first.scheme() == "https" {
                stream = encrypt(stream, first, tls).await?;
            }
            let Some(proxy) = proxy.filter(|_| url.scheme() == "https") else { return Ok(stream) };
            encrypt(tunnel(stream, proxy, &server).await?, url, tls).await
        };
        let stream = timeout(limit, steps).await.unwrap_or_else(|_| {
            let text = format!("not done within {} s", limit.as_secs_f64());
            let source = io::Error::new(ErrorKind::TimedOut, text);
            Err(HttpError::Connect { server: through(&server, proxy), source })
        })?;
        Ok(Self::over(stream))
    }

    fn over(stream: Box<dyn Stream>) -> Self {
        Self { stream, buffer: vec![0; BUFFER], start: 0, end: 0 }
    }

    /// Sends the head of a request.
    pub(super) async fn send(&mut self, head: &[u8]) -> Result<(), HttpError> {
        let sent = async {
            self.stream.write_all(head).await?;
            self.stream.flush().await
        };
        sent.await.map_err(HttpError::Io)
    }

    /// Returns what was received and not taken.
    pub(super) fn available(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes bytes from [`Connection::available`].
    pub(super) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }

    /// Waits until something is available. `false` where the connection ended.
    pub(super) async fn fill(&mut self) -> Result<bool, HttpError> {
        if self.start < self.end {
            return Ok(true);
        }
        self.start = 0;
        self.end = 0;
        match self.stream.read(&mut self.buffer).await {
            Ok(count) => self.end = count,
            // A server that ends TLS without saying so. Whether bytes are missing is for the framing and the digest to tell.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(HttpError::Io(error)),
        }
        Ok(self.end > 0)
    }

    /// Reads a line, without its end. `None` where the connection ended before it. `room` is how many bytes may be read, and
    /// what is left of them; of a line, only its first `keep` bytes are returned.
    async fn line(&mut self, room: &mut usize, keep: usize) -> Result<Option<Vec<u8>>, HttpError> {
        let mut line = Vec::new();
        let mut is_empty = true;
        while self.fill().await? {
            is_empty = false;
            let available = self.available();
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            let kept = part.len().min(keep.saturating_sub(line.len()));
            line.extend_from_slice(part.get(..kept).unwrap_or_default());
            let count = part.len() + usize::from(end.is_some());
            self.consume(count);
            *room = room.checked_sub(count).ok_or_else(|| {
                HttpError::Malformed(format!(
                    "the server sends more than {LARGEST_HEAD} bytes of header fields"
                ))
            })?;
            if end.is_some() {
                while line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Some(line));
            }
        }
        if is_empty { Ok(None) } else { Err(HttpError::Truncated) }
    }

    /// Reads the lines up to an empty one. Empty lines before the first are left out where `skip_empty`.
    async fn lines(&mut self, skip_empty: bool, room: &mut usize) -> Result<Vec<Vec<u8>>, HttpError> {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        loop {
            match self.line(room, usize::MAX).await? {
                None if lines.is_empty() => return Err(HttpError::NoAnswer),
                None => return Err(HttpError::Truncated),
                Some(line) if !line.is_empty() => lines.push(line),
                Some(_) if lines.is_empty() && skip_empty => {}
                Some(_) => return Ok(lines),
            }
        }
    }

    /// Reads the head of an answer. Interim ones (1xx) are left out.
    pub(super) async fn head(&mut self) -> Result<Head, HttpError> {
        let mut room = LARGEST_HEAD;
        loop {
            let lines = self.lines(true, &mut room).await?;
            let head = Head::parse(&lines).ok_or_else(|| {
                HttpError::Malformed(
                    "the server does not answer in HTTP/1; check the port of the URL".to_owned(),
                )
            })?;
            if head.status >= 200 || head.status == 101 {
                return Ok(head);
            }
        }
    }

    /// Reads the line before a chunk, and returns the chunk's length. Its extension is read over.
    pub(super) async fn chunk_length(&mut self) -> Result<u64, HttpError> {
        // No length has more characters than these.
        const LENGTH: usize = 64;
        let line = self.line(&mut { LARGEST_HEAD }, LENGTH).await?.ok_or(HttpError::Truncated)?;
        super::head::chunk_length(&line)
            .ok_or_else(|| HttpError::Malformed("the server sends a chunk without a length".to_owned()))
    }

    /// Reads the end of a chunk's line.
    pub(super) async fn chunk_end(&mut self) -> Result<(), HttpError> {
        match self.line(&mut { LARGEST_HEAD }, 1).await? {
            Some(line) if line.is_empty() => Ok(()),
            Some(_) => {
                Err(HttpError::Malformed("the server sends a chunk that is longer than it says".to_owned()))
            }
            None => Err(HttpError::Truncated),
        }
    }

    /// Reads the fields behind the last chunk. They are of no use here.
    pub(super) async fn trailers(&mut self) -> Result<(), HttpError> {
        self.lines(false, &mut { LARGEST_HEAD }).await.map(drop)
    }
}

/// Host and port of a URL, as they stand in `Host` and `CONNECT`; the port always.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default().map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

fn through(server: &str, proxy: Option<&ProxyServer>) -> String {
    match proxy {
        Some(proxy) => format!("{server} through proxy {}", authority(&proxy.url)),
        None => server.to_owned(),
    }
}

/// Connects to one of the addresses of a host: the next is tried where one fails or does not answer soon.
async fn connect(url: &Url, is_proxy: bool) -> Result<Box<dyn Stream>, HttpError> {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let server = match is_proxy {
        true => format!("proxy {}", authority(url)),
        false => authority(url),
    };
    let port = url.port_or_known_default().unwrap_or(80);
    let mut addresses = by_turns(resolve(&host, port).await?);
    let mut tries = JoinSet::new();
    let mut last = io::Error::new(ErrorKind::NotFound, "it has no address");
    loop {
        if let Some(address) = addresses.pop_front() {
            tries.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        if tries.is_empty() {
            return Err(HttpError::Connect { server, source: last });
        }
        let result = tokio::select! {
            result = tries.join_next() => result,
            () = sleep(NEXT_ADDRESS), if !addresses.is_empty() => None,
        };
        match result {
            Some(Ok((_, Ok(stream)))) => {
                // Heads are small and waited for. A socket without the option works, only later.
                let _ = stream.set_nodelay(true);
                return Ok(Box::new(stream));
            }
            Some(Ok((address, Err(error)))) => {
                tracing::debug!(%address, %error, "connecting failed");
                last = error;
            }
            Some(Err(error)) => last = io::Error::other(error),
            None => {}
        }
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, HttpError> {
    dns::Resolver::system().lookup(host, port).await.map_err(HttpError::Resolve)
}

/// Addresses of both families by turns, in the resolver's order otherwise.
fn by_turns(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = VecDeque::new();
    loop {
        let before = all.len();
        all.extend(one.next());
        all.extend(other.next());
        if all.len() == before {
            return all;
        }
    }
}

async fn encrypt(
    stream: Box<dyn Stream>,
    url: &Url,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<Box<dyn Stream>, HttpError> {
    let failed = |source| HttpError::Tls { server: authority(url), source };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    // A name with a dot at its end is the same name; certificates are made out to the one without.
    let host = host.strip_suffix('.').unwrap_or(host).to_owned();
    let name =
        ServerName::try_from(host).map_err(|error| failed(io::Error::new(ErrorKind::InvalidInput, error)))?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(failed)?;
    Ok(Box::new(stream))
}

/// Has the proxy connect to the server.
async fn tunnel(
    stream: Box<dyn Stream>,
    proxy: &ProxyServer,
    server: &str,
) -> Result<Box<dyn Stream>, HttpError> {
    let mut connection = Connection::over(stream);
    let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request += &format!("Proxy-Authorization: {}\r\n", authorization.expose());
    }
    connection.send(format!("{request}\r\n").as_bytes()).await?;
    let head = connection.head().await?;
    if !(200..300).contains(&head.status) {
        let (proxy, server) = (authority(&proxy.url), server.to_owned());
        return Err(HttpError::Tunnel { proxy, server, status: head.status });
    }
    if !connection.available().is_empty() {
        // Servers of TLS do not speak first.
        return Err(HttpError::Malformed(format!(
            "proxy {} sends more than its answer",
            authority(&proxy.url)
        )));
    }
    Ok(connection.stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_come_by_turns() {
        let all = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(|text| text.parse().unwrap());
        let order: Vec<String> = by_turns(all.into()).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
        assert!(by_turns(Vec::new()).is_empty());
    }
}
