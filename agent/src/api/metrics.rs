//! `GET /metrics`: Ferric's own, for Prometheus. Counters and gauges only, no names of nodes or images, no secrets; so it
//! asks for no token, as `/v1/status` does not: a scraper could not know the one of this boot.

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::Api;
use crate::metrics::CONTENT;

pub(super) async fn metrics(State(api): State<Api>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(CONTENT))], api.metrics.text()).into_response()
}
