//! Serves the API: the shared HTTP server with the agent's TLS, its name, and a log line for peers that refuse its certificate.

use std::sync::Arc;

use axum::Router;
use http_server::{Bound, Limits, Settings};
use tokio::sync::watch;

use super::refusal::Refusals;
use super::tls::Tls;

/// Serves until `stop` becomes true. Then the socket closes, and so does each connection once the reply to its request has
/// gone out; those that take too long are left to their end.
pub async fn serve(
    bound: Bound,
    router: Router,
    tls: Option<Tls>,
    limits: Limits,
    stop: watch::Receiver<bool>,
) {
    let on_failure = tls.as_ref().map(|tls| {
        let refusals = Refusals::new(tls.certificate.clone(), tls.clock.clone());
        let report: http_server::OnFailure = Arc::new(move |peer, error| refusals.report(peer, error));
        report
    });
    let settings = Settings {
        name: concat!("ferric-agent/", env!("CARGO_PKG_VERSION")),
        tls: tls.map(|tls| tls.config),
        limits,
        on_failure,
    };
    http_server::serve(bound, router, settings, stop).await;
}
