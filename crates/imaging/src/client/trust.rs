//! Which servers are trusted: TLS as the transport says, and no trust anchors but those that are named.

use std::path::Path;

use tls::ClientSettings;

use crate::error::Error;
use crate::request::Transport;

/// Returns the TLS configuration. `needs_trust`: a source is `https:`, so that missing trust anchors are an error now, which
/// names them, and not a failed handshake later.
pub(super) fn tls_config(transport: &Transport, needs_trust: bool) -> Result<rustls::ClientConfig, Error> {
    let settings = ClientSettings {
        ca_file: transport.ca_file.clone(),
        insecure: transport.insecure,
        minimum: transport.minimum_tls,
        suites: transport.cipher_suites.clone(),
        identity: transport.client_certificate.clone(),
        ..ClientSettings::default()
    };
    let trusts_nobody =
        !settings.insecure && settings.ca_file.is_none() && tls::system_bundle(Path::new("/")).is_none();
    if needs_trust && trusts_nobody {
        return Err(Error::NoTrust);
    }
    tls::client_config(&settings).map_err(Error::Tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_ca_file_is_named() {
        let transport = Transport { ca_file: Some("/nonexistent/ca.pem".into()), ..Transport::default() };
        let error = tls_config(&transport, true).unwrap_err();
        assert!(error.report().contains("/nonexistent/ca.pem"), "{error}");
    }

    #[test]
    fn an_empty_ca_file_is_refused_for_https() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let transport = Transport { ca_file: Some(file.path().to_owned()), ..Transport::default() };
        let error = tls_config(&transport, true).unwrap_err();
        assert!(error.report().contains("no usable certificate"), "{error}");
    }

    #[test]
    fn insecure_and_tls_13_build_without_any_authority() {
        let transport = Transport { insecure: true, minimum_tls: tls::Version::V1_3, ..Transport::default() };
        assert!(tls_config(&transport, true).is_ok());
    }
}
