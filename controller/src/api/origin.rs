//! Keeps web pages away from the API. A browser sends what any page asks it to send; two headers show that a page did:
//! `Host` names another site where the page's name was pointed at this address (DNS rebinding), and `Origin` or
//! `Sec-Fetch-Site` names another site where the page asks directly.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_server::Local;

use super::ApiError;
use crate::controller::Controller;

/// Refuses requests for other hosts and from other sites.
pub async fn check(State(controller): State<Controller>, request: Request, next: Next) -> Response {
    let local = request.extensions().get::<Local>().map(|local| local.0.ip().to_canonical());
    let extra = &controller.config.hosts;
    let host = match host(request.uri(), request.headers(), request.version()) {
        Ok(host) => host,
        Err(error) => return error.into_response(),
    };
    if let Some(host) = host.as_ref().filter(|host| !is_ours(host, local, extra)) {
        let text = format!(
            "this controller is not {}: use an address that it listens on, or start it with --host-name",
            host.host()
        );
        return ApiError { status: StatusCode::MISDIRECTED_REQUEST, text }.into_response();
    }
    if is_foreign(request.headers(), host.as_ref()) {
        let text = "requests of web pages of other sites are refused".into();
        return ApiError { status: StatusCode::FORBIDDEN, text }.into_response();
    }
    next.run(request).await
}

/// The host that the client asks for; none only in HTTP/1.0.
fn host(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Option<Authority>, ApiError> {
    let mut values = headers.get_all(header::HOST).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value,
        (None, _) if version == Version::HTTP_10 => return Ok(uri.authority().cloned()),
        (None, _) => return Err(ApiError::bad("the header Host is missing")),
        (Some(_), Some(_)) => return Err(ApiError::bad("the header Host is there twice")),
    };
    let named = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    let named = named.ok_or_else(|| ApiError::bad("the header Host is not a host"))?;
    Ok(Some(uri.authority().cloned().unwrap_or(named)))
}

fn is_ours(host: &Authority, local: Option<IpAddr>, names: &[String]) -> bool {
    let name = normal(host.host());
    if names.iter().any(|known| normal(known) == name) {
        return true;
    }
    let loopback = local.is_some_and(|ip| ip.is_loopback());
    match name.parse::<IpAddr>() {
        Ok(ip) => local.is_some_and(|local| local == ip.to_canonical()) || (loopback && ip.is_loopback()),
        Err(_) => loopback && name == "localhost",
    }
}

/// A host without brackets, case and the dot of the root.
pub fn normal(host: &str) -> String {
    host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

fn is_foreign(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let of_browser = headers.get_all("sec-fetch-site").iter();
    if of_browser.into_iter().any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none")) {
        return true;
    }
    headers.get_all(header::ORIGIN).iter().any(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        !matches!((authority, host), (Some(of), Some(host)) if of.eq_ignore_ascii_case(host.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_names_of_this_controller_are_ours() {
        let names = ["10.0.2.2".to_owned(), "Ferric.example".to_owned()];
        let ours = |host: &str, local: Option<[u8; 4]>| {
            is_ours(&host.parse().unwrap(), local.map(IpAddr::from), &names)
        };
        let loopback = Some([127, 0, 0, 1]);
        for host in
            ["127.0.0.1:6385", "localhost:6385", "LOCALHOST", "[::1]:6385", "ferric.example.", "10.0.2.2:1"]
        {
            assert!(ours(host, loopback), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "192.0.2.1:6385", "0.0.0.0:6385"] {
            assert!(!ours(host, loopback), "{host}");
        }
        assert!(ours("192.0.2.1:6385", Some([192, 0, 2, 1])));
        assert!(!ours("127.0.0.1:6385", Some([192, 0, 2, 1])) && !ours("localhost", Some([192, 0, 2, 1])));
        assert!(ours("10.0.2.2:6385", None) && !ours("127.0.0.1", None));
    }
}
