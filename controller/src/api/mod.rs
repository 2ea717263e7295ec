//! The HTTP API: Ironic's paths and shapes under `/` and `/v1`, Ferric's own additions under `/ferric/v1`, and the files that
//! machines fetch under `/boot` and `/images`. Handlers translate; what happens to nodes is decided elsewhere.

mod body;
mod boot;
mod error;
mod events;
mod files;
mod heartbeat;
mod images;
mod lookup;
mod nodes;
mod origin;
mod patch;
mod ports;
mod root;
mod secret;
mod states;
mod version;
mod view;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};
use tower::ServiceExt;
use tower::util::MapRequest;

use crate::controller::Controller;

pub use error::ApiError;
pub use events::EventsReply;
pub use images::{Located, Published, Stored, remove_partials};
pub use origin::normal as normal_host;

type Strip<B> = fn(Request<B>) -> Request<B>;
/// What a server serves.
pub type Service = MapRequest<Router, Strip<axum::body::Body>>;

/// The whole API: for operators, who have the token, and for machines.
pub fn service(controller: Controller) -> Service {
    let router = for_machines(&controller).merge(for_operators(&controller));
    finish(router, controller)
}

/// The part of the API that machines need, and nothing else.
pub fn machine_service(controller: Controller) -> Service {
    finish(for_machines(&controller), controller)
}

fn finish(router: Router<Controller>, controller: Controller) -> Service {
    router
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(from_fn_with_state(controller.clone(), origin::check))
        // Bodies are bounded where they are read.
        .layer(DefaultBodyLimit::disable())
        .with_state(controller)
        .map_request(without_trailing_slash as Strip<axum::body::Body>)
}

/// Version documents, lookup, heartbeat, boot files, images: open, as a machine has no token when it asks.
fn for_machines(controller: &Controller) -> Router<Controller> {
    let ironic = Router::new()
        .route("/", get(root::root))
        .route("/v1", get(root::v1))
        .route("/v1/lookup", get(lookup::lookup))
        .route("/v1/heartbeat/{node}", post(heartbeat::heartbeat))
        .route_layer(from_fn_with_state(controller.clone(), body::read))
        .route_layer(from_fn(version::negotiate));
    let served = Router::new()
        .route("/images/{*path}", get(files::image))
        .route("/boot/boot.ipxe", get(boot::script))
        .route("/boot/{mac}/{file}", get(boot::ramdisk))
        .route("/boot/{file}", get(boot::plain_ramdisk))
        .route_layer(from_fn(secret::fetch));
    ironic.merge(served)
}

/// Everything else: only with the token.
fn for_operators(controller: &Controller) -> Router<Controller> {
    let require = || from_fn_with_state(controller.clone(), secret::require);
    let ironic = Router::new()
        .route("/v1/nodes", get(nodes::list).post(nodes::create))
        .route("/v1/nodes/detail", get(nodes::detail))
        .route("/v1/nodes/{node}", get(nodes::show).patch(nodes::change).delete(nodes::delete))
        .route("/v1/nodes/{node}/ports", get(ports::of_node))
        .route("/v1/nodes/{node}/states", get(states::show))
        .route("/v1/nodes/{node}/states/power", put(states::power))
        .route("/v1/nodes/{node}/states/provision", put(states::provision))
        .route("/v1/ports", get(ports::list).post(ports::create))
        .route("/v1/ports/{port}", get(ports::show).delete(ports::delete))
        .route_layer(from_fn_with_state(controller.clone(), body::read))
        .route_layer(require())
        .route_layer(from_fn(version::negotiate));
    let ferric = Router::new()
        .route("/ferric/v1/nodes/{node}/events", get(events::events))
        .route("/ferric/v1/nodes/{node}/timeline", get(events::timeline))
        .route("/ferric/v1/images", get(images::locate))
        .route("/ferric/v1/images/{name}", get(images::stored).put(images::upload))
        .route_layer(require());
    ironic.merge(ferric)
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
mod security_tests;
#[cfg(test)]
mod tests;
