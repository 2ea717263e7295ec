//! HTTP towards the conductor: several URLs, one version, the headers Ironic insists on.
//!
//! The conductor is called directly, whatever the environment says about proxies; only the option `conductor_proxy` changes that.
//! Trust is explicit (`transport`). A GET is redirected on its own host and never from https to http; nothing else is. Each reply
//! tells the time as well: the first one that can be trusted corrects the clock, and where a certificate is refused because of
//! its time, the server is asked what time it is before it is given up (`crate::clock::date`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, Url};
use serde_json::Value;
use sys::Host;
use tls::Window;
use tokio::time::{Instant, timeout};
use wire::{ApiFault, Microversion};

use super::error::Error;
use super::transport::{build, tls_settings};
use crate::clock::Timekeeper;
use crate::clock::date::{self, Trust};
use crate::config::Config;
use crate::secrets::hide_by_place;

/// Longest reply that is read: a lookup is some kilobytes.
pub(super) const REPLY_LIMIT: usize = 16 * 1024 * 1024;
/// Most of an error's text, and of a body that is not understood, that is shown: in characters.
const LONGEST_QUOTE: usize = 500;
const LONGEST_START: usize = 80;
/// An API URL that answers with a server error so many times in a row, or for so long, is left for the next one.
const MOST_SERVER_ERRORS: u32 = 3;
const LONGEST_SERVER_ERRORS: Duration = Duration::from_secs(20);
/// Most redirects of one call.
const MOST_REDIRECTS: u32 = 3;
const REQUEST_ID: &str = "X-OpenStack-Request-ID";

/// What the client is built from.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// API URLs without trailing slash, in order of preference.
    pub urls: Vec<String>,
    /// Skips asking for the version.
    pub version: Option<Microversion>,
    /// Sent along with every call.
    pub request_id: Option<String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Where it came from.
    pub url: String,
    /// HTTP status.
    pub status: u16,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The error that this reply is, for one who expected another status.
    pub fn into_error(self) -> Error {
        let text = start_of(&ApiFault::text_of(&String::from_utf8_lossy(&self.body)), LONGEST_QUOTE);
        Error::Status { url: self.url, status: self.status, text, retry_after: self.retry_after }
    }

    /// The body as JSON.
    pub fn json<T: for<'de> serde::Deserialize<'de>>(&self, expected: &'static str) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|source| self.not(expected, source))
    }

    /// The error that this reply is not what was expected.
    pub(super) fn not(&self, expected: &'static str, source: serde_json::Error) -> Error {
        let start = String::from_utf8_lossy(&self.body);
        Error::Content { url: self.url.clone(), expected, start: start_of(&start, LONGEST_START), source }
    }
}

/// A URL for a person: without user, password and query.
fn shown(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    String::from_utf8_lossy(&hide_by_place(url.as_bytes())).into_owned()
}

/// The beginning of what a server sent, on one line.
fn start_of(text: &str, longest: usize) -> String {
    let line: Vec<_> = text.split_whitespace().take(longest).collect();
    let line = line.join(" ");
    match line.char_indices().nth(longest) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None if line.is_empty() => "nothing".into(),
        None => line,
    }
}

/// A client of the conductor's API.
pub struct Client {
    http: reqwest::Client,
    /// The URL that answered last stands first.
    urls: Mutex<Vec<String>>,
    /// Which URLs answered with server errors last.
    troubles: Mutex<BTreeMap<String, Trouble>>,
    /// The proxy that calls go through, for messages.
    proxy: Option<String>,
    configured: Option<Microversion>,
    negotiated: Mutex<Option<Microversion>>,
    /// The limit of one call as a whole: connecting, sending, and a slow reply.
    limit: Duration,
    time: Option<TimeSource>,
}

/// Server errors of one URL in a row.
#[derive(Clone, Copy)]
struct Trouble {
    since: Instant,
    answers: u32,
}

/// What it takes to learn the time from the conductor.
struct TimeSource {
    keeper: Timekeeper,
    /// The certificates that were seen.
    window: Window,
    /// Accepts certificates that are good at another time; asks for nothing but the time.
    asking: reqwest::Client,
    /// Whether nothing is verified anyway.
    insecure: bool,
}

impl Client {
    /// A client by configuration.
    pub fn new(host: &Host, config: &Config, keeper: &Timekeeper) -> Result<Self, Error> {
        Self::towards(host, config, keeper, config.api_url.to_vec())
    }

