//! TLS as client and as server: which versions and cipher suites, who is trusted, by which clock, and why a handshake failed.
//!
//! - [`ClientSettings`] becomes a rustls configuration: for calls to the conductor and for image downloads alike.
//! - [`provider`] and [`versions`] are what client and server have in common.
//! - [`CipherSuites`] reads OpenSSL's cipher lists; [`system_bundle`] finds the system's trust anchors.
//! - A server's certificate is judged by `chain`, with `names` and `signature`, as OpenSSL would judge it.
//! - A certificate that is refused becomes a [`Rejection`]: which certificate, which check, which clock, what to do.
//! - [`Clock`] is the time that certificates are judged by; [`Certificate`] is a certificate as a person reads it.
//!
//! Knows nothing of HTTP or of the agent's options beyond their names, which stand in its advice.

mod advice;
mod certificate;
mod chain;
mod client;
mod clock;
mod names;
mod p521;
mod pem;
mod pss;
mod rejection;
mod roots;
mod signature;
mod suites;
mod verify;
mod version;

pub use advice::{advice, chain, find_rejection, find_tls_error};
pub use certificate::{Certificate, utc};
pub use client::{ClientSettings, Error, Identity, client_config};
pub use clock::Clock;
pub use rejection::{Cause, Rejection};
pub use roots::{SYSTEM_BUNDLES, system_bundle};
pub use suites::{CipherSuites, NoSuite, provider};
pub use verify::Window;
pub use version::{Version, versions};
