//! HTTP towards the conductor: several URLs, one version, the headers Ironic insists on.
//!
//! Trust is explicit: the configured CA file, the system's bundle, or none when told so. Redirects and proxies are reqwest's.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Identity, Method};
use serde_json::Value;
use sys::Host;
use wire::{ApiFault, Microversion};

use crate::config::{Config, TlsVersion};

/// The system's trust anchors.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Longest reply that is read: a lookup is some kilobytes.
const REPLY_LIMIT: usize = 16 * 1024 * 1024;
const REQUEST_ID: &str = "X-OpenStack-Request-ID";

/// Why a call to the conductor did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Certificates or keys can not be used.
    #[error("reading {}: {hint}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The client can not be made.
    #[error("making the HTTP client")]
    Build(#[source] reqwest::Error),
    /// No URL answered.
    #[error("calling {url}")]
    Connection {
        /// The last URL that was tried.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// There is no URL.
    #[error("no API URL is known; give ipa-api-url=http://... on the kernel command line, or --api-url")]
    NoUrl,
    /// Time is up.
    #[error("{url} did not answer within {} seconds", limit.as_secs())]
    TimedOut {
        /// The URL.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// The reply is longer than anything expected.
    #[error("the reply of {url} is longer than {REPLY_LIMIT} bytes")]
    TooLong {
        /// The URL.
        url: String,
    },
    /// The reply has another status than the one that means success.
    #[error("{url} answered {status}: {text}")]
    Status {
        /// The URL.
        url: String,
        /// HTTP status.
        status: u16,
        /// The text of the error body.
        text: String,
    },
    /// The reply can not be understood.
    #[error("{url} answered something else than {expected}")]
    Content {
        /// The URL.
        url: String,
        /// What was expected.
        expected: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// The HTTP status, where there was a reply.
    pub fn status(&self) -> Option<u16> {
        if let Error::Status { status, .. } = self { Some(*status) } else { None }
    }
}

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
    /// Its body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The error that this reply is, for one who expected another status.
    pub fn into_error(self) -> Error {
        let text = ApiFault::text_of(&String::from_utf8_lossy(&self.body));
        Error::Status { url: self.url, status: self.status, text }
    }

    /// The body as JSON.
    pub fn json<T: for<'de> serde::Deserialize<'de>>(&self, expected: &'static str) -> Result<T, Error> {
        let content = |source| Error::Content { url: self.url.clone(), expected, source };
        serde_json::from_slice(&self.body).map_err(content)
    }
}

/// A client of the conductor's API.
pub struct Client {
    http: reqwest::Client,
    /// The URL that answered last stands first.
    urls: Mutex<Vec<String>>,
    configured: Option<Microversion>,
    negotiated: Mutex<Option<Microversion>>,
}

/// Makes an HTTP client with the configuration's trust anchors, TLS version and time limits.
pub fn http_client(host: &Host, config: &Config, headers: HeaderMap) -> Result<reqwest::Client, Error> {
    let limit = **config.http_request_timeout;
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("ferric-agent/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .connect_timeout(limit)
        .read_timeout(limit)
        .pool_max_idle_per_host(1)
        .tls_version_min(match *config.tls_min_version {
            TlsVersion::V1_2 => reqwest::tls::Version::TLS_1_2,
            TlsVersion::V1_3 => reqwest::tls::Version::TLS_1_3,
        });
    if *config.insecure {
        builder = builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true);
    } else {
        builder = builder.tls_certs_only(roots(host, config)?);
    }
    if let (Some(certificate), Some(key)) = (&*config.certfile, &*config.keyfile) {
        builder = builder.identity(identity(host, certificate, key)?);
    }
    builder.build().map_err(Error::Build)
}

fn roots(host: &Host, config: &Config) -> Result<Vec<Certificate>, Error> {
    let configured = config.cafile.as_ref();
    let path = configured.cloned().unwrap_or_else(|| SYSTEM_ROOTS.into());
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Tls {
        path: path.clone(),
        hint: "the option cafile must name a PEM file of trust anchors",
        source,
    };
    match std::fs::read(host.path(&path)) {
        Ok(pem) => Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.into())),
        Err(error) if configured.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            tracing::warn!(
                path = SYSTEM_ROOTS,
                "no trust anchors: no https:// server can be verified; set cafile"
            );
            Ok(Vec::new())
        }
        Err(error) => Err(failed(error.into())),
    }
}