    /// A client by configuration towards other URLs than the conductor's API.
    pub fn towards(
        host: &Host,
        config: &Config,
        keeper: &Timekeeper,
        urls: Vec<String>,
    ) -> Result<Self, Error> {
        let settings = ClientSettings {
            urls,
            version: *config.ironic_api_version,
            request_id: config.global_request_id.value.clone(),
        };
        let mut headers = HeaderMap::new();
        if let Some(id) = settings.request_id.as_deref() {
            match HeaderValue::from_str(id) {
                Ok(id) => drop(headers.insert(REQUEST_ID, id)),
                Err(_) => tracing::warn!("global_request_id can not stand in a header; it is left out"),
            }
        }
        let window = Window::default();
        let mut tls = tls_settings(host, config, keeper.clock(), window.clone());
        let http = build(&tls, config, headers)?;
        tls.at_any_time = true;
        let asking = build(&tls, config, HeaderMap::new())?;
        let time = TimeSource { keeper: keeper.clone(), window, asking, insecure: *config.insecure };
        let limit = call_limit(**config.http_request_timeout);
        let proxy = config.conductor_proxy.as_ref().map(|proxy| proxy.shown());
        Ok(Self { limit, time: Some(time), proxy, ..Self::with(http, settings) })
    }

    /// A client made of parts, which does not care for the time.
    pub fn with(http: reqwest::Client, settings: ClientSettings) -> Self {
        let ClientSettings { urls, version, request_id: _ } = settings;
        let limit = call_limit(Duration::from_secs(30));
        let (urls, negotiated, troubles) = (Mutex::new(urls), Mutex::default(), Mutex::default());
        Self { http, urls, troubles, proxy: None, configured: version, negotiated, limit, time: None }
    }

    /// The URLs, the one that answered last first. They may hold passwords.
    pub fn urls(&self) -> Vec<String> {
        self.lock_urls().clone()
    }

    /// The same for a person.
    pub fn shown_urls(&self) -> String {
        self.urls().iter().map(|url| shown(url)).collect::<Vec<_>>().join(", ")
    }

    fn lock_urls(&self) -> MutexGuard<'_, Vec<String>> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The greatest version the conductor speaks (agent protocol page, 3.2).
    ///
    /// Upstream assumes 1.31 after any failure, and then gets no token: the agent is deaf for the whole boot because a proxy
    /// answered 503 once. So only a server that has no such document at all (404, 405, or JSON without a version) is taken for
    /// one of 1.31, and asked again by the next call; every other failure is an error, to be tried again.
    pub async fn version(&self) -> Result<Microversion, Error> {
        if let Some(version) = self.configured.or(*self.negotiated()) {
            return Ok(version);
        }
        if let Some(version) = self.ask_version().await? {
            tracing::info!(%version, "the conductor's API version");
            *self.negotiated() = Some(version);
            return Ok(version);
        }
        tracing::warn!(
            assumed = %Microversion::FALLBACK,
            "the conductor does not tell its API version, and gives no token to agents of the one assumed; \
             if it is a later one, give ipa-ironic-api-version=1.68"
        );
        Ok(Microversion::FALLBACK)
    }

    /// Asks for the version anew at the next call: another conductor may have taken over.
    pub fn forget_version(&self) {
        *self.negotiated() = None;
    }

    fn negotiated(&self) -> MutexGuard<'_, Option<Microversion>> {
        self.negotiated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_version(&self) -> Result<Option<Microversion>, Error> {
        const EXPECTED: &str = "a version document";
        let reply = self.call(Method::GET, "/", None, None).await?;
        match reply.status {
            200 => {}
            404 | 405 => return Ok(None),
            _ => return Err(reply.into_error()),
        }
        let document: Value = reply.json(EXPECTED)?;
        match document.pointer("/default_version/version").and_then(Value::as_str) {
            Some(text) => {
                let odd = |error| reply.not(EXPECTED, serde::de::Error::custom(error));
                text.parse().map(Some).map_err(odd)
            }
            None => Ok(None),
        }
    }

