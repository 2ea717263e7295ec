//! Handshakes in memory: which certificates are trusted, and what is said of those that are not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConnection, ServerConfig, ServerConnection};
use tls::{Cause, CipherSuites, ClientSettings, Clock, Version, Window, client_config, provider, versions};

const DAY: i64 = 24 * 3600;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn params(name: &str, days: (i64, i64)) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{name} of this test"));
    let at = |days: i64| {
        let seconds = std::time::Duration::from_secs((now() + days * DAY).try_into().unwrap());
        rcgen::date_time_ymd(1970, 1, 1) + seconds
    };
    (params.not_before, params.not_after) = (at(days.0), at(days.1));
    params
}

/// An authority in a file, and a server with a certificate of it.
struct Scene {
    directory: tempfile::TempDir,
    server: Arc<ServerConfig>,
}

impl Scene {
    /// `days`: from when to when the server's certificate is valid, counted from now.
    fn new(days: (i64, i64)) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = params("authority", (-1000, 1000));
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let leaf = params("ironic.example", days).signed_by(&key, &issuer).unwrap();
        Self::with(&pem, leaf.der().clone(), &key, versions(Version::V1_2))
    }

    fn with(
        anchors: &str,
        leaf: rustls::pki_types::CertificateDer<'static>,
        key: &KeyPair,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), anchors).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(provider(None))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)
            .unwrap();
        Self { directory, server: Arc::new(server) }
    }

    fn settings(&self) -> ClientSettings {
        ClientSettings { ca_file: Some(self.ca()), ..ClientSettings::default() }
    }

    fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A whole handshake; the client's error.
    fn shake(&self, settings: &ClientSettings, host: &str) -> Result<ClientConnection, rustls::Error> {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let config = Arc::new(client_config(settings).unwrap());
        let mut client = ClientConnection::new(config, name).unwrap();
        let mut server = ServerConnection::new(self.server.clone()).unwrap();
        for _ in 0..6 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            let _ = server.process_new_packets(); // its alert is what the client reads next
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        assert!(!client.is_handshaking());
        Ok(client)
    }

    fn rejection(&self, settings: &ClientSettings, host: &str) -> tls::Rejection {
        let error = self.shake(settings, host).expect_err("the certificate was accepted");
        // As it comes out of a socket.
        let error = std::io::Error::other(error);
        tls::find_rejection(&error).unwrap_or_else(|| panic!("no rejection in {error:?}")).clone()
    }
}

#[test]
fn a_certificate_of_a_known_authority_is_trusted_for_its_names_alone() {
    let scene = Scene::new((-1, 30));
    scene.shake(&scene.settings(), "ironic.example").unwrap();
    let rejection = scene.rejection(&scene.settings(), "192.0.2.9");
    assert_eq!(rejection.cause, Cause::WrongName);
    let text = rejection.to_string();
    assert!(text.contains("is not for 192.0.2.9") && text.contains("for ironic.example"), "{text}");
    let insecure = ClientSettings { insecure: true, ..scene.settings() };
    scene.shake(&insecure, "192.0.2.9").unwrap();
}

#[test]
fn an_unknown_authority_is_named_with_the_file_that_lacks_it() {
    let (scene, other) = (Scene::new((-1, 30)), Scene::new((-1, 30)));
    let settings = ClientSettings { ca_file: Some(other.ca()), ..ClientSettings::default() };
    let rejection = scene.rejection(&settings, "ironic.example");
    assert_eq!(rejection.cause, Cause::UnknownIssuer);
    let text = rejection.to_string();
    assert!(text.contains("ca.pem") && text.contains("issuer CN=authority of this test"), "{text}");
    let none = ClientSettings { root: "/nonexistent".into(), ..ClientSettings::default() };
    let text = scene.rejection(&none, "ironic.example").to_string();
    assert!(text.contains("no trust anchors at all") && text.contains("cafile"), "{text}");
}

#[test]
fn a_wrong_clock_is_told_from_a_wrong_certificate_in_both_directions() {
    for (days, says) in [((10, 40), "is not valid before"), ((-40, -10), "was valid until")] {
        let scene = Scene::new(days);
        let settings = scene.settings();
        let rejection = scene.rejection(&settings, "ironic.example");
        assert!(rejection.cause.is_about_time());
        let text = rejection.to_string();
        assert!(text.contains(says) && text.contains("ipa-ntp-server"), "{text}");
        assert!(text.contains(&format!("the clock says {}", tls::utc(rejection.clock))), "{text}");
        // The clock that is corrected is the one that counts.
        settings.clock.set_correction_millis((days.0 + 1) * DAY * 1000);
        scene.shake(&settings, "ironic.example").unwrap();
    }
}

#[test]
fn asking_for_the_time_trusts_any_time_but_no_other_authority_and_no_other_name() {
    let (scene, other) = (Scene::new((10, 40)), Scene::new((10, 40)));
    let window = Window::default();
    let asking = ClientSettings { at_any_time: true, window: window.clone(), ..scene.settings() };
    assert!(!window.holds_at("ironic.example", now()), "nothing was seen yet");
    scene.shake(&asking, "ironic.example").unwrap();
    assert!(window.holds_at("ironic.example", now() + 20 * DAY));
    assert!(!window.holds_at("ironic.example", now()));
    assert!(!window.holds_at("ironic.example", now() + 50 * DAY));
    assert!(!window.holds_at("ironic.example", -5));
    assert!(!window.holds_at("elsewhere.example", now() + 20 * DAY));
    assert!(scene.shake(&asking, "elsewhere.example").is_err());
    let stranger = ClientSettings { ca_file: Some(other.ca()), ..asking };
    assert!(scene.shake(&stranger, "ironic.example").is_err());
}

