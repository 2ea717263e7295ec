//! The HTTP client towards the conductor: trust, TLS version and suites, client certificate, time limits.

use reqwest::header::HeaderMap;
use sys::Host;
use tls::{ClientSettings, Clock, Identity, Window};

use super::error::Error;
use crate::config::Config;

/// How the configuration wants TLS towards the conductor.
pub(super) fn tls_settings(host: &Host, config: &Config, clock: Clock, window: Window) -> ClientSettings {
    let place = |path: &std::path::PathBuf| host.path(path);
    let files = config.certfile.as_ref().zip(config.keyfile.as_ref());
    if files.is_none() && (config.certfile.is_some() || config.keyfile.is_some()) {
        tracing::warn!("only one of certfile and keyfile is given; no client certificate is used");
    }
    ClientSettings {
        root: host.path("/"),
        ca_file: config.cafile.as_ref().map(place),
        insecure: *config.insecure,
        minimum: *config.tls_min_version,
        suites: config.tls_cipher_suites.value.clone(),
        identity: files
            .map(|(certificate, key)| Identity { certificate: place(certificate), key: place(key) }),
        clock,
        window,
        at_any_time: false,
    }
}

/// Makes a client. Redirects are not followed: `Client` decides about them.
pub(super) fn build(
    settings: &ClientSettings,
    config: &Config,
    headers: HeaderMap,
) -> Result<reqwest::Client, Error> {
    let limit = **config.http_request_timeout;
    // A variable such as http_proxy is for image servers. On a provisioning network no proxy leads to the conductor.
    let mut builder = reqwest::Client::builder().no_proxy();
    if let Some(proxy) = &config.conductor_proxy.value {
        builder = builder.proxy(reqwest::Proxy::all(proxy.url()).map_err(Error::Build)?);
    }
    builder
        .tls_backend_preconfigured(tls::client_config(settings).map_err(Error::Tls)?)
        .user_agent(concat!("ferric-agent/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .dns_resolver(dns::Resolver::system())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(limit)
        .read_timeout(limit)
        .pool_max_idle_per_host(1)
        // Shorter than the pause between heartbeats: a connection that the server has closed meanwhile costs one of them.
        .pool_idle_timeout(std::time::Duration::from_secs(5))
        .build()
        .map_err(Error::Build)
}

/// Makes an HTTP client with the configuration's trust anchors, TLS version and time limits, for other calls than those to
/// the conductor's API.
pub fn http_client(host: &Host, config: &Config, headers: HeaderMap) -> Result<reqwest::Client, Error> {
    build(&tls_settings(host, config, Clock::default(), Window::default()), config, headers)
}
