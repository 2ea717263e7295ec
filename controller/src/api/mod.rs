//! The HTTP API: Ironic's paths and shapes under `/` and `/v1`, Ferric's own additions under `/ferric/v1`, and the files that
//! machines fetch under `/boot` and `/images`. Handlers translate; what happens to nodes is decided elsewhere.

mod boot;
mod error;
mod events;
mod files;
mod heartbeat;
mod images;
mod lookup;
mod nodes;
mod patch;
mod ports;
mod root;
mod states;
mod version;
mod view;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Request;
use axum::middleware;
use axum::routing::{get, post, put};
use tower::ServiceExt;
use tower::util::MapRequest;

use crate::controller::Controller;

pub use error::ApiError;
pub use events::EventsReply;
pub use images::{Located, Published};

/// Ironic's limit of a heartbeat; nodes and ports are smaller still.
const BODY_LIMIT: usize = 1 << 20;
/// A provision request may carry a config drive of 64 MiB in base64.
const PROVISION_LIMIT: usize = 96 << 20;

type Strip<B> = fn(Request<B>) -> Request<B>;

/// The whole API, for a server.
pub fn service(controller: Controller) -> MapRequest<Router, Strip<axum::body::Body>> {
    router(controller).map_request(without_trailing_slash as Strip<axum::body::Body>)
}

fn router(controller: Controller) -> Router {
    let ironic = Router::new()
        .route("/", get(root::root))
        .route("/v1", get(root::v1))
        .route("/v1/lookup", get(lookup::lookup))
        .route("/v1/heartbeat/{node}", post(heartbeat::heartbeat))
        .route("/v1/nodes", get(nodes::list).post(nodes::create))
        .route("/v1/nodes/detail", get(nodes::detail))
        .route("/v1/nodes/{node}", get(nodes::show).patch(nodes::change).delete(nodes::delete))
        .route("/v1/nodes/{node}/ports", get(ports::of_node))
        .route("/v1/nodes/{node}/states", get(states::show))
        .route("/v1/nodes/{node}/states/power", put(states::power))
        .route(
            "/v1/nodes/{node}/states/provision",
            put(states::provision).layer(DefaultBodyLimit::max(PROVISION_LIMIT)),
        )
        .route("/v1/ports", get(ports::list).post(ports::create))
        .route("/v1/ports/{port}", get(ports::show).delete(ports::delete))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(version::negotiate));
    let ferric = Router::new()
        .route("/ferric/v1/nodes/{node}/events", get(events::events))
        .route("/ferric/v1/nodes/{node}/timeline", get(events::timeline))
        .route("/ferric/v1/images", get(images::locate))
        .route("/ferric/v1/images/{name}", put(images::upload).layer(DefaultBodyLimit::disable()));
    let served = Router::new()
        .route("/images/{*path}", get(files::image))
        .route("/boot/boot.ipxe", get(boot::script))
        .route("/boot/{mac}/{file}", get(boot::ramdisk))
        .route("/boot/{file}", get(boot::plain_ramdisk));
    ironic
        .merge(ferric)
        .merge(served)
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .with_state(controller)
}

/// Ironic answers `/v1/nodes/` as `/v1/nodes`; so do we.
fn without_trailing_slash<B>(mut request: Request<B>) -> Request<B> {
    let uri = request.uri();
    let path = uri.path();
    if path.len() > 1 && path.ends_with('/') {
        let mut text = path.trim_end_matches('/').to_owned();
        if text.is_empty() {
            text.push('/');
        }
        if let Some(query) = uri.query() {
            text = format!("{text}?{query}");
        }
        // The part of a valid URI before its last slash is a valid URI.
        if let Ok(shorter) = text.parse() {
            *request.uri_mut() = shorter;
        }
    }
    request
}

#[cfg(test)]
mod tests;
