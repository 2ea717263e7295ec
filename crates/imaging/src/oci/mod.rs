//! Disk images in OCI registries: from `oci://registry/repository:tag` to a blob that can be fetched like any image.
//!
//! Source: OCI distribution specification 1.1 (manifests, token authentication) and image specification 1.1 (index,
//! manifest, annotations). Nothing is fetched here but the manifests; the disk itself streams from the blob's URL, held to
//! the digest that its manifest names. A manifest asked for by digest is held to that digest.

mod challenge;
mod reference;
mod select;

use std::time::Duration;

use events::Events;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use url::Url;
use wire::Secret;

use crate::cancel::Cancel;
use crate::client::{Client, HttpError, Request, Response, is_field_value};
use crate::digest::{Algorithm, ExpectedDigest};
use crate::error::{Error, is_fatal_status};
use crate::pipeline::Interrupt;
use crate::request::{Proxies, Transport};
use crate::source::{Attempt, Source, shown};
use challenge::Challenge;
pub use reference::OciReference;
use select::Descriptor;

/// Larger manifests and answers of token servers are refused.
const LIMIT: usize = 4 * 1024 * 1024;

/// Indexes inside indexes that are followed.
const DEPTH: u32 = 3;

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A disk image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciImage {
    /// The reference by the digest of the manifest that was found: whoever writes it gets this image and no other.
    pub reference: OciReference,
    /// The digest of the blob, from its manifest: what an image without another digest is held to.
    pub digest: ExpectedDigest,
    /// Size of the blob in bytes, from its manifest.
    pub size: u64,
    /// File name of the disk image, where its manifest names one.
    pub title: Option<String>,
    /// Whether the reference named its content by digest already, so that nobody could exchange it.
    pub pinned: bool,
}

/// Where an image's bytes are, and the header that lets them be read.
pub(crate) struct Blob {
    pub(crate) url: Url,
    pub(crate) authorization: Option<Secret>,
    pub(crate) image: OciImage,
}

/// Finds the disk image behind `oci://registry/repository:tag` or `...@sha256:...`, for this machine's architecture. Blocks;
/// retries as an image write does. Only manifests are fetched.
///
/// `authorization` is the complete header for the registry or its token server, where one is needed: `Basic` credentials, or
/// a `Bearer` token that the registry gave out before.
///
/// # Errors
/// [`Error::Registry`] says what the registry holds instead; else as [`crate::write_image`] for its download.
pub fn resolve_oci(
    reference: &str,
    transport: &Transport,
    proxies: &Proxies,
    authorization: Option<&Secret>,
    cancel: &Cancel,
) -> Result<OciImage, Error> {
    reference.parse::<OciReference>()?;
    let events = Events::new(1);
    let runtime = crate::pipeline::runtime()?;
    let sources = [reference.to_owned()];
    let mut source = Source::new(&sources, authorization, proxies, transport, &events, cancel)?;
    let result = match runtime.block_on(source.described()) {
        Ok(Some(blob)) => Ok(blob.image),
        Err(Interrupt::Failed(error)) => Err(error),
        Ok(None) | Err(Interrupt::HungUp | Interrupt::Restart(_)) => {
            Err(Error::Pipeline("the registry was hung up"))
        }
    };
    drop(source);
    runtime.shutdown_background();
    result
}

/// Asks a registry once; whether to ask again is the source's decision.
pub(crate) async fn find(
    client: &Client,
    reference: &OciReference,
    given: Option<&Secret>,
    limit: Duration,
) -> Result<Blob, Attempt> {
    let base = reference.base().map_err(Attempt::GiveUp)?;
    let mut registry = Registry { client, base, reference, given, limit, token: None };
    // A token that somebody got already is shown at once: token servers take none.
    registry.token = given.filter(|header| is_bearer(header)).cloned();
    registry.find(std::env::consts::ARCH).await
}

fn is_bearer(header: &Secret) -> bool {
    header.expose().as_bytes().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
}

struct Registry<'r> {
    client: &'r Client,
    /// `https://registry/v2/repository/`.
    base: Url,
    reference: &'r OciReference,
    given: Option<&'r Secret>,
    /// For a whole answer: manifests are small.
    limit: Duration,
    /// Header that the registry accepted or its token server gave.
    token: Option<Secret>,
}

