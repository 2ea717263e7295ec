//! Disk images in OCI registries: from `oci://registry/repository:tag` to a blob that can be fetched like any image.
//!
//! Source: OCI distribution specification 1.1 (manifests, token authentication) and image specification 1.1 (index,
//! manifest, annotations). Nothing is fetched here but the manifests; the disk itself streams from the blob's URL, held to
//! the digest that its manifest names. A manifest asked for by digest is held to that digest.

mod challenge;
mod reference;
mod select;

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;
use sha2::{Digest, Sha256};
use wire::Secret;

use crate::ExpectedDigest;
use crate::error::{Error, is_fatal_status};
use crate::request::{Proxies, Transport};
use crate::source::{client, shown};
use challenge::Challenge;
pub use reference::OciReference;
use select::Descriptor;

/// Larger manifests and answers of token servers are refused.
const LIMIT: usize = 4 * 1024 * 1024;

/// Indexes inside indexes that are followed.
const DEPTH: u32 = 3;

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A disk image in a registry, ready to be fetched.
#[derive(Clone, Debug)]
pub struct OciImage {
    /// URL of the blob.
    pub url: String,
    /// The complete `Authorization` header for it, where the registry wants one.
    pub authorization: Option<Secret>,
    /// The digest of the blob, from its manifest.
    pub digest: ExpectedDigest,
    /// Size of the blob in bytes, from its manifest.
    pub size: u64,
    /// File name of the disk image, where its manifest names one.
    pub title: Option<String>,
    /// Whether the reference names its content by digest, so that nobody can exchange it.
    pub pinned: bool,
}

/// Finds the disk image behind a reference. Blocks; retries as an image write does.
///
/// `authorization` is the complete header for the registry (or its token server), where one is needed; `architecture` is
/// this machine's, as the kernel names it.
///
/// # Errors
/// [`Error::Registry`] says what the registry holds instead; else as [`crate::write_image`] for its download.
pub fn resolve_oci(
    reference: &OciReference,
    transport: &Transport,
    proxies: &Proxies,
    authorization: Option<&Secret>,
    architecture: &str,
) -> Result<OciImage, Error> {
    let base = reference.base()?;
    let client = client::build(transport, proxies, std::slice::from_ref(&base))?;
    let runtime = crate::pipeline::runtime()?;
    let mut registry = Registry { client, base, transport, reference, given: authorization, token: None };
    let result = runtime.block_on(registry.resolve(architecture));
    drop(registry);
    runtime.shutdown_background();
    result
}

struct Registry<'r> {
    client: Client,
    /// `https://registry/v2/repository/`.
    base: Url,
    transport: &'r Transport,
    reference: &'r OciReference,
    given: Option<&'r Secret>,
    /// Header that the registry accepted or its token server gave.
    token: Option<Secret>,
}

