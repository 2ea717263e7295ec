//! The HTTP client: explicit trust, explicit proxies.
//!
//! Never `reqwest::Client::new()`: it panics where there is no bundle of authorities, as in a ramdisk.

use std::path::Path;

use reqwest::{NoProxy, Proxy};
use tls::ClientSettings;

use crate::error::Error;
use crate::request::{Proxies, Transport};

/// Builds a client. `needs_trust`: a server will have to prove who it is.
pub(crate) fn build(
    transport: &Transport,
    proxies: &Proxies,
    needs_trust: bool,
) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls_config(transport, needs_trust)?)
        .connect_timeout(transport.connect_timeout)
        .dns_resolver(dns::Resolver::system())
        .user_agent(concat!("ferric/", env!("CARGO_PKG_VERSION")))
        .referer(false)
        .pool_max_idle_per_host(1);
    let no_proxy = proxies.no_proxy.as_deref().and_then(NoProxy::from_string);
    if let Some(proxy) = &proxies.http {
        builder = builder.proxy(Proxy::http(proxy).map_err(Error::Client)?.no_proxy(no_proxy.clone()));
    }
    if let Some(proxy) = &proxies.https {
        builder = builder.proxy(Proxy::https(proxy).map_err(Error::Client)?.no_proxy(no_proxy));
    }
    builder.build().map_err(Error::Client)
}

/// TLS as the transport says. `needs_trust`: a source is `https:`, so that having no authorities is an error now, in
/// words, and not a riddle during the handshake.
fn tls_config(transport: &Transport, needs_trust: bool) -> Result<rustls::ClientConfig, Error> {
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
        let error = build(&transport, &Proxies::default(), true).unwrap_err();
        assert!(error.report().contains("/nonexistent/ca.pem"), "{error}");
    }

    #[test]
    fn an_empty_ca_file_is_refused_for_https() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let transport = Transport { ca_file: Some(file.path().to_owned()), ..Transport::default() };
        let error = build(&transport, &Proxies::default(), true).unwrap_err();
        assert!(error.report().contains("no usable certificate"), "{error}");
    }

    #[test]
    fn insecure_and_tls_13_build_without_any_authority() {
        let transport = Transport { insecure: true, minimum_tls: tls::Version::V1_3, ..Transport::default() };
        assert!(build(&transport, &Proxies::default(), true).is_ok());
    }
}
