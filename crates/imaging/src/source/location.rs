//! Where an image can be had: the URLs that are understood, and how they are shown.

use std::path::PathBuf;

use url::Url;

use crate::error::Error;
use crate::oci::OciReference;

/// One place of an image.
pub(crate) enum Location {
    Http(Url),
    File(PathBuf),
    /// A registry that says where the blob is, and whether it takes a token.
    Oci(OciReference),
}

impl Location {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if OciReference::is_reference(text) {
            return text.parse().map(Location::Oci);
        }
        let wrong = |reason: String| Error::Source { url: shown_text(text), reason };
        if text.starts_with(['/', '.']) {
            return Err(wrong("a local file is written as file:///path/of/the/file".to_owned()));
        }
        let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
        match url.scheme() {
            "http" | "https" => Ok(Location::Http(url)),
            "file" => {
                let path = url.to_file_path().map_err(|()| wrong("it names no local file".to_owned()))?;
                Ok(Location::File(path))
            }
            scheme => Err(wrong(format!("scheme {scheme:?} is not supported: use http, https, oci or file"))),
        }
    }

    /// Whether a server has to prove who it is.
    pub(crate) fn needs_trust(&self) -> Result<bool, Error> {
        match self {
            Location::Http(url) => Ok(url.scheme() == "https"),
            Location::File(_) => Ok(false),
            Location::Oci(reference) => Ok(reference.base()?.scheme() == "https"),
        }
    }

    /// Its name in messages, without credentials.
    pub(crate) fn name(&self) -> String {
        match self {
            Location::Http(url) => shown(url),
            Location::File(path) => path.display().to_string(),
            Location::Oci(reference) => reference.to_string(),
        }
    }
}

/// A URL without what may be secret: user, password, query (signatures) and fragment.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that can not have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

pub(super) fn shown_text(text: &str) -> String {
    Url::parse(text).map_or_else(|_| "(not a URL)".to_owned(), |url| shown(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_urls_hold_no_secrets() {
        let url = Url::parse("https://user:pw@host:8443/a/b.qcow2?X-Signature=abc#frag").unwrap();
        assert_eq!(shown(&url), "https://host:8443/a/b.qcow2");
    }

    #[test]
    fn only_http_file_and_registries_are_sources() {
        assert!(matches!(Location::parse("file:///tmp/x"), Ok(Location::File(_))));
        assert!(matches!(Location::parse("https://h/x"), Ok(Location::Http(_))));
        assert!(matches!(Location::parse("OCI://h/x:y"), Ok(Location::Oci(_))));
        for bad in ["ftp://h/x", "oci://h", "/tmp/x", "", "file://remote/x"] {
            assert!(matches!(Location::parse(bad), Err(Error::Source { .. })), "{bad}");
        }
    }
}
