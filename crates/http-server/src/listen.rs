//! Listening sockets: TCP for peers on a network, a Unix socket for programs of this host.

use std::fs;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use nix::sys::socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// Connections that wait in the kernel's queue.
const BACKLOG: u32 = 1024;
/// How long a peer may leave data unacknowledged, or its window closed, before it counts as gone, in milliseconds.
const UNACKNOWLEDGED: u32 = 60_000;

/// A socket that accepts connections.
pub trait Listen: Send {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static;

    /// Returns the next connection and the address of its peer.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, IpAddr)>> + Send;

    /// Sets the options of a connection.
    fn prepare(stream: &Self::Stream) -> io::Result<()>;

    /// Returns the address at which the peer reached this program; none for a Unix socket.
    fn local(stream: &Self::Stream) -> Option<SocketAddr>;

    /// Returns whether bytes of the peer wait to be read, or it has closed the connection.
    fn has_sent(stream: &Self::Stream) -> bool;

    /// Ends when the peer has sent something, or has closed the connection.
    fn readable(stream: &Self::Stream) -> impl Future<Output = io::Result<()>> + Send;
}

/// A listening TCP socket.
pub struct Bound {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Listen for Bound {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, IpAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((stream, peer.ip().to_canonical()))
    }

    fn prepare(stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        socket::setsockopt(stream, socket::sockopt::KeepAlive, &true)?;
        socket::setsockopt(stream, socket::sockopt::TcpUserTimeout, &UNACKNOWLEDGED)?;
        Ok(())
    }

    fn local(stream: &TcpStream) -> Option<SocketAddr> {
        stream.local_addr().ok()
    }

    fn has_sent(stream: &TcpStream) -> bool {
        has_sent(stream.as_raw_fd())
    }

    async fn readable(stream: &TcpStream) -> io::Result<()> {
        stream.readable().await
    }
}

/// A listening Unix socket. Every peer counts as the loopback address.
pub struct BoundUnix(UnixListener);

impl Listen for BoundUnix {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, IpAddr)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, Ipv4Addr::LOCALHOST.into()))
    }

    fn prepare(_: &UnixStream) -> io::Result<()> {
        Ok(())
    }

    fn local(_: &UnixStream) -> Option<SocketAddr> {
        None
    }

    fn has_sent(stream: &UnixStream) -> bool {
        has_sent(stream.as_raw_fd())
    }

    async fn readable(stream: &UnixStream) -> io::Result<()> {
        stream.readable().await
    }
}

/// Asks the kernel: the runtime may not have noticed yet.
fn has_sent(socket: RawFd) -> bool {
    let flags = socket::MsgFlags::MSG_PEEK | socket::MsgFlags::MSG_DONTWAIT;
    !matches!(socket::recv(socket, &mut [0], flags), Err(nix::errno::Errno::EAGAIN))
}

/// Listens on `host`, or on every address (IPv4 and IPv6 through one socket; IPv4 alone where the kernel has no IPv6).
/// Must be called within the runtime.
pub fn bind(host: Option<&str>, port: u16) -> io::Result<Bound> {
    let listener = match host {
        Some(host) => {
            let address: IpAddr = host.trim_matches(['[', ']']).parse().map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("listen_host `{host}` is not an address"))
            })?;
            listen(SocketAddr::new(address, port))?
        }
        None => listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).or_else(|error| {
            tracing::debug!(%error, "no IPv6; listening on IPv4 alone");
            listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
        })?,
    };
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

/// By hand, because whether an IPv6 socket takes IPv4 too must not depend on a system setting. Not by nix, which refuses a
/// backlog beyond the C library's constant: 128 with musl, whatever the kernel allows.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listening = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    listening.set_reuseaddr(true)?;
    if address.is_ipv6() {
        socket::setsockopt(&listening, socket::sockopt::Ipv6V6Only, &false)?;
    }
    listening.bind(address)?;
    listening.listen(BACKLOG)
}

/// Listens on a Unix socket that only its owner may use. A socket left behind by an earlier process is replaced.
/// Must be called within the runtime.
pub fn bind_unix(path: &Path) -> io::Result<BoundUnix> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(BoundUnix(listener))
}
