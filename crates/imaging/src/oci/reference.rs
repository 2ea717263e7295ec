//! `oci://registry/repository:tag` and `oci://registry/repository@sha256:...`, parsed. Pure.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::error::Error;

/// The scheme of references.
const SCHEME: &str = "oci://";

/// What is asked for when a reference names neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// Where a disk image lies in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciReference {
    /// Host, with a port where it is not the usual one.
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl OciReference {
    /// Whether a URL is a reference to a registry, by its scheme.
    pub fn is_reference(url: &str) -> bool {
        url.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
    }

    /// Whether it names its content by digest.
    pub fn is_pinned(&self) -> bool {
        self.digest.is_some()
    }

    /// The same repository, by the digest of a manifest.
    pub(super) fn at(&self, digest: &str) -> Self {
        Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() }
    }

    /// Path of the repository in the registry.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// What to ask the registry for: the digest before the tag.
    pub(super) fn wanted(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    /// `https://registry/v2/repository/`. A registry on this machine is asked without TLS, as every registry client does.
    pub(crate) fn base(&self) -> Result<Url, Error> {
        let host = self.registry.rsplit_once(':').map_or(self.registry.as_str(), |(host, _)| host);
        let scheme = if matches!(host, "localhost" | "127.0.0.1" | "[::1]") { "http" } else { "https" };
        Url::parse(&format!("{scheme}://{}/v2/{}/", self.registry, self.repository))
            .map_err(|error| Error::Source { url: self.to_string(), reason: error.to_string() })
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl FromStr for OciReference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Source { url: text.to_owned(), reason: reason.to_owned() };
        let rest = text.get(SCHEME.len()..).filter(|_| Self::is_reference(text));
        let rest = rest.ok_or_else(|| refuse("it does not begin with oci://"))?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(refuse("its digest is not sha256: and 64 hexadecimal digits")),
            None => (rest, None),
        };
        let (registry, path) =
            rest.split_once('/').ok_or_else(|| refuse("it names a registry and no repository"))?;
        if registry.contains('@') || registry.is_empty() {
            return Err(refuse("it names no registry; credentials have no place in it"));
        }
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        // The grammar of the distribution specification, a little wider.
        let component = |part: &str| {
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
                && part != "."
                && part != ".."
        };
        if !repository.split('/').all(component) {
            return Err(refuse(
                "its repository has parts that no registry allows (lower case, digits, . _ -)",
            ));
        }
        let is_tag = |tag: &str| {
            !tag.is_empty()
                && tag.len() <= 128
                && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse("its tag has characters that no registry allows"));
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), tag, digest })
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_printed_alike() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, wanted, base) in [
            ("oci://quay.io/a/b:1.2", "1.2", "https://quay.io/v2/a/b/"),
            ("oci://quay.io/a/b", "latest", "https://quay.io/v2/a/b/"),
            ("oci://localhost:5000/disk:x", "x", "http://localhost:5000/v2/disk/"),
            ("oci://[::1]:5000/disk", "latest", "http://[::1]:5000/v2/disk/"),
            (&format!("oci://r.example:8443/a/b@{digest}"), &digest, "https://r.example:8443/v2/a/b/"),
            (&format!("oci://r/a:t@{digest}"), &digest, "https://r/v2/a/"),
        ] {
            let reference: OciReference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!((reference.wanted(), reference.base().unwrap().as_str()), (wanted, base));
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "http://quay.io/a",
            "oci://quay.io",
            "oci:///a",
            "oci://user:secret@quay.io/a",
            "oci://quay.io/a/../b",
            "oci://quay.io/a//b",
            "oci://quay.io/A",
            "oci://quay.io/a:b c",
            "oci://quay.io/a@sha256:12",
            "oci://quay.io/a@md5:aaaa",
            "oci://quay.io/a?x=y",
        ] {
            assert!(text.parse::<OciReference>().is_err(), "{text}");
        }
    }
}
