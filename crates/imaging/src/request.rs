//! What a caller says about an image and about the way to it. Plain data.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{Checks, DecoderMemory, ExpectedDigest, ExpectedSignature, Format, Preflight, Translate};

/// One image to put onto one disk.
#[derive(Clone, Debug)]
pub struct ImageRequest {
    /// What the image is called in events, messages and logs (Ironic's image id, a file name). No credentials.
    pub label: String,
    /// Where it can be had, in order of preference: `http:`, `https:`, `oci:` or `file:` URLs of the same bytes.
    pub sources: Vec<String>,
    /// The digest that the published bytes must have.
    pub digest: ExpectedDigest,
    /// The signature that the published bytes must match as well; without one, the digest alone decides.
    pub signature: Option<ExpectedSignature>,
    /// The declared format. An image that is something else is refused before a byte is written. A raw image may come
    /// compressed by gzip, zstd, xz or bzip2, told by its first bytes; the digest is that of the compressed file.
    pub format: Format,
    /// What is refused by a look at the image's first bytes.
    pub checks: Checks,
    /// Who rewrites a partition table that was made for other sectors than the disk's; without anybody, such an image is refused.
    pub translate: Option<Arc<dyn Translate>>,
    /// Judges the disk image before anything is written: whether a config drive will find a place beside it.
    pub preflight: Option<Arc<dyn Preflight>>,
    /// The complete value of the `Authorization` header, for HTTP sources. It is not sent on to another host. A registry, or
    /// the token server that it names, gets it when it asks for credentials.
    pub authorization: Option<wire::Secret>,
    /// Proxies for this image. The default takes those of the environment (`http_proxy` and the like).
    pub proxies: Proxies,
    /// Read the disk back after writing and compare, before it is made bootable.
    pub read_back: bool,
}

/// Proxies by the scheme of the URL that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Proxy URL for `http:` sources.
    pub http: Option<String>,
    /// Proxy URL for `https:` sources.
    pub https: Option<String>,
    /// Comma-separated hosts and networks that are reached directly.
    pub no_proxy: Option<String>,
}

/// How to talk to servers and how patient to be. The defaults are Ironic's (data plane 1.3, 1.4).
#[derive(Clone, Debug)]
pub struct Transport {
    /// PEM file with the authorities to trust; without it, the system's bundle ([`tls::SYSTEM_BUNDLES`]).
    pub ca_file: Option<PathBuf>,
    /// Accept any server certificate.
    pub insecure: bool,
    /// The oldest TLS version to speak.
    pub minimum_tls: tls::Version,
    /// The suites of TLS 1.2 that may be used; all when none.
    pub cipher_suites: Option<tls::CipherSuites>,
    /// Limit for connecting, for an answer to begin, and for each read of a body; not for the whole transfer.
    pub connect_timeout: Duration,
    /// Tries in a row that may fail without progress before a source is given up; at least 1.
    pub attempts: u32,
    /// How often the whole image may be fetched in hope of the right digest; at least 1. A person who mistyped a digest wants to
    /// know at once, a conductor wants Ironic's patience (data plane 1.4).
    pub digest_attempts: u32,
    /// Wait between two tries.
    pub retry_interval: Duration,
    /// Limit for the whole transfer, all its tries and pauses included; none by default.
    pub max_duration: Option<Duration>,
    /// Certificate to show to servers that ask for one.
    pub client_certificate: Option<tls::Identity>,
    /// Memory that decompressing an image may take (the window of zstd, the dictionary of xz). An image that needs more is
    /// refused.
    pub decoder_memory: DecoderMemory,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            ca_file: None,
            insecure: false,
            minimum_tls: tls::Version::default(),
            cipher_suites: None,
            connect_timeout: Duration::from_secs(60),
            attempts: 10,
            digest_attempts: 1,
            retry_interval: Duration::from_secs(10),
            max_duration: None,
            client_certificate: None,
            decoder_memory: DecoderMemory::default(),
        }
    }
}

/// What a successful write did.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// Bytes of the image as published: what was downloaded and digested.
    pub published_bytes: u64,
    /// Size of the disk image in bytes: what of the disk now equals the image.
    pub virtual_size: u64,
    /// The digest, as `algorithm:hex`.
    pub digest: String,
    /// The source that delivered the last byte, without credentials.
    pub source: String,
    /// How often a broken transfer was taken up where it broke.
    pub resumed: u32,
    /// How often the write had to start over from the first byte.
    pub restarted: u32,
    /// Bytes written to the disk as data.
    pub data_bytes: u64,
    /// Bytes of the disk zeroed as ranges.
    pub zeroed_bytes: u64,
    /// Wall time in seconds.
    pub seconds: f64,
}
