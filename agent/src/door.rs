//! How the agent is reached: its port, its certificate, and the URL that the conductor is told. Decided once, constant for the
//! whole boot: a conductor refuses an agent whose URL or certificate changes (agent protocol page, 4.6 and 4.7).

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use events::{EventKind, Events};
use sys::Host;
use wire::Microversion;

use crate::api::{self, Bound, ServerSettings, Tls, TlsError};
use crate::clock::Timekeeper;
use crate::conductor::{AddressSearch, Client, find_address};
use crate::config::{Config, Origin, Protocol};

/// Why the agent can not be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No certificate.
    #[error("preparing TLS")]
    Tls(#[source] TlsError),
    /// The port can not be had.
    #[error("listening on port {port}; is another agent running? ipa-listen-port=PORT chooses another")]
    Bind {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// How the agent is reached.
pub struct Door {
    /// The socket.
    pub bound: Bound,
    /// TLS, where it is spoken.
    pub tls: Option<Tls>,
    /// Told to the conductor, where there is one: `https://host:port`.
    pub callback_url: Option<String>,
    /// The generated certificate as PEM: `agent_verify_ca`.
    pub certificate: Option<String>,
}

impl Door {
    /// Takes the port, finds the address and makes or reads the certificate. `client`: the conductor, where there is one.
    ///
    /// As long as no address is found this goes on looking: whoever has come here holds the token of this boot, which is
    /// given out once.
    pub async fn open(
        host: &Host,
        config: &Config,
        client: Option<&Client>,
        keeper: &Timekeeper,
        events: &Events,
    ) -> Result<Self, Error> {
        let settings = ServerSettings {
            least: *config.tls_min_version,
            suites: config.tls_cipher_suites.value.clone(),
            clock: keeper.clock(),
        };
        let mut door = Self { bound: bind(config)?, tls: None, callback_url: None, certificate: None };
        if *config.listen_tls {
            let place = |path: &std::path::PathBuf| host.path(path);
            let chain = config.tls_cert_file.as_ref().map(place);
            let key = config.tls_key_file.as_ref().map(place);
            let tls =
                api::static_config(chain.as_deref(), key.as_deref(), settings.clone()).map_err(Error::Tls)?;
            doubt(tls.certificate.as_ref(), keeper);
            door.tls = Some(tls);
        }
        let Some(client) = client else { return Ok(door) };
        let address = look_for_address(host, config, events).await;
        if !*config.listen_tls && *config.enable_auto_tls {
            // Lookup has settled it, as a rule; a conductor that did not tell then is an old one.
            let version = client.version().await.unwrap_or(Microversion::FALLBACK);
            if version >= Microversion::AGENT_VERIFY_CA {
                let name = host.attribute("/proc/sys/kernel/hostname").unwrap_or_else(|| "localhost".into());
                let (curve, skew) = (*config.tls_certificate_curve, *config.auto_tls_allowed_clock_skew);
                let now = keeper.clock().now();
                let certificate = api::generate_at(&address, &name, curve, skew, now).map_err(Error::Tls)?;
                door.tls = Some(api::server_config(&certificate, settings).map_err(Error::Tls)?);
                door.certificate = Some(certificate.pem);
            } else {
                tracing::warn!(
                    "the conductor is too old for certificates in heartbeats; serving without TLS"
                );
            }
        }
        let port = match *config.advertise_port {
            0 => door.bound.address.port(),
            port => port,
        };
        door.callback_url =
            Some(format!("{}://{}:{port}", door.advertised(config).scheme(), in_url(address)));
        Ok(door)
    }

    /// How the API is served: `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        let protocol = if self.tls.is_some() { Protocol::Https } else { Protocol::Http };
        protocol.scheme()
    }

    /// What the conductor is told: `https` for TLS of our own; `advertise_protocol` where somebody set it and the certificate is
    /// theirs, or TLS ends elsewhere.
    fn advertised(&self, config: &Config) -> Protocol {
        let chosen = *config.advertise_protocol;
        let nobody_chose = config.advertise_protocol.origin == Origin::Default;
        match (&self.tls, &self.certificate) {
            (_, Some(_)) => Protocol::Https,
            (Some(_), None) if nobody_chose => Protocol::Https,
            (Some(_), None) => {
                if chosen == Protocol::Http {
                    tracing::warn!(
                        "listen_tls is on and advertise_protocol is http: the conductor will not get through"
                    );
                }
                chosen
            }
            (None, None) => chosen,
        }
    }
}

/// Finds the address to advertise, however long it takes.
async fn look_for_address(host: &Host, config: &Config, events: &Events) -> String {
    let search = AddressSearch {
        host: host.clone(),
        configured: config.advertise_host.value.clone(),
        interface: config.network_interface.value.clone(),
        // Where a proxy stands before the conductor, the way to it is all that the routing table knows.
        urls: match &config.conductor_proxy.value {
            Some(proxy) => vec![proxy.url().to_owned()],
            None => config.api_url.to_vec(),
        },
        attempts: *config.ip_lookup_attempts,
        pause: *config.ip_lookup_sleep,
        request_timeout: **config.http_request_timeout,
    };
    loop {
        match find_address(&search).await {
            Ok(address) => return address,
            Err(error) => {
                let message = format!("{}; still looking", hwm::chain(&error));
                events.emit(EventKind::Notice { message });
                tokio::time::sleep(search.pause.max(std::time::Duration::from_secs(1))).await;
            }
        }
    }
}

/// Warns where a certificate from a file can not be good.
fn doubt(certificate: Option<&tls::Certificate>, keeper: &Timekeeper) {
    let Some(certificate) = certificate else { return };
    let now = keeper.clock().now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now < certificate.not_before || now > certificate.not_after {
        let clock = tls::utc(now);
        tracing::warn!(%certificate, clock, "the certificate of tls_cert_file is not valid by the clock here");
    }
}

fn in_url(address: String) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{address}]"),
        Ok(IpAddr::V4(_)) | Err(_) => address,
    }
}

fn bind(config: &Config) -> Result<Bound, Error> {
    let port = *config.listen_port;
    api::bind(config.listen_host.as_deref(), port).map_err(|source| Error::Bind { port, source })
}
