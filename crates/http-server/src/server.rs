//! Accepts connections, TLS or plain, and serves HTTP/1.1 on them within bounds.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::{HeaderValue, SERVER};
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::{Service, ServiceExt};

use crate::connections::{Connections, Seat};
use crate::listen::Listen;

/// The peer of a connection; among the extensions of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The address at which the peer reached this program; among the extensions of every request that came by TCP.
#[derive(Clone, Copy, Debug)]
pub struct Local(pub SocketAddr);

/// The bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time, besides those that were just asked to leave; more wait in the kernel's queue.
    pub connections: usize,
    /// Limit of a TLS handshake.
    pub handshake: Duration,
    /// Limit for the head of a request, from the connection's start or the end of the request before.
    pub head: Duration,
    /// How long a connection that has sent something may stay without an authenticated request when all places are taken.
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

/// Called for a connection that ended in an error, with its peer.
pub type OnFailure = Arc<dyn Fn(IpAddr, &(dyn std::error::Error + 'static)) + Send + Sync>;

/// What a server needs besides its socket and its service.
#[derive(Clone)]
pub struct Settings {
    /// The value of the `Server` header.
    pub name: &'static str,
    /// TLS; plain HTTP without.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The bounds.
    pub limits: Limits,
    /// Called for a connection that ended in an error.
    pub on_failure: Option<OnFailure>,
}

/// The share of all places that strangers of one address may take: a quarter.
const SHARES: usize = 4;
/// Most headers of a request, and the longest head in bytes.
const HEADERS: usize = 64;
const HEAD_BYTES: usize = 64 * 1024;
/// How often to look for a connection to close, when all places are taken.
const FULL_LOOK: Duration = Duration::from_millis(10);
/// Pause after a failed accept (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` becomes true. Then the socket closes, and each connection closes once the reply to its request has
/// gone out; those that take longer than [`Limits::farewell`] are cut.
pub async fn serve<L, S>(listener: L, service: S, settings: Settings, stop: watch::Receiver<bool>)
where
    L: Listen,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let limits = settings.limits;
    let house = House {
        service,
        name: settings.name,
        acceptor: settings.tls.map(TlsAcceptor::from),
        limits,
        connections: Connections::new((limits.connections / SHARES).max(1)),
        stop: stop.clone(),
    };
    let mut stopping = stop;
    let mut tasks = JoinSet::new();
    loop {
        let entered = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            entered = enter(&listener, &mut tasks, &house) => entered,
        };
        let (stream, peer) = match entered {
            Ok(entered) => entered,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                // Without descriptors no connection would ever be accepted while silent ones stay.
                house.connections.make_room(limits.grace);
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (house, on_failure) = (house.clone(), settings.on_failure.clone());
        let stream = Arc::new(stream);
        let watched = Arc::downgrade(&stream);
        let has_sent = move || watched.upgrade().is_some_and(|stream| L::has_sent(&stream));
        let seat = house.connections.enter(peer, Box::new(has_sent));
        // Bounded by the places, and by the limits of what happens on a connection.
        tasks.spawn(async move {
            if let Err(error) = house.connection::<L>(stream, peer, seat).await {
                tracing::debug!(%peer, error = chain(error.as_ref()), "connection ended");
                if let Some(on_failure) = on_failure {
                    on_failure(peer, error.as_ref());
                }
            }
        });
    }
    drop(listener);
    let ended = timeout(limits.farewell, async { while tasks.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::debug!("some connections did not end in time");
        // The tasks go on: a handler that is at work is not cut in the middle. The process ends them.
        tasks.detach_all();
    }
}

/// Returns the next connection, once there is a place for it.
async fn enter<L: Listen, S>(
    listener: &L,
    tasks: &mut JoinSet<()>,
    house: &House<S>,
) -> io::Result<(L::Stream, IpAddr)> {
    let accepted = listener.accept().await?;
    loop {
        while tasks.try_join_next().is_some() {}
        // A connection that was asked to leave has given its place up, and ends when its task runs next.
        let places = house.connections.count() < house.limits.connections;
        if places && tasks.len() < house.limits.connections.saturating_mul(2) {
            return Ok(accepted);
        }
        if places || !house.connections.make_room(house.limits.grace) {
            // Returns early when a connection ends by itself.
            let _ = timeout(FULL_LOOK, tasks.join_next()).await;
        }
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What every connection needs.
#[derive(Clone)]
struct House<S> {
    service: S,
    name: &'static str,
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
    connections: Connections,
    stop: watch::Receiver<bool>,
}

impl<S> House<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    async fn connection<L: Listen>(
        &self,
        stream: Arc<L::Stream>,
        peer: IpAddr,
        seat: Seat,
    ) -> Result<(), Failed> {
        L::prepare(&stream)?;
        let local = L::local(&stream);
        let first = if self.acceptor.is_some() { self.limits.handshake } else { self.limits.head };
        // What was never spoken on is no use: it leaves first when places are short.
        let mut stop = self.stop.clone();
        tokio::select! {
            () = seat.asked_to_leave() => return Ok(()),
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            readable = timeout(first, L::readable(&stream)) => readable??,
        }
        seat.progress();
        // The table looks at a stream only before its first progress.
        let stream = Arc::into_inner(stream).ok_or("the connection is still watched")?;
        let Some(acceptor) = &self.acceptor else { return self.http(stream, peer, local, seat).await };
        let accepted = tokio::select! {
            () = seat.asked_to_leave() => return Ok(()),
            accepted = timeout(self.limits.handshake, acceptor.accept(stream)) => accepted,
        };
        let stream = accepted??;
        seat.progress();
        self.http(stream, peer, local, seat).await
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: IpAddr,
        local: Option<SocketAddr>,
        seat: Seat,
    ) -> Result<(), Failed> {
        let (service, place, name) = (self.service.clone(), seat.clone(), self.name);
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let (service, place) = (service.clone(), place.clone());
            async move {
                let mut request: Request = request.map(axum::body::Body::new);
                request.extensions_mut().insert(Peer(peer));
                request.extensions_mut().insert(place);
                if let Some(local) = local {
                    request.extensions_mut().insert(Local(local));
                }
                let mut response = service.oneshot(request).await?;
                response.headers_mut().insert(SERVER, HeaderValue::from_static(name));
                Ok::<_, Infallible>(response)
            }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_headers(HEADERS)
            .max_buf_size(HEAD_BYTES)
            .half_close(true) // a peer that has sent its request may still want the reply
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

/// An error and its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use axum::Router;
    use axum::routing::get;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    use super::*;
    use crate::listen::bind;

    #[tokio::test]
    async fn silent_connection_does_not_delay_the_stop() {
        let bound = bind(Some("127.0.0.1"), 0).unwrap();
        let address = bound.address;
        let router = Router::new().route("/", get(|| async { "x" }));
        let settings = Settings { name: "test", tls: None, limits: Limits::default(), on_failure: None };
        let (stop, stopping) = watch::channel(false);
        let served = tokio::spawn(serve(bound, router, settings, stopping));
        let mut silent = TcpStream::connect(address).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        stop.send_replace(true);
        served.await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0, "closed");
    }
}