    /// One call: each URL is tried until one answers; that one goes first from now on. A server error is an answer as well, until
    /// it is repeated: then the next URL is tried, and the error is returned only where none does better.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        version: Option<Microversion>,
        body: Option<&[u8]>,
    ) -> Result<Reply, Error> {
        let urls = self.urls();
        let mut failures = Vec::new();
        let mut server_error = None;
        for base in &urls {
            let call = || self.call_base(method.clone(), base, path, version, body);
            let mut answer = call().await;
            if let Err(error) = &answer
                && self.learns_time(base, error).await
            {
                answer = call().await;
            }
            match answer {
                Ok(reply) if self.has_trouble(base, &reply) => {
                    tracing::debug!(
                        url = reply.url,
                        status = reply.status,
                        "an API URL is in trouble; trying the next one"
                    );
                    server_error.get_or_insert(reply);
                }
                Ok(reply) => {
                    self.prefer(base);
                    return Ok(reply);
                }
                Err(error) => {
                    tracing::debug!(error = error.told(), "an API URL does not answer");
                    failures.push(error);
                }
            }
        }
        if let Some(reply) = server_error {
            return Ok(reply);
        }
        match (failures.pop(), failures.is_empty()) {
            (None, _) => Err(Error::NoUrl),
            (Some(only), true) => Err(only),
            (Some(last), false) => {
                let reasons = failures.iter().chain([&last]).map(|error| tls::chain(error)).collect();
                Err(Error::AllUrls { reasons })
            }
        }
    }

    /// Whether this URL has answered with server errors for so long that another one is worth a try.
    fn has_trouble(&self, base: &str, reply: &Reply) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if reply.status < 500 {
            troubles.remove(base);
            return false;
        }
        let new = Trouble { since: Instant::now(), answers: 0 };
        let trouble = troubles.entry(base.to_owned()).or_insert(new);
        trouble.answers = trouble.answers.saturating_add(1);
        trouble.answers >= MOST_SERVER_ERRORS || trouble.since.elapsed() >= LONGEST_SERVER_ERRORS
    }

    /// One call to one URL, and where that redirects to.
    async fn call_base(
        &self,
        method: Method,
        base: &str,
        path: &str,
        version: Option<Microversion>,
        body: Option<&[u8]>,
    ) -> Result<Reply, Error> {
        let mut url = format!("{base}{path}");
        for _ in 0..=MOST_REDIRECTS {
            let shown = shown(&url);
            let whole = self.exchange(method.clone(), &url, &shown, version, body);
            let timed_out = |_| Error::TimedOut { url: self.called(&shown), limit: self.limit };
            match timeout(self.limit, whole).await.map_err(timed_out)?? {
                Exchanged::Reply(reply) => return Ok(reply),
                Exchanged::Redirect(target) => {
                    let next = redirect(&method, &url, &target);
                    let Some(next) = next else {
                        return Err(Error::Redirected { url: shown, target: self::shown(&target) });
                    };
                    self.adopt(base, path, next.as_str());
                    url = next.into();
                }
            }
        }
        Err(Error::Redirected { url: shown(&format!("{base}{path}")), target: "ever more places".into() })
    }

    /// A URL for an error of the connection: with the proxy, where one is used.
    fn called(&self, shown: &str) -> String {
        match &self.proxy {
            Some(proxy) => format!("{shown} through the proxy {proxy} (option conductor_proxy)"),
            None => shown.to_owned(),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        shown: &str,
        version: Option<Microversion>,
        body: Option<&[u8]>,
    ) -> Result<Exchanged, Error> {
        let failed = |source: reqwest::Error| Error::Connection {
            url: self.called(shown),
            source: source.without_url(),
        };
        // Ironic answers 400 to a POST without this content type, and 404 to ramdisk calls without a version.
        let mut request = self.http.request(method, url);
        request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json");
        if let Some(version) = version {
            request = request.header(Microversion::HEADER, version.to_string());
        }
        if let Some(body) = body {
            request = request.body(body.to_vec());
        }
        let mut response = request.send().await.map_err(failed)?;
        self.considers_date(&response);
        if response.status().is_redirection()
            && let Some(target) = response.headers().get(LOCATION)
        {
            return Ok(Exchanged::Redirect(String::from_utf8_lossy(target.as_bytes()).into_owned()));
        }
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(retry_after);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len().saturating_add(chunk.len()) > REPLY_LIMIT {
                return Err(Error::TooLong { url: shown.to_owned() });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Exchanged::Reply(Reply { url: shown.to_owned(), status, retry_after, body: bytes }))
    }

    /// Lets the clock know what time the conductor says it is.
    fn considers_date(&self, response: &Response) {
        let Some(time) = &self.time else { return };
        let url = response.url();
        let (Some(date), Some(host)) = (date::of(response.headers()), url.host_str()) else { return };
        let host = host.trim_matches(['[', ']']);
        let trust = match url.scheme() {
            "https" if !time.insecure && time.window.holds_at(host, date) => Trust::Verified,
            "https" if !time.insecure => return, // it disagrees with its own certificate
            _ => Trust::Obeyed,
        };
        time.keeper.consider(date, trust, &url.origin().ascii_serialization());
    }

    /// Where a certificate was refused because of its time: whether the server's time was believed, so that it is worth
    /// calling again.
    async fn learns_time(&self, base: &str, error: &Error) -> bool {
        let about_time = tls::find_rejection(error).is_some_and(|rejection| rejection.cause.is_about_time());
        let (true, Some(time), Ok(url)) = (about_time, &self.time, Url::parse(base)) else { return false };
        let Some(host) = url.host_str().map(|host| host.trim_matches(['[', ']'])) else { return false };
        let asked = timeout(self.limit, time.asking.get(format!("{base}/")).send()).await;
        let date = match asked {
            Ok(Ok(response)) => date::of(response.headers()),
            Ok(Err(_)) | Err(_) => None, // not trusted at any time
        };
        let good = |date: &i64| time.window.holds_at(host, *date);
        date.filter(good).is_some_and(|date| time.keeper.consider(date, Trust::VerifiedThen, base))
    }

    fn prefer(&self, base: &str) {
        let mut urls = self.lock_urls();
        if let Some(position) = urls.iter().position(|url| url == base) {
            urls.rotate_left(position);
        }
    }

    /// A conductor that sends everybody from http to https is called by https from now on: what is posted is not redirected.
    fn adopt(&self, base: &str, path: &str, target: &str) {
        let Some(better) = target.strip_suffix(path).filter(|better| better.starts_with("https://")) else {
            return;
        };
        if base.starts_with("http://") {
            tracing::warn!(
                from = shown(base),
                to = shown(better),
                "the conductor wants to be called by https"
            );
            let mut urls = self.lock_urls();
            urls.iter_mut().filter(|url| *url == base).for_each(|url| better.clone_into(url));
        }
    }
}

