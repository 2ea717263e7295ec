//! Cookies that a server wants back: across a redirect, and for the parts of the same image. Pure.
//!
//! Source: RFC 6265, as much as a download needs. They live as long as the transfer and go to no log.

use url::{Host, Url};

use super::head::{Fields, text};

/// Cookies that are kept; more are left out.
const MOST: usize = 64;

/// The longest cookie that is kept, in bytes.
const LONGEST: usize = 8 * 1024;

/// Cookies of one transfer.
#[derive(Default)]
pub(super) struct Jar(Vec<Cookie>);

struct Cookie {
    name: String,
    value: Vec<u8>,
    /// The host that set it, or the domain that it may be shown to.
    domain: String,
    /// Whether the hosts below `domain` get it too.
    with_subdomains: bool,
    path: String,
    /// Only over TLS.
    secure: bool,
}

impl Jar {
    /// Keeps what the answer of `url` sets.
    pub(super) fn keep(&mut self, url: &Url, fields: &Fields) {
        for line in fields.all("set-cookie") {
            let Some((cookie, is_over)) = Cookie::parse(url, line) else { continue };
            self.0.retain(|known| {
                (&known.name, &known.domain, &known.path) != (&cookie.name, &cookie.domain, &cookie.path)
            });
            if !is_over && self.0.len() < MOST {
                self.0.push(cookie);
            }
        }
    }

    /// Returns the value of the `Cookie` field for a request of `url`.
    pub(super) fn for_request(&self, url: &Url) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        for cookie in self.0.iter().filter(|cookie| cookie.goes_to(url)) {
            if !all.is_empty() {
                all.extend_from_slice(b"; ");
            }
            all.extend_from_slice(cookie.name.as_bytes());
            all.push(b'=');
            all.extend_from_slice(&cookie.value);
        }
        (!all.is_empty()).then_some(all)
    }
}

impl Cookie {
    /// Reads a `Set-Cookie` value; the flag says that the cookie is to be forgotten.
    fn parse(url: &Url, line: &[u8]) -> Option<(Self, bool)> {
        // A control character inside would make another request of it.
        if line.len() > LONGEST || line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return None;
        }
        let mut parts = line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let pair = parts.next()?;
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair.get(..equals)?.trim_ascii(), pair.get(equals + 1..)?.trim_ascii());
        let host = url.host_str()?.to_ascii_lowercase();
        let mut cookie = Self {
            name: std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?.to_owned(),
            value: value.to_vec(),
            domain: host.clone(),
            with_subdomains: false,
            path: default_path(url),
            secure: false,
        };
        let mut is_over = false;
        for attribute in parts {
            let attribute = text(attribute);
            let (name, value) = attribute.split_once('=').unwrap_or((&attribute, ""));
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "domain" if !value.is_empty() => {
                    let domain = value.trim_start_matches('.').to_ascii_lowercase();
                    let is_name = matches!(url.host(), Some(Host::Domain(_))) && domain.contains('.');
                    if domain == host || is_name && is_below(&host, &domain) {
                        cookie.with_subdomains = is_name;
                        cookie.domain = domain;
                    } else {
                        return None;
                    }
                }
                "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
                "secure" => cookie.secure = true,
                "max-age" => is_over = value.starts_with('-') || value == "0",
                _ => {}
            }
        }
        Some((cookie, is_over))
    }

    fn goes_to(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let is_host = host == self.domain || self.with_subdomains && is_below(&host, &self.domain);
        let path = url.path().strip_prefix(self.path.as_str());
        let is_path =
            path.is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'));
        is_host && is_path && (!self.secure || url.scheme() == "https")
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// The folder of the URL (RFC 6265 section 5.1.4).
fn default_path(url: &Url) -> String {
    match url.path().rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((folder, _)) => folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(set_by: &str, cookie: &str, asked: &str) -> Option<String> {
        let mut jar = Jar::default();
        jar.keep(&Url::parse(set_by).unwrap(), &Fields::of(&[("set-cookie", cookie)]));
        jar.for_request(&Url::parse(asked).unwrap()).map(|value| text(&value))
    }

    #[test]
    fn cookies_go_back_to_the_host_that_set_them_and_to_no_other() {
        let same = "http://images.example/a/b";
        for (cookie, asked, expected) in [
            ("gate=1; Path=/", same, Some("gate=1")),
            ("gate=1", "http://images.example/a/c", Some("gate=1")),
            ("gate=1", "http://images.example/other", None),
            ("gate=1; path=/a", "http://images.example/ab", None),
            ("gate=1; Path=/", "http://other.example/", None),
            ("gate=1; Path=/", "http://images.example:81/", Some("gate=1")),
            ("gate=1; Path=/; Domain=.example", "http://other.example/", None),
            ("gate=1; Path=/; Domain=images.example", "http://a.images.example/", Some("gate=1")),
            ("gate=1; Path=/; Domain=evil.org", same, None),
            ("gate=1; Path=/; Secure", same, None),
            ("gate=1; Path=/; Secure", "https://images.example/", Some("gate=1")),
            ("gate=1; Path=/; Max-Age=0", same, None),
            ("gate", same, None),
            ("=1", same, None),
            ("a=\"q; r\"; HttpOnly", same, Some("a=\"q")),
        ] {
            assert_eq!(sent(same, cookie, asked).as_deref(), expected, "{cookie:?} {asked}");
        }
    }

    #[test]
    fn a_later_cookie_replaces_an_earlier_one_of_its_name_and_their_number_is_bounded() {
        let url = Url::parse("http://h/x").unwrap();
        let mut jar = Jar::default();
        jar.keep(&url, &Fields::of(&[("set-cookie", "a=1"), ("set-cookie", "b=2"), ("set-cookie", "a=3")]));
        assert_eq!(jar.for_request(&url).unwrap(), b"b=2; a=3");
        for number in 0..1000 {
            jar.keep(&url, &Fields::of(&[("set-cookie", &format!("n{number}=1"))]));
        }
        assert_eq!(jar.0.len(), MOST);
        let long = "x".repeat(LONGEST);
        assert_eq!(sent("http://h/x", &format!("a={long}"), "http://h/x"), None);
    }
}
