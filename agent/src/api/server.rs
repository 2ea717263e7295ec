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
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::connections::{Connections, Seat};
use super::refusal::Refusals;
use super::tls::Tls;

/// The peer of a connection; put into every request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// The bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more wait in the kernel's queue.
    pub connections: usize,
    /// Limit of a TLS handshake.
    pub handshake: Duration,
    /// Limit for the head of a request, from the connection's start or the end of the request before.
    pub head: Duration,
    /// How long a connection may stay without a request that knows the token when all places are taken.
    pub grace: Duration,
    /// How long replies may take to go out once the server was told to stop.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            grace: Duration::from_secs(2),
            farewell: Duration::from_secs(5),
        }
    }
}

/// Most headers of a request, and the longest head in bytes.
const HEADERS: usize = 64;
const HEAD_BYTES: usize = 64 * 1024;
/// Connections that wait in the kernel's queue.
const BACKLOG: u32 = 1024;
/// How long a peer may leave data unacknowledged, or its window closed, before it counts as gone, in milliseconds.
const UNACKNOWLEDGED: u32 = 60_000;
/// How often to look for somebody who can leave, when all places are taken.
const FULL_LOOK: Duration = Duration::from_millis(50);
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

/// Serves until `stop` becomes true. Then the socket closes, and so does each connection once the reply to its request has
/// gone out; those that take too long are left to their end.
pub async fn serve(
    bound: Bound,
    router: Router,
    tls: Option<Tls>,
    limits: Limits,
    stop: watch::Receiver<bool>,
) {
    let refusals =
        tls.as_ref().map(|tls| Arc::new(Refusals::new(tls.certificate.clone(), tls.clock.clone())));
    let house = House {
        router,
        acceptor: tls.map(|tls| TlsAcceptor::from(tls.config)),
        limits,
        connections: Connections::default(),
        stop: stop.clone(),
    };
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut stopping = stop;
    loop {
        let entered = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            entered = enter(&bound.listener, &slots, &house) => entered,
        };
        let (stream, peer, slot) = match entered {
            Ok(entered) => entered,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (house, refusals) = (house.clone(), refusals.clone());
        // Bounded by the slots, and by the limits of what happens on a connection; joined by way of its slot.
        tokio::spawn(async move {
            let peer = peer.ip().to_canonical();
            let seat = house.connections.enter(peer);
            if let Err(error) = house.connection(stream, peer, seat).await {
                tracing::debug!(%peer, error = hwm::chain(error.as_ref()), "connection ended");
                if let Some(refusals) = refusals {
                    refusals.report(peer, error.as_ref());
                }
            }
            drop(slot);
        });
    }
    drop(bound);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    if timeout(limits.farewell, slots.acquire_many(all)).await.is_err() {
        tracing::debug!("some connections did not end in time");
    }
}

type Slot = tokio::sync::OwnedSemaphorePermit;

/// The next connection, once there is a place for it.
async fn enter(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    house: &House,
) -> io::Result<(TcpStream, SocketAddr, Slot)> {
    let (stream, peer) = listener.accept().await?;
    loop {
        if let Ok(slot) = timeout(FULL_LOOK, slots.clone().acquire_owned()).await {
            return Ok((stream, peer, slot.map_err(io::Error::other)?));
        }
        house.connections.make_room(house.limits.grace);
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What every connection needs.
#[derive(Clone)]
struct House {
    router: Router,
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
    connections: Connections,
    stop: watch::Receiver<bool>,
}

impl House {
    async fn connection(&self, stream: TcpStream, peer: IpAddr, seat: Seat) -> Result<(), Failed> {
        stream.set_nodelay(true)?;
        socket::setsockopt(&stream, socket::sockopt::KeepAlive, &true)?;
        socket::setsockopt(&stream, socket::sockopt::TcpUserTimeout, &UNACKNOWLEDGED)?;
        let Some(acceptor) = &self.acceptor else { return self.http(stream, peer, seat).await };
        let accepted = tokio::select! {
            () = seat.asked_to_leave() => return Ok(()),
            accepted = timeout(self.limits.handshake, acceptor.accept(stream)) => accepted,
        };
        self.http(accepted??, peer, seat).await
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: IpAddr,
        seat: Seat,
    ) -> Result<(), Failed> {
        let (router, place) = (self.router.clone(), seat.clone());
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let (router, place) = (router.clone(), place.clone());
            async move {
                let mut request: Request = request.map(axum::body::Body::new);
                request.extensions_mut().insert(Peer(peer));
                request.extensions_mut().insert(place);
                let mut response = router.oneshot(request).await?;
                let server = HeaderValue::from_static(concat!("ferric-agent/", env!("CARGO_PKG_VERSION")));
                response.headers_mut().insert(SERVER, server);
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_headers(HEADERS)
            .max_buf_size(HEAD_BYTES)
            .half_close(true) // who has said all may still want to hear the answer
            .keep_alive(true);
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        let mut stop = self.stop.clone();
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = seat.asked_to_leave() => return Ok(()),
            _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }
}
