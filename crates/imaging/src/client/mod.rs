//! The HTTP/1.1 client for downloads: `GET`, over TCP or TLS, through proxies, with redirects and cookies.
//!
//! Servers that hold images are old, scripted or behind gateways, and answer in ways that RFC 9112 does not allow and that
//! curl and requests take. This client takes them too; docs/data-plane/1-images.md lists what. It asks once: retries,
//! resumption and every time limit but that for connecting are the caller's.
//!
//! At most one idle connection is kept, and a connection whose body was not read to its end is closed. So a transfer and the
//! parts that are read beside it take two connections at the most.

mod connection;
mod cookies;
mod error;
mod head;
mod proxy;
mod response;
mod trust;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use url::{Position, Url};
use wire::Secret;

use crate::error::Error;
use crate::request::{Proxies, Transport};
use connection::{Connection, authority};
use cookies::Jar;
pub use error::HttpError;
pub(crate) use head::Fields;
use proxy::{ProxyRules, ProxyServer, basic};
pub(crate) use response::Response;

/// Redirects that are followed, as reqwest and ironic-python-agent's library do at least.
const REDIRECTS: usize = 10;

/// A client. Its connections belong to the runtime that it is used on.
pub(crate) struct Client {
    tls: Arc<rustls::ClientConfig>,
    proxies: ProxyRules,
    connect_timeout: Duration,
    jar: Mutex<Jar>,
    idle: IdlePlace,
}

/// What is asked for.
pub(crate) struct Request<'r> {
    pub(crate) url: &'r Url,
    /// The complete `Authorization` value; it goes to the server of `url` alone.
    pub(crate) authorization: Option<&'r Secret>,
    /// Further fields.
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// Which requests may share a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    scheme: String,
    server: String,
    proxy: Option<String>,
}

/// The connection that is kept for the next request.
type IdlePlace = Arc<Mutex<Option<(Route, Connection)>>>;

impl Client {
    /// Builds a client. `needs_trust`: a server will have to prove its identity.
    pub(crate) fn build(transport: &Transport, proxies: &Proxies, needs_trust: bool) -> Result<Self, Error> {
        let proxies = ProxyRules::new(proxies).map_err(|(proxy, reason)| Error::Proxy { proxy, reason })?;
        Ok(Self {
            tls: Arc::new(trust::tls_config(transport, needs_trust)?),
            proxies,
            connect_timeout: transport.connect_timeout,
            jar: Mutex::default(),
            idle: IdlePlace::default(),
        })
    }

    /// Sends a request, follows redirects, and returns the head of the answer. The body is still to come.
    pub(crate) async fn get(&self, request: Request<'_>) -> Result<Response, HttpError> {
        let mut url = request.url.clone();
        let own = request.authorization.cloned().or_else(|| basic(request.url));
        for _ in 0..=REDIRECTS {
            let authorization = match may_have_credentials(request.url, &url) {
                true => own.clone(),
                // The server that redirects may name others.
                false => basic(&url),
            };
            let response = self.once(&url, authorization.as_ref(), &request.fields).await?;
            self.jar.lock().unwrap_or_else(PoisonError::into_inner).keep(&url, &response.fields);
            let is_redirect = matches!(response.status, 301 | 302 | 303 | 307 | 308);
            let location = response.fields.text("location").filter(|_| is_redirect);
            let Some(location) = location.filter(|location| !location.is_empty()) else {
                return Ok(response);
            };
            url = redirected(&url, &location)?;
        }
        let location = crate::source::shown(&url);
        Err(HttpError::Redirect { location, reason: "there were too many redirects before it" })
    }

