//! One line a request, as ironic-python-agent writes it, with the token masked. Source: agent protocol page, 1.13.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::Response;
use http_server::Peer;

use super::Api;

/// Longest request target in a line, in bytes.
const TARGET_LIMIT: usize = 512;

/// Logs and counts a request once it is answered.
pub(super) async fn observe(State(api): State<Api>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let target = shown(request.uri());
    let source = source(request.headers(), request.extensions().get::<Peer>().map(|peer| peer.0));
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let (status, took) = (response.status().as_u16(), begun.elapsed());
    tracing::info!(target: "ferric_agent::api", "{source} - {method} {target} - {status} ({:.2}ms)", took.as_secs_f64() * 1000.0);
    api.metrics.request(route.as_deref(), &method, status, took);
    response
}

/// Who asked: as a proxy tells, else the peer. Only addresses are believed, for anybody can send anything.
fn source(headers: &HeaderMap, peer: Option<IpAddr>) -> String {
    let header =
        |name: &str| headers.get(name)?.to_str().ok()?.split(',').next()?.trim().parse::<IpAddr>().ok();
    let told = header("x-forwarded-for").or_else(|| header("x-real-ip")).or(peer);
    told.map_or_else(|| "-".into(), |address| address.to_string())
}

/// Path and query, with the value of the token hidden and the length bounded.
fn shown(uri: &Uri) -> String {
    let mut text = match uri.query() {
        None => uri.path().to_owned(),
        Some(query) => {
            let words: Vec<_> = query.split('&').map(masked).collect();
            format!("{}?{}", uri.path(), words.join("&"))
        }
    };
    if text.len() > TARGET_LIMIT {
        text.truncate(text.floor_char_boundary(TARGET_LIMIT));
        text.push_str("...");
    }
    text
}

/// A query argument. The name may be written in another way (`agent%5Ftoken`), so what decodes to a token's name is one.
fn masked(word: &str) -> String {
    let (name, _) = word.split_once('=').unwrap_or((word, ""));
    if decoded(name).to_ascii_lowercase().contains("token") { format!("{name}=***") } else { word.to_owned() }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_log_never_shows_the_token() {
        for (given, line) in [
            ("/v1/commands/?wait=true&agent_token=s3cret&x=1", "/v1/commands/?wait=true&agent_token=***&x=1"),
            ("/v1/commands/?agent%5Ftoken=s3cret", "/v1/commands/?agent%5Ftoken=***"),
            ("/v1/commands/?%61gent_%74oken=s3cret&%zz", "/v1/commands/?%61gent_%74oken=***&%zz"),
            ("/v1/commands/?Agent_Token=s3cret", "/v1/commands/?Agent_Token=***"),
            ("/", "/"),
        ] {
            assert_eq!(shown(&given.parse().unwrap()), line);
        }
        let long = shown(&format!("/{}", "x".repeat(5000)).parse().unwrap());
        assert_eq!(long.len(), TARGET_LIMIT + 3);
    }

    #[test]
    fn the_source_is_an_address_or_the_peer() {
        let peer = Some(IpAddr::from([192, 0, 2, 1]));
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
        };
        assert_eq!(source(&HeaderMap::new(), peer), "192.0.2.1");
        assert_eq!(source(&headers("x-forwarded-for", "198.51.100.7, 10.0.0.1"), peer), "198.51.100.7");
        assert_eq!(source(&headers("x-real-ip", "2001:db8::1"), peer), "2001:db8::1");
        assert_eq!(source(&headers("x-forwarded-for", "nonsense"), peer), "192.0.2.1");
        assert_eq!(source(&HeaderMap::new(), None), "-");
    }
}
