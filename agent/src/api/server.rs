//! Accepts connections: TLS or plain, HTTP/1.1, everything within bounds so that a slow or silly client costs little.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{HeaderValue, SERVER};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::refusal::Refusals;
use super::routes::Peer;
use super::tls::Tls;

/// The bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more wait in the kernel's queue.
    pub connections: usize,
    /// Limit of a TLS handshake.
    pub handshake: Duration,
    /// Limit for the head of a request, from the connection's start or the end of the request before.
    pub head: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, handshake: Duration::from_secs(10), head: Duration::from_secs(30) }
    }
}

/// Most headers of a request, and the longest head in bytes.
const HEADERS: usize = 64;
const HEAD_BYTES: usize = 64 * 1024;
/// Pause after a failed accept (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listening socket.
pub struct Bound {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Listens on `host`, or on every address (IPv4 and IPv6 through one socket; IPv4 alone where the kernel has no IPv6).
/// Must be called within the runtime.
pub fn bind(host: Option<&str>, port: u16) -> io::Result<Bound> {
    let listener = match host {
        Some(host) => {
            let address: IpAddr = host.trim_matches(['[', ']']).parse().map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("listen_host `{host}` is no address"))
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

/// By hand, because whether an IPv6 socket takes IPv4 too must not depend on a system setting.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { socket::AddressFamily::Inet } else { socket::AddressFamily::Inet6 };
    let flags = socket::SockFlag::SOCK_CLOEXEC | socket::SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(family, socket::SockType::Stream, flags, None)?;
    socket::setsockopt(&fd, socket::sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        socket::setsockopt(&fd, socket::sockopt::Ipv6V6Only, &false)?;
    }
    let storage = socket::SockaddrStorage::from(address);
    socket::bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &storage)?;
    socket::listen(&fd, socket::Backlog::new(128)?)?;
    TcpListener::from_std(std::net::TcpListener::from(fd))
}

/// Serves until `stop` becomes true: then the socket closes, and running requests have until the process ends.
pub async fn serve(
    bound: Bound,
    router: Router,
    tls: Option<Tls>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let refusals =
        tls.as_ref().map(|tls| Arc::new(Refusals::new(tls.certificate.clone(), tls.clock.clone())));
    let acceptor = tls.map(|tls| TlsAcceptor::from(tls.config));
    let slots = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = accept(&bound.listener, &slots) => accepted,
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, router, refusals) = (acceptor.clone(), router.clone(), refusals.clone());
        // Bounded by the slots, and by the limits of what happens on a connection.
        tokio::spawn(async move {
            let peer = peer.ip().to_canonical();
            if let Err(error) = connection(stream, peer, acceptor, router, limits).await {
                tracing::debug!(%peer, error = hwm::chain(error.as_ref()), "connection ended");
                if let Some(refusals) = refusals {
                    refusals.report(peer, error.as_ref());
                }
            }
            drop(slot);
        });
    }
}

type Slot = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, Slot)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
) -> Result<(), Failed> {
    stream.set_nodelay(true)?;
    match acceptor {
        None => http(stream, peer, router, limits).await,
        Some(acceptor) => {
            let stream = timeout(limits.handshake, acceptor.accept(stream)).await??;
            http(stream, peer, router, limits).await
        }
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: IpAddr,
    router: Router,
    limits: Limits,
) -> Result<(), Failed> {
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move {
            let mut request: Request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(Peer(peer));
            let mut response = router.oneshot(request).await?;
            let server = HeaderValue::from_static(concat!("ferric-agent/", env!("CARGO_PKG_VERSION")));
            response.headers_mut().insert(SERVER, server);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(true);
    Ok(http.serve_connection(TokioIo::new(stream), service).await?)
}