    /// One request, over the idle connection where it leads there.
    async fn once(
        &self,
        url: &Url,
        authorization: Option<&Secret>,
        fields: &[(&'static str, String)],
    ) -> Result<Response, HttpError> {
        let proxy = self.proxies.of(url);
        let cookie = self.jar.lock().unwrap_or_else(PoisonError::into_inner).for_request(url);
        let head = request_head(url, proxy, authorization, cookie.as_deref(), fields);
        let route = Route {
            scheme: url.scheme().to_owned(),
            server: authority(url),
            proxy: proxy.map(|proxy| proxy.url.to_string()),
        };
        // Taken in any case: an idle connection to another server is of no more use.
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((_, connection)) = idle.filter(|(known, _)| *known == route) {
            match self.exchange(connection, &route, &head).await {
                // The server closed it meanwhile.
                Err(HttpError::NoAnswer | HttpError::Io(_)) => {}
                result => return result,
            }
        }
        let connection = Connection::open(url, proxy, &self.tls, self.connect_timeout).await?;
        self.exchange(connection, &route, &head).await
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        route: &Route,
        head: &[u8],
    ) -> Result<Response, HttpError> {
        connection.send(head).await?;
        let head = connection.head().await?;
        Response::new(head, connection, route.clone(), Arc::clone(&self.idle))
    }
}

/// The head of a request.
fn request_head(
    url: &Url,
    proxy: Option<&ProxyServer>,
    authorization: Option<&Secret>,
    cookie: Option<&[u8]>,
    fields: &[(&'static str, String)],
) -> Vec<u8> {
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let proxy = proxy.filter(|_| url.scheme() == "http");
    let target = if proxy.is_some() { format!("http://{host}{target}") } else { target.to_owned() };
    let mut head = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ferric/{}\r\nAccept-Encoding: identity\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut add = |name: &str, value: &str| head += &format!("{name}: {value}\r\n");
    if !fields.iter().any(|(name, _)| *name == "Accept") {
        add("Accept", "*/*");
    }
    for (name, value) in fields {
        add(name, value);
    }
    if let Some(value) = authorization {
        add("Authorization", value.expose());
    }
    if let Some(value) = proxy.and_then(|proxy| proxy.authorization.as_ref()) {
        add("Proxy-Authorization", value.expose());
    }
    let mut head = head.into_bytes();
    if let Some(cookie) = cookie {
        head.extend_from_slice(b"Cookie: ");
        head.extend_from_slice(cookie);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Returns whether credentials for `first` may go to `url`: to the same host by the same scheme and port, and from port 80 of
/// `http:` to port 443 of `https:` (as curl and requests do).
fn may_have_credentials(first: &Url, url: &Url) -> bool {
    let is_upgrade = (first.scheme(), url.scheme()) == ("http", "https")
        && first.port_or_known_default() == Some(80)
        && url.port_or_known_default() == Some(443);
    let is_same =
        first.scheme() == url.scheme() && first.port_or_known_default() == url.port_or_known_default();
    first.host() == url.host() && (is_same || is_upgrade)
}

fn redirected(from: &Url, location: &str) -> Result<Url, HttpError> {
    let refused = |location: String, reason| HttpError::Redirect { location, reason };
    let url =
        from.join(location).map_err(|_| refused("(not a URL)".to_owned(), "correct it on the server"))?;
    let is_web =
        matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty());
    if !is_web {
        return Err(refused(crate::source::shown(&url), "only http and https are"));
    }
    Ok(url)
}

/// Undoes percent-encoding in a part of a URL. What is not an encoding stays.
pub fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits =
            after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let is_hex = |digits: &&str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match digits.filter(is_hex).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

/// Returns whether a text may stand in a field of a request.
pub(crate) fn is_field_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn credentials_stay_with_their_server() {
        for (first, next, may) in [
            ("http://h/a", "http://h/b", true),
            ("http://h/a", "http://h:80/b", true),
            ("http://h/a", "https://h/a", true),
            ("http://h:80/a", "https://h:443/a", true),
            ("http://h:8080/a", "https://h/a", false),
            ("http://h/a", "https://h:8443/a", false),
            ("https://h/a", "http://h/a", false),
            ("https://h/a", "https://h:8443/a", false),
            ("http://h/a", "http://h:8080/a", false),
            ("http://h/a", "http://other/a", false),
            ("http://h/a", "https://other/a", false),
            ("http://h/a", "http://h.evil/a", false),
        ] {
            assert_eq!(may_have_credentials(&url(first), &url(next)), may, "{first} {next}");
        }
    }

    #[test]
    fn redirects_are_resolved_as_browsers_do_and_lead_to_web_servers_only() {
        let from = url("http://h/dir/image?x#f");
        for (location, to) in [
            ("other", "http://h/dir/other"),
            ("/a b/\u{e9}.raw", "http://h/a%20b/%C3%A9.raw"),
            ("//store/x", "http://store/x"),
            ("?y=1#frag", "http://h/dir/image?y=1#frag"),
            ("HTTPS://Store/x", "https://store/x"),
            (" http://store/x ", "http://store/x"),
        ] {
            assert_eq!(redirected(&from, location).unwrap().as_str(), to, "{location:?}");
        }
        for location in ["file:///etc/passwd", "oci://registry/x", "http://", "javascript:1"] {
            assert!(redirected(&from, location).is_err(), "{location}");
        }
    }

    #[test]
    fn a_request_names_its_host_and_goes_to_a_proxy_with_the_whole_url() {
        let text = |head: Vec<u8>| String::from_utf8(head).unwrap();
        let target = url("http://user:pw@h:8080/a/b?c=d#frag");
        let head = text(request_head(&target, None, None, Some(b"a=1"), &[("Range", "bytes=5-".into())]));
        assert!(head.starts_with("GET /a/b?c=d HTTP/1.1\r\nHost: h:8080\r\n"), "{head}");
        assert!(head.ends_with("Range: bytes=5-\r\nCookie: a=1\r\n\r\n"), "{head}");
        assert!(head.contains("\r\nAccept-Encoding: identity\r\n") && !head.contains("pw"), "{head}");
        let proxy = ProxyServer { url: url("http://proxy/"), authorization: Some(Secret::new("Basic x")) };
        let head = text(request_head(&target, Some(&proxy), None, None, &[]));
        assert!(head.starts_with("GET http://h:8080/a/b?c=d HTTP/1.1\r\nHost: h:8080\r\n"), "{head}");
        assert!(head.contains("\r\nProxy-Authorization: Basic x\r\n"), "{head}");
        let head = text(request_head(&url("https://h/"), Some(&proxy), None, None, &[]));
        assert!(head.starts_with("GET / HTTP/1.1\r\nHost: h\r\n") && !head.contains("Proxy"), "{head}");
    }

    #[test]
    fn percent_encoding_is_undone_where_it_is_one() {
        for (text, decoded) in
            [("a%20b", "a b"), ("100%", "100%"), ("%zz%2", "%zz%2"), ("%+5", "%+5"), ("%c3%A9", "\u{e9}")]
        {
            assert_eq!(percent_decoded(text), decoded.as_bytes(), "{text}");
        }
        assert!(is_field_value("Bearer a\tb") && !is_field_value("a\r\nb") && !is_field_value("a\0"));
    }
}