/// What one request led to.
enum Exchanged {
    Reply(Reply),
    Redirect(String),
}

/// Where to go on: the same host, not from https to http, and only for a GET, which carries nothing.
fn redirect(method: &Method, from: &str, target: &str) -> Option<Url> {
    let from = Url::parse(from).ok()?;
    let target = from.join(target).ok()?;
    let same_host = target.host_str() == from.host_str();
    let safe = target.scheme() == from.scheme() || target.scheme() == "https";
    let plain = target.username().is_empty() && target.password().is_none();
    (*method == Method::GET && same_host && safe && plain).then_some(target)
}

/// `Retry-After`: seconds, or a date.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok()
}

/// The time limit of one call as a whole: connecting, sending, and a slow reply.
fn call_limit(request_timeout: Duration) -> Duration {
    request_timeout.saturating_mul(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_is_redirected_on_its_own_host_and_never_to_plain_http() {
        let to = |from: &str, target: &str| redirect(&Method::GET, from, target).map(String::from);
        assert_eq!(to("http://h:6385/v1/x", "/v2/x").as_deref(), Some("http://h:6385/v2/x"));
        assert_eq!(to("http://h/v1/x?a=b", "https://h/v1/x?a=b").as_deref(), Some("https://h/v1/x?a=b"));
        assert_eq!(to("https://h/v1", "http://h/v1"), None);
        assert_eq!(to("http://h/v1", "http://evil/v1"), None);
        assert_eq!(to("http://h/v1", "//evil/v1"), None);
        assert_eq!(to("http://h/v1", "http://u:p@h/v1"), None);
        assert_eq!(to("http://h/v1", "file:///etc/passwd"), None);
        assert_eq!(redirect(&Method::POST, "http://h/v1", "/v2"), None);
    }

    #[test]
    fn patience_is_asked_for_in_seconds_or_by_date() {
        let of = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap());
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(of("soon"), None);
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!((98..=100).contains(&of(&later).unwrap().as_secs()));
    }

    #[test]
    fn a_url_is_shown_without_user_password_and_query() {
        assert_eq!(shown("https://u:p@h:6385/v1/lookup?a=b"), "https://***@h:6385/v1/lookup");
        assert_eq!(shown("http://[2001:db8::1]:6385"), "http://[2001:db8::1]:6385");
    }

    #[test]
    fn what_a_server_sent_is_quoted_in_part_and_on_one_line() {
        assert_eq!(start_of("", 80), "nothing");
        assert_eq!(start_of("<html>\n <p>x", 80), "<html> <p>x");
        assert_eq!(start_of(&"x".repeat(10_000), 80).len(), 83);
    }
}