impl Registry<'_> {
    async fn resolve(&mut self, architecture: &str) -> Result<OciImage, Error> {
        let mut wanted = self.reference.wanted().to_owned();
        for _ in 0..DEPTH {
            let manifest = self.manifest(&wanted).await?;
            match select::next(&manifest, architecture).map_err(|reason| self.refused(reason))? {
                select::Next::Manifest(digest) => wanted = digest,
                select::Next::Disk(descriptor) => return self.image(descriptor),
            }
        }
        Err(self.refused(format!("its indexes are nested more than {DEPTH} deep")))
    }

    fn image(&self, disk: Descriptor) -> Result<OciImage, Error> {
        let digest = ExpectedDigest::parse(&disk.digest)
            .map_err(|error| self.refused(format!("its disk has no usable digest: {error}")))?;
        Ok(OciImage {
            url: self.url("blobs", &disk.digest)?.to_string(),
            authorization: self.token.clone(),
            digest,
            size: disk.size,
            title: disk.title,
            pinned: self.reference.is_pinned(),
        })
    }

    fn url(&self, kind: &str, name: &str) -> Result<Url, Error> {
        self.base
            .join(&format!("{kind}/{name}"))
            .map_err(|error| self.refused(format!("it names something that is no URL: {error}")))
    }

    fn refused(&self, reason: String) -> Error {
        Error::Registry { reference: self.reference.to_string(), reason }
    }

    /// A manifest by tag or digest.
    async fn manifest(&mut self, wanted: &str) -> Result<Value, Error> {
        let url = self.url("manifests", wanted)?;
        let bytes = self.get(&url).await?;
        if let Some(hex) = wanted.strip_prefix("sha256:") {
            let actual = hex::encode(Sha256::digest(&bytes));
            if actual != hex {
                return Err(
                    self.refused(format!("its manifest has the digest sha256:{actual}, not {wanted}"))
                );
            }
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| self.refused(format!("its manifest is no JSON: {error}")))
    }

    /// Fetches a small document from the registry, with a token where it asks for one.
    async fn get(&mut self, url: &Url) -> Result<Vec<u8>, Error> {
        let answer = self.patiently(url, self.token.as_ref(), Some(MANIFESTS)).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return self.body(answer, url).await;
        }
        let challenge = answer
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(Challenge::parse);
        self.token = match challenge {
            Some(Challenge::Basic) => self.given.cloned(),
            Some(Challenge::Bearer(ask)) => Some(self.bearer(&ask).await?),
            None => None,
        };
        if self.token.is_none() {
            let reason = "the registry wants credentials, and none are known for it".to_owned();
            return Err(self.refused(reason));
        }
        let answer = self.patiently(url, self.token.as_ref(), Some(MANIFESTS)).await?;
        self.body(answer, url).await
    }

    /// A token from the server that the registry names.
    async fn bearer(&self, ask: &challenge::Bearer) -> Result<Secret, Error> {
        let url = ask.url(&format!("repository:{}:pull", self.reference.repository()));
        let url = url.filter(|url| url.scheme() == self.base.scheme() || url.scheme() == "https");
        let Some(url) = url else {
            // Credentials for a registry over TLS must not go out in clear.
            return Err(self.refused("the registry names a token server that can not be used".to_owned()));
        };
        let answer = self.patiently(&url, self.given, None).await?;
        let bytes = self.body(answer, &url).await?;
        let parsed: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        ["token", "access_token"]
            .iter()
            .find_map(|key| parsed.get(key)?.as_str())
            .map(|token| Secret::new(format!("Bearer {token}")))
            .ok_or_else(|| self.refused("the registry's token server gave no token".to_owned()))
    }

    /// One request, tried again where patience may help. The status is the caller's to judge if patience will not.
    async fn patiently(
        &self,
        url: &Url,
        authorization: Option<&Secret>,
        accept: Option<&'static str>,
    ) -> Result<Response, Error> {
        let mut attempt = 1;
        loop {
            let error = match self.once(url, authorization, accept).await {
                Ok(answer) if answer.status().is_success() || is_fatal_status(answer.status().as_u16()) => {
                    return Ok(answer);
                }
                Ok(answer) => Error::Status { url: shown(url), status: answer.status().as_u16() },
                Err(error) => error,
            };
            if attempt >= self.transport.attempts.max(1) {
                return Err(error);
            }
            tracing::warn!(reason = error.report(), attempt, "asking the registry failed, trying again");
            attempt += 1;
            tokio::time::sleep(self.transport.retry_interval).await;
        }
    }

    async fn once(
        &self,
        url: &Url,
        authorization: Option<&Secret>,
        accept: Option<&'static str>,
    ) -> Result<Response, Error> {
        let mut request = self.client.get(url.clone()).timeout(self.limit());
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(secret) = authorization {
            let mut value = HeaderValue::from_str(secret.expose())
                .map_err(|_| self.refused("its credentials are no legal header value".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request.send().await.map_err(|error| Error::Fetch {
            url: shown(url),
            offset: 0,
            source: error.without_url(),
        })
    }

    /// The body of a successful answer.
    async fn body(&self, mut answer: Response, url: &Url) -> Result<Vec<u8>, Error> {
        if !answer.status().is_success() {
            return Err(Error::Status { url: shown(url), status: answer.status().as_u16() });
        }
        let mut bytes = Vec::new();
        let failed =
            |error: reqwest::Error| Error::Fetch { url: shown(url), offset: 0, source: error.without_url() };
        while let Some(more) = answer.chunk().await.map_err(failed)? {
            if bytes.len() + more.len() > LIMIT {
                return Err(Error::TooLong { url: shown(url), limit: LIMIT as u64 });
            }
            bytes.extend_from_slice(&more);
        }
        Ok(bytes)
    }

    /// For a whole answer: manifests are small.
    fn limit(&self) -> Duration {
        self.transport.connect_timeout
    }
}