#[test]
fn a_self_signed_authority_that_serves_is_trusted_where_it_is_the_anchor_itself() {
    let key = KeyPair::generate().unwrap();
    let mut own = params("ironic.example", (-1, 30));
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained); // as `openssl req -x509` makes them
    let certificate = own.self_signed(&key).unwrap();
    let scene = Scene::with(&certificate.pem(), certificate.der().clone(), &key, versions(Version::V1_2));
    scene.shake(&scene.settings(), "ironic.example").unwrap();
    assert_eq!(scene.rejection(&scene.settings(), "elsewhere.example").cause, Cause::WrongName);
    let late = ClientSettings { clock: Clock::default(), ..scene.settings() };
    late.clock.set_correction_millis(60 * DAY * 1000);
    assert!(scene.rejection(&late, "ironic.example").cause.is_about_time());
    let other = Scene::new((-1, 30));
    let elsewhere = ClientSettings { ca_file: Some(other.ca()), ..ClientSettings::default() };
    assert!(scene.shake(&elsewhere, "ironic.example").is_err());
}

#[test]
fn a_server_of_old_versions_is_explained_by_the_option() {
    let key = KeyPair::generate().unwrap();
    let certificate = params("ironic.example", (-1, 30)).self_signed(&key).unwrap();
    let old: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    let scene = Scene::with(&certificate.pem(), certificate.der().clone(), &key, old);
    let connection = scene.shake(&scene.settings(), "ironic.example").unwrap();
    assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let strict = ClientSettings { minimum: Version::V1_3, ..scene.settings() };
    let error = scene.shake(&strict, "ironic.example").unwrap_err();
    let text = tls::advice(&error).unwrap();
    assert!(text.contains("tls_min_version"), "{text}");
}

#[test]
fn only_the_chosen_suites_of_tls_1_2_are_offered() {
    let key = KeyPair::generate().unwrap(); // ECDSA: a suite for RSA alone can not serve it
    let certificate = params("ironic.example", (-1, 30)).self_signed(&key).unwrap();
    let old: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    let scene = Scene::with(&certificate.pem(), certificate.der().clone(), &key, old);
    let with = |list: &str| {
        let suites: CipherSuites = list.parse().unwrap();
        scene.shake(&ClientSettings { suites: Some(suites), ..scene.settings() }, "ironic.example")
    };
    let connection = with("ECDHE-ECDSA-AES128-GCM-SHA256").unwrap();
    let suite = connection.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    let error = with("ECDHE-RSA-AES128-GCM-SHA256").unwrap_err();
    assert!(tls::advice(&error).unwrap().contains("tls_cipher_suites"), "{error}");
}

#[test]
fn unusable_files_are_named_with_their_option() {
    let scene = Scene::new((-1, 30));
    let missing = ClientSettings { ca_file: Some("/nonexistent/ca.pem".into()), ..scene.settings() };
    let text = client_config(&missing).unwrap_err().to_string();
    assert!(text.contains("/nonexistent/ca.pem") && text.contains("cafile"), "{text}");
    std::fs::write(scene.ca(), "no certificate here").unwrap();
    let text = client_config(&scene.settings()).unwrap_err().to_string();
    assert!(text.contains("no usable certificate"), "{text}");
    let identity = tls::Identity { certificate: scene.ca(), key: "/nonexistent/key.pem".into() };
    let own = ClientSettings { identity: Some(identity), insecure: true, ..scene.settings() };
    let text = client_config(&own).unwrap_err().to_string();
    assert!(text.contains("keyfile"), "{text}");
}

#[test]
fn a_system_bundle_that_cannot_be_used_counts_as_none_and_plain_http_goes_on() {
    let scene = Scene::new((-1, 30));
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc/ssl/certs")).unwrap();
    let damaged = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    for text in ["no certificate here", "-----BEGIN CERTIFICATE-----\n", damaged] {
        std::fs::write(root.path().join("etc/ssl/certs/ca-certificates.crt"), text).unwrap();
        let settings = ClientSettings { root: root.path().into(), ..ClientSettings::default() };
        client_config(&settings).unwrap();
        assert_eq!(scene.rejection(&settings, "ironic.example").cause, Cause::UnknownIssuer, "{text}");
    }
}

#[test]
fn a_server_without_tls_is_recognised() {
    let text = tls::advice(&rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType));
    assert!(text.unwrap().contains("does not speak TLS"));
    assert_eq!(tls::advice(&std::io::Error::other("refused")), None);
}

#[test]
fn a_chain_of_causes_ends_with_advice_instead_of_what_rustls_says() {
    #[derive(Debug, thiserror::Error)]
    #[error("calling https://h")]
    struct Calling(#[source] std::io::Error);
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
    let text = tls::chain(&Calling(std::io::Error::other(alert)));
    assert!(text.starts_with("calling https://h: the server wants a client certificate"), "{text}");
    let refused = std::io::Error::other("connection refused");
    assert_eq!(tls::chain(&Calling(refused)), "calling https://h: connection refused");
}