fn identity(host: &Host, certificate: &PathBuf, key: &PathBuf) -> Result<Identity, Error> {
    let mut pem = Vec::new();
    for path in [key, certificate] {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Tls {
            path: path.clone(),
            hint: "the options certfile and keyfile must name PEM files",
            source,
        };
        pem.extend(std::fs::read(host.path(path)).map_err(|error| failed(error.into()))?);
        pem.push(b'\n');
    }
    Identity::from_pem(&pem).map_err(Error::Build)
}

impl Client {
    /// A client by configuration.
    pub fn new(host: &Host, config: &Config) -> Result<Self, Error> {
        let settings = ClientSettings {
            urls: config.api_url.to_vec(),
            version: *config.ironic_api_version,
            request_id: config.global_request_id.value.clone(),
        };
        let mut headers = HeaderMap::new();
        if let Some(Ok(id)) = settings.request_id.as_deref().map(HeaderValue::from_str) {
            headers.insert(REQUEST_ID, id);
        }
        Ok(Self::with(http_client(host, config, headers)?, settings))
    }

    /// A client made of parts.
    pub fn with(http: reqwest::Client, settings: ClientSettings) -> Self {
        let ClientSettings { urls, version, request_id: _ } = settings;
        Self { http, urls: Mutex::new(urls), configured: version, negotiated: Mutex::default() }
    }

    /// The URLs, the one that answered last first.
    pub fn urls(&self) -> Vec<String> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The greatest version the conductor speaks. Where it answers but does not tell, 1.31 is assumed, and the next call asks
    /// again (agent protocol page, 3.2). Unlike upstream, no answer at all is an error: a conductor that comes back between
    /// this call and the lookup would take 1.31 at its word, and give no token.
    pub async fn version(&self) -> Result<Microversion, Error> {
        if let Some(version) = self.configured.or(*self.negotiated()) {
            return Ok(version);
        }
        match self.ask_version().await {
            Ok(version) => {
                tracing::info!(%version, "the conductor's API version");
                *self.negotiated() = Some(version);
                Ok(version)
            }
            Err(error @ (Error::Connection { .. } | Error::TimedOut { .. } | Error::NoUrl)) => Err(error),
            Err(error) => {
                tracing::warn!(error = hwm::chain(&error), assumed = %Microversion::FALLBACK, "asking for the API version failed");
                Ok(Microversion::FALLBACK)
            }
        }
    }

    fn negotiated(&self) -> std::sync::MutexGuard<'_, Option<Microversion>> {
        self.negotiated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_version(&self) -> Result<Microversion, Error> {
        const EXPECTED: &str = "a version document with default_version.version";
        let reply = self.call(Method::GET, "/", None, None).await?;
        if reply.status != 200 {
            return Err(reply.into_error());
        }
        let document: Value = reply.json(EXPECTED)?;
        let version =
            document.pointer("/default_version/version").and_then(Value::as_str).unwrap_or_default();
        version.parse().map_err(|error| Error::Content {
            url: reply.url,
            expected: EXPECTED,
            source: serde::de::Error::custom(error),
        })
    }

    /// One call: each URL is tried until one answers, whatever it answers; that one goes first from now on.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        version: Option<Microversion>,
        body: Option<&[u8]>,
    ) -> Result<Reply, Error> {
        let mut last = Error::NoUrl;
        for base in self.urls() {
            match self.call_one(method.clone(), format!("{base}{path}"), version, body).await {
                Ok(reply) => {
                    self.prefer(&base);
                    return Ok(reply);
                }
                Err(error) => {
                    tracing::debug!(error = hwm::chain(&error), "an API URL does not answer");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn call_one(
        &self,
        method: Method,
        url: String,
        version: Option<Microversion>,
        body: Option<&[u8]>,
    ) -> Result<Reply, Error> {
        let shown = url.split('?').next().unwrap_or_default().to_owned();
        let failed =
            |source: reqwest::Error| Error::Connection { url: shown.clone(), source: source.without_url() };
        // Ironic answers 400 to a POST without this content type, and 404 to ramdisk calls without a version.
        let mut request = self.http.request(method, &url);
        request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json");
        if let Some(version) = version {
            request = request.header(Microversion::HEADER, version.to_string());
        }
        if let Some(body) = body {
            request = request.body(body.to_vec());
        }
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len().saturating_add(chunk.len()) > REPLY_LIMIT {
                return Err(Error::TooLong { url: shown });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Reply { url: shown, status, body: bytes })
    }

    fn prefer(&self, base: &str) {
        let mut urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = urls.iter().position(|url| url == base) {
            urls.rotate_left(position);
        }
    }
}

/// The time limit of one call as a whole: connecting, sending, and a slow reply.
pub(super) fn call_limit(request_timeout: Duration) -> Duration {
    request_timeout.saturating_mul(3)
}
