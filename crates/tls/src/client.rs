//! A client's TLS: whom it trusts, what it shows of itself, which versions and suites it speaks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::chain::Anchor;
use crate::pem::{self, Certificates};
use crate::verify::{AcceptAny, Anchors, Verifier, Window};
use crate::{CipherSuites, Clock, Version, provider, system_bundle, versions};

/// A client's certificate, both files PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How a client speaks TLS.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Where the system's bundle is looked for: `/` but in tests.
    pub root: PathBuf,
    /// PEM file of trust anchors; without it, the system's bundle.
    pub ca_file: Option<PathBuf>,
    /// Accept any certificate.
    pub insecure: bool,
    /// The oldest version to speak.
    pub minimum: Version,
    /// The suites of TLS 1.2; all when none.
    pub suites: Option<CipherSuites>,
    /// Shown to servers that ask for it.
    pub identity: Option<Identity>,
    /// The time by which certificates are judged.
    pub clock: Clock,
    /// Remembers the certificates that were accepted.
    pub window: Window,
    /// Accepts a chain that would be good at another time. **Only for asking what time it is**: what such a server says
    /// counts for nothing until [`Window::holds_at`] agrees.
    pub at_any_time: bool,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            root: "/".into(),
            ca_file: None,
            insecure: false,
            minimum: Version::default(),
            suites: None,
            identity: None,
            clock: Clock::default(),
            window: Window::default(),
            at_any_time: false,
        }
    }
}

/// TLS can not be set up as it is wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of certificates cannot be read.
    #[error("reading {}; the option {option} must name a PEM file", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The option that names it.
        option: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of a key is missing or no PEM.
    #[error("reading {}; the option keyfile must name a PEM file", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file of trust anchors without any.
    #[error("{} holds no usable certificate; the option cafile must name a PEM file of trust anchors", path.display())]
    NoAnchor {
        /// The file.
        path: PathBuf,
    },
    /// rustls does not take it.
    #[error("setting up TLS with {what}")]
    Refused {
        /// What it does not take.
        what: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// The rustls configuration of a client. Without trust anchors every https server is refused, in words; an http one is not
/// touched by that.
pub fn client_config(settings: &ClientSettings) -> Result<ClientConfig, Error> {
    let provider = provider(settings.suites.as_ref());
    let refused = |what: &str| {
        let what = what.to_owned();
        move |source| Error::Refused { what, source }
    };
    let builder = ClientConfig::builder_with_details(provider, Arc::new(settings.clock.clone()))
        .with_protocol_versions(versions(settings.minimum))
        .map_err(refused("these versions and suites"))?;
    let builder = if settings.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny))
    } else {
        let anchors = Arc::new(anchors(settings)?);
        settings.window.watch(&anchors);
        let (window, at_any_time) = (settings.window.clone(), settings.at_any_time);
        let verifier = Verifier { anchors, window, at_any_time };
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    };
    let Some(own) = &settings.identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(&own.certificate, "certfile")?.certificates;
    let key = PrivateKeyDer::from_pem_file(&own.key)
        .map_err(|source| Error::Key { path: own.key.clone(), source })?;
    let what = format!("the client certificate {}", own.certificate.display());
    builder.with_client_auth_cert(chain, key).map_err(refused(&what))
}

fn anchors(settings: &ClientSettings) -> Result<Anchors, Error> {
    let path = settings.ca_file.clone().or_else(|| system_bundle(&settings.root));
    // The system's authorities sign servers; only a file chosen for this very purpose may hold a server itself.
    let pinning = settings.ca_file.is_some();
    let Some(path) = path else {
        return Ok(Anchors { anchors: Vec::new(), pinning, source: None });
    };
    // A system's bundle that cannot be used is as good as none: plain http needs no authority, and an https server is refused.
    let is_systems = settings.ca_file.is_none();
    let nothing = || Anchors { anchors: Vec::new(), pinning, source: None };
    let Certificates { certificates, rejected, broken } = match certificates(&path, "cafile") {
        Err(error) if is_systems => {
            tracing::warn!(path = %path.display(), %error, "the system's CA bundle cannot be used; no https server is trusted");
            return Ok(nothing());
        }
        other => other?,
    };
    let found = certificates.len();
    let anchors: Vec<_> = certificates.into_iter().filter_map(Anchor::new).collect();
    let unreadable = broken + found - anchors.len();
    tracing::debug!(path = %path.display(), anchors = anchors.len(), rejected, unreadable, "trust anchors loaded");
    if anchors.is_empty() && is_systems {
        tracing::warn!(path = %path.display(), "the system's CA bundle holds no certificate; no https server is trusted");
        return Ok(nothing());
    }
    if anchors.is_empty() {
        return Err(Error::NoAnchor { path });
    }
    if pinning && rejected + unreadable > 0 {
        tracing::warn!(
            path = %path.display(),
            unreadable,
            rejected,
            "certificates of the option cafile are left out: they can not be read, or their file rejects them for servers"
        );
    }
    Ok(Anchors { anchors, pinning, source: Some(path.display().to_string()) })
}

fn certificates(path: &Path, option: &'static str) -> Result<Certificates, Error> {
    pem::read(path).map_err(|source| Error::File { path: path.to_owned(), option, source })
}