impl Registry<'_> {
    async fn find(&mut self, architecture: &str) -> Result<Blob, Attempt> {
        let mut wanted = self.reference.wanted().to_owned();
        for _ in 0..DEPTH {
            let (manifest, digest) = self.manifest(&wanted).await?;
            match select::next(&manifest, architecture).map_err(|reason| self.refused(reason))? {
                select::Next::Manifest(digest) => wanted = digest,
                select::Next::Disk(descriptor) => return self.blob(descriptor, &digest),
            }
        }
        Err(self.refused(format!("its indexes are nested more than {DEPTH} deep")))
    }

    fn blob(&self, disk: Descriptor, manifest: &str) -> Result<Blob, Attempt> {
        let digest = ExpectedDigest::parse(&disk.digest)
            .map_err(|error| self.refused(format!("its disk has no usable digest: {error}")))?;
        if !matches!(digest.algorithm(), Algorithm::Sha256 | Algorithm::Sha384 | Algorithm::Sha512) {
            let reason = format!("its disk has only an {} digest, which proves nothing", digest.algorithm());
            return Err(self.refused(reason));
        }
        let image = OciImage {
            reference: self.reference.at(manifest),
            digest,
            size: disk.size,
            title: disk.title,
            pinned: self.reference.is_pinned(),
        };
        Ok(Blob { url: self.url("blobs", &disk.digest)?, authorization: self.token.clone(), image })
    }

    fn url(&self, kind: &str, name: &str) -> Result<Url, Attempt> {
        self.base
            .join(&format!("{kind}/{name}"))
            .map_err(|error| self.refused(format!("it names something that is no URL: {error}")))
    }

    fn refused(&self, reason: String) -> Attempt {
        Attempt::GiveUp(Error::Registry { reference: self.reference.to_string(), reason })
    }

    /// A manifest by tag or digest, and its digest.
    async fn manifest(&mut self, wanted: &str) -> Result<(Value, String), Attempt> {
        let url = self.url("manifests", wanted)?;
        let bytes = self.get(&url).await?;
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if wanted.starts_with("sha256:") && wanted != digest {
            return Err(self.refused(format!("its manifest has the digest {digest}, not {wanted}")));
        }
        let manifest = serde_json::from_slice(&bytes)
            .map_err(|error| self.refused(format!("its manifest is no JSON: {error}")))?;
        Ok((manifest, digest))
    }

    /// Fetches a small document from the registry, with a token where it asks for one.
    async fn get(&mut self, url: &Url) -> Result<Vec<u8>, Attempt> {
        let answer = self.once(url, self.token.as_ref(), Some(MANIFESTS)).await?;
        if answer.status != 401 {
            return self.body(answer, url).await;
        }
        let challenge = answer
            .fields
            .all("www-authenticate")
            .filter_map(|value| std::str::from_utf8(value).ok())
            .find_map(Challenge::parse);
        let credentials = self.given.filter(|header| !is_bearer(header));
        let token = match challenge {
            _ if self.given.is_some() && credentials.is_none() => {
                return Err(self.refused("the registry does not accept the token that was given".to_owned()));
            }
            Some(Challenge::Basic) => credentials.cloned(),
            Some(Challenge::Bearer(ask)) => Some(self.bearer(&ask, credentials).await?),
            None => None,
        };
        if token.is_none() {
            let reason = "the registry wants credentials, and none are known for it".to_owned();
            return Err(self.refused(reason));
        }
        self.token = token;
        let answer = self.once(url, self.token.as_ref(), Some(MANIFESTS)).await?;
        self.body(answer, url).await
    }

    /// A token from the server that the registry names.
    async fn bearer(&self, ask: &challenge::Bearer, credentials: Option<&Secret>) -> Result<Secret, Attempt> {
        let url = ask.url(&format!("repository:{}:pull", self.reference.repository()));
        let url = url.filter(|url| url.scheme() == self.base.scheme() || url.scheme() == "https");
        let Some(url) = url else {
            // Credentials for a registry over TLS must not go out in clear.
            return Err(self.refused("the registry names a token server that can not be used".to_owned()));
        };
        let answer = self.once(&url, credentials, None).await?;
        let bytes = self.body(answer, &url).await?;
        let parsed: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let token = ["token", "access_token"].iter().find_map(|key| parsed.get(key)?.as_str());
        let header = token.filter(|token| is_field_value(token)).map(|token| format!("Bearer {token}"));
        let header =
            header.ok_or_else(|| self.refused("the registry's token server gave no token".to_owned()))?;
        Ok(Secret::new(header))
    }

    /// One request. A status that asks for patience is a failure to try again; any other is the caller's to judge.
    async fn once(
        &self,
        url: &Url,
        authorization: Option<&Secret>,
        accept: Option<&'static str>,
    ) -> Result<Response, Attempt> {
        let fields = accept.map(|accept| ("Accept", accept.to_owned())).into_iter().collect();
        let request = Request { url, authorization, fields };
        let answer = self.in_time(url, self.client.get(request)).await?;
        let status = answer.status;
        if (200..300).contains(&status) || is_fatal_status(status) {
            return Ok(answer);
        }
        Err(Attempt::Retry(Error::Status { url: shown(url), status }))
    }

    async fn in_time<T>(
        &self,
        url: &Url,
        answer: impl Future<Output = Result<T, HttpError>>,
    ) -> Result<T, Attempt> {
        let failed = |source| Attempt::Retry(Error::Fetch { url: shown(url), offset: 0, source });
        let seconds = self.limit.as_secs();
        let late = |_| Attempt::Retry(Error::Stalled { url: shown(url), offset: 0, seconds });
        timeout(self.limit, answer).await.map_err(late)?.map_err(failed)
    }

    /// The body of a successful answer.
    async fn body(&self, answer: Response, url: &Url) -> Result<Vec<u8>, Attempt> {
        if !(200..300).contains(&answer.status) {
            return Err(Attempt::GiveUp(Error::Status { url: shown(url), status: answer.status }));
        }
        self.in_time(url, small_body(answer))
            .await?
            .ok_or_else(|| Attempt::GiveUp(Error::TooLong { url: shown(url), limit: LIMIT as u64 }))
    }
}

/// Reads a body; `None` where it is longer than [`LIMIT`].
async fn small_body(mut answer: Response) -> Result<Option<Vec<u8>>, HttpError> {
    let mut bytes = Vec::new();
    loop {
        let count = answer.ready().await?;
        if count == 0 {
            return Ok(Some(bytes));
        }
        bytes.extend_from_slice(answer.available(count));
        answer.consume(count);
        if bytes.len() > LIMIT {
            return Ok(None);
        }
    }
}
