//! The way to the server: TLS with a given authority, without any, with none at all; redirects and proxies.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use events::Events;
use imaging::{Cancel, Error, ErrorKind, Format, ImageRequest, MemorySink, Transport, Written};
use rustls::version::{TLS12, TLS13};
use support::*;

fn write_by(request: &ImageRequest, transport: &Transport) -> Result<Written, Error> {
    let disk = Box::new(MemorySink::new(4 * MIB, 0xa5));
    imaging::write_image(request, transport, disk, &Events::default(), &Cancel::new())
}

#[test]
fn only_the_given_authority_is_trusted() {
    let image = disk_image(2 * MIB, 1);
    let (server, pem) = Server::tls(image.clone(), &[&TLS13, &TLS12]);
    let request = request(server.url(), &image, Format::Raw);
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(pem.as_bytes()).unwrap();
    let trusting = Transport { ca_file: Some(ca.path().to_owned()), ..transport() };
    write_by(&request, &trusting).unwrap();

    let (_, stranger) = Server::tls(Vec::new(), &[&TLS13]);
    let mut other = tempfile::NamedTempFile::new().unwrap();
    other.write_all(stranger.as_bytes()).unwrap();
    let wary = Transport { ca_file: Some(other.path().to_owned()), attempts: 1, ..transport() };
    let error = write_by(&request, &wary).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download);
    assert!(error.report().contains("certificate"), "{}", error.report());

    write_by(&request, &Transport { insecure: true, ..transport() }).unwrap();
}

#[test]
fn an_old_tls_is_not_spoken_where_the_new_one_is_asked_for() {
    let image = disk_image(2 * MIB, 2);
    let (server, _) = Server::tls(image.clone(), &[&TLS12]);
    let request = request(server.url(), &image, Format::Raw);
    let lax = Transport { insecure: true, attempts: 1, ..transport() };
    write_by(&request, &lax).unwrap();
    let strict = Transport { minimum_tls: tls::Version::V1_3, ..lax };
    let report = write_by(&request, &strict).unwrap_err().report();
    assert!(report.contains("no version of TLS that is allowed here; tls_min_version"), "{report}");
}

#[test]
fn a_cut_inside_tls_is_resumed_too() {
    let image = disk_image(3 * MIB, 3);
    let (server, _) = Server::tls(image.clone(), &[&TLS13]);
    let server = server.faults([Fault::Cut(2_000_000)]);
    let request = request(server.url(), &image, Format::Raw);
    let written = write_by(&request, &Transport { insecure: true, ..transport() }).unwrap();
    assert_eq!(written.resumed, 1);
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let image = disk_image(2 * MIB, 4);
    let store = Server::new(image.clone());
    let front = Server::new(image.clone()).faults([Fault::Redirect(store.url())]);
    let mut request = request(front.url(), &image, Format::Raw);
    request.authorization = Some(wire::Secret::new("Bearer hush"));
    write_by(&request, &transport()).unwrap();
    assert_eq!(front.seen()[0].authorization.as_deref(), Some("Bearer hush"));
    assert_eq!(store.seen()[0].authorization, None);
}

#[test]
fn a_proxy_is_asked_unless_the_host_is_exempt() {
    let image = disk_image(2 * MIB, 5);
    // The proxy answers whatever is asked; the origin does not exist.
    let proxy = Server::new(image.clone());
    let mut request = request("http://images.invalid/image".into(), &image, Format::Raw);
    request.proxies.http = Some(proxy.url());
    write_by(&request, &transport()).unwrap();
    assert_eq!(proxy.seen().len(), 1);
    request.proxies.no_proxy = Some("images.invalid".into());
    assert!(write_by(&request, &Transport { attempts: 1, ..transport() }).is_err());
    assert_eq!(proxy.seen().len(), 1);
}

#[test]
fn a_refused_connection_is_tried_again_and_then_named() {
    let image = disk_image(MIB, 6);
    // Port 9 (discard) on loopback: nobody listens.
    let request = request("http://127.0.0.1:9/image".into(), &image, Format::Raw);
    let events = Events::default();
    let disk = Box::new(MemorySink::new(2 * MIB, 0));
    let error = imaging::write_image(&request, &transport(), disk, &events, &Cancel::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download);
    assert!(error.report().contains("refused"), "{}", error.report());
    let retries = events.after(0, 100).events;
    let count = retries.iter().filter(|e| matches!(e.kind, events::EventKind::Retrying { .. })).count();
    assert_eq!(count, 2);
}

#[test]
fn a_transfer_that_takes_too_long_ends_in_time_whatever_it_waits_for() {
    let image = disk_image(3 * MIB, 5);
    let limit = Duration::from_millis(500);
    let patient = Transport { max_duration: Some(limit), attempts: 1000, ..transport() };
    for fault in [Fault::Stall(2_000_000, Duration::from_secs(5)), Fault::Status(503)] {
        let faults = std::iter::repeat_n(fault.clone(), 200);
        let server = Server::new(image.clone()).faults(faults);
        let request = request(server.url(), &image, Format::Raw);
        let started = Instant::now();
        let error = write_by(&request, &patient).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{fault:?}: {}", error.report());
        assert!(error.report().contains("image_download_max_duration"), "{}", error.report());
        assert!(started.elapsed() < limit * 4, "{fault:?}: {:?}", started.elapsed());
    }
    let server = Server::new(image.clone());
    let request = request(server.url(), &image, Format::Raw);
    write_by(&request, &Transport { max_duration: Some(Duration::from_secs(60)), ..patient }).unwrap();
}

/// Answers `CONNECT` by doing what it says; gives its URL, and what it was asked for.
fn tunnel() -> (String, Arc<Mutex<Vec<String>>>) {
    tunnel_to(None)
}

/// As [`tunnel`], to this server whatever is asked for.
fn tunnel_to(server: Option<String>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let log = Arc::clone(&log);
            let server = server.clone();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                log.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
                let Some(target) = head.split(' ').nth(1) else { return };
                let Ok(mut server) = TcpStream::connect(server.as_deref().unwrap_or(target)) else { return };
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut to, mut from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let _ = std::io::copy(&mut server, &mut client);
            });
        }
    });
    (url, asked)
}

#[test]
fn https_goes_through_a_tunnel_of_its_own_proxy() {
    let image = disk_image(2 * MIB, 7);
    let (server, _) = Server::tls(image.clone(), &[&TLS13]);
    let (proxy, asked) = tunnel();
    let mut request = request(server.url(), &image, Format::Raw);
    request.proxies.https = Some(proxy);
    // Nobody listens there, and it is for another scheme.
    request.proxies.http = Some("http://127.0.0.1:9".into());
    let transport = Transport { insecure: true, ..transport() };
    write_by(&request, &transport).unwrap();
    let host = server.url().replace("https://", "").replace("/image", "");
    assert_eq!(*asked.lock().unwrap(), [format!("CONNECT {host} HTTP/1.1")]);
    request.proxies.no_proxy = Some("127.0.0.1".into());
    write_by(&request, &transport).unwrap();
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[test]
fn credentials_follow_a_host_from_http_to_https_and_not_to_another_port() {
    let image = disk_image(2 * MIB, 12);
    let transport = Transport { insecure: true, attempts: 1, ..transport() };
    for (place, follows) in [
        ("https://images.invalid/image", true),
        ("https://images.invalid:443/image", true),
        ("https://images.invalid:8443/image", false),
        ("https://other.invalid/image", false),
    ] {
        let (server, _) = Server::tls(image.clone(), &[&TLS13]);
        let address = server.url().replace("https://", "").replace("/image", "");
        let (tunnel, _) = tunnel_to(Some(address));
        // Proxies, so that the ports can be the usual ones.
        let front = Server::new(image.clone()).faults([Fault::Redirect(place.to_owned())]);
        let mut request = request("http://images.invalid/image".into(), &image, Format::Raw);
        request.proxies.http = Some(front.url());
        request.proxies.https = Some(tunnel);
        request.authorization = Some(wire::Secret::new("Bearer hush"));
        write_by(&request, &transport).unwrap();
        let sent = server.seen()[0].authorization.clone();
        assert_eq!(sent.as_deref(), follows.then_some("Bearer hush"), "{place}");
    }
}

#[test]
fn a_proxy_that_refuses_a_tunnel_is_named_without_its_password() {
    let image = disk_image(MIB, 13);
    let proxy = Server::new(image.clone()).faults([Fault::Status(403)]);
    let mut request = request("https://images.invalid/image".into(), &image, Format::Raw);
    request.proxies.https = Some(proxy.url().replace("://", "://user:hush@"));
    let transport = Transport { insecure: true, attempts: 1, ..transport() };
    let report = write_by(&request, &transport).unwrap_err().report();
    assert!(
        report.contains("answered 403 to CONNECT images.invalid:443") && !report.contains("hush"),
        "{report}"
    );
    request.proxies.https = Some("socks5://user:hush@127.0.0.1:9".into());
    let report = write_by(&request, &transport).unwrap_err().report();
    assert!(report.contains("socks5") && !report.contains("hush"), "{report}");
}

#[test]
fn hosts_are_exempt_from_proxies_by_name_domain_address_and_network() {
    let image = disk_image(MIB, 8);
    let proxy = Server::new(image.clone());
    let once = Transport { attempts: 1, connect_timeout: Duration::from_millis(300), ..transport() };
    for (host, exempt, is_proxied) in [
        ("images.invalid", "other.invalid, images.invalid", false),
        ("images.invalid", ".invalid", false),
        ("images.invalid", "invalid", false),
        ("images.invalid", "*", false),
        ("images.invalid", "ages.invalid", true),
        ("images.invalid", "", true),
        ("images.invalid", "images.invalid:80", false),
        ("images.invalid", "images.invalid:81", true),
        ("127.0.0.1:9", "127.0.0.1", false),
        ("127.0.0.1:9", "127.0.0.1:9", false),
        ("127.0.0.1:9", "127.0.0.1:8", true),
        ("127.0.0.1:9", "127.0.0.0/8", false),
        ("127.0.0.1:9", "10.0.0.0/8", true),
    ] {
        let before = proxy.seen().len();
        let mut request = request(format!("http://{host}/image"), &image, Format::Raw);
        request.proxies.http = Some(proxy.url());
        request.proxies.no_proxy = Some(exempt.to_owned());
        let result = write_by(&request, &once);
        assert_eq!(
            (result.is_ok(), proxy.seen().len() > before),
            (is_proxied, is_proxied),
            "{host} {exempt}"
        );
    }
}

#[test]
fn a_server_that_wants_a_client_certificate_gets_it() {
    let image = disk_image(2 * MIB, 9);
    let own = rcgen::generate_simple_self_signed(["agent".to_owned()]).unwrap();
    let server = Server::tls_for(image.clone(), &own.cert);
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("own.pem"), directory.path().join("own.key"));
    std::fs::write(&certificate, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let request = request(server.url(), &image, Format::Raw);
    let without = Transport { insecure: true, attempts: 1, ..transport() };
    let report = write_by(&request, &without).unwrap_err().report();
    assert!(report.contains("certfile"), "{report}");
    let identity = Some(tls::Identity { certificate, key });
    write_by(&request, &Transport { client_certificate: identity, ..without }).unwrap();
}

#[test]
fn only_the_cipher_suites_that_are_allowed_are_offered() {
    let image = disk_image(2 * MIB, 10);
    let (server, _) = Server::tls(image.clone(), &[&TLS12]);
    let request = request(server.url(), &image, Format::Raw);
    // The server's key is of ECDSA.
    for (suites, works) in [("ECDHE-ECDSA-AES128-GCM-SHA256", true), ("ECDHE-RSA-AES128-GCM-SHA256", false)] {
        let transport = Transport {
            insecure: true,
            attempts: 1,
            cipher_suites: Some(suites.parse().unwrap()),
            ..transport()
        };
        assert_eq!(write_by(&request, &transport).is_ok(), works, "{suites}");
    }
}

#[test]
fn credentials_follow_a_redirect_on_the_same_host_and_into_a_resumed_transfer() {
    let image = disk_image(3 * MIB, 11);
    let server = Server::new(image.clone());
    let there = server.url().replace("/image", "/there");
    let server = server.faults([Fault::Redirect(there), Fault::Cut(2_000_000)]);
    let mut request = request(server.url(), &image, Format::Raw);
    request.authorization = Some(wire::Secret::new("Basic dTpw"));
    assert_eq!(write_by(&request, &transport()).unwrap().resumed, 1);
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.authorization.as_deref() == Some("Basic dTpw")), "{seen:?}");
}

#[test]
fn the_defaults_are_about_ninety_seconds_of_patience() {
    let defaults = Transport::default();
    assert_eq!((defaults.attempts, defaults.retry_interval), (10, Duration::from_secs(10)));
    assert_eq!((defaults.connect_timeout, defaults.max_duration), (Duration::from_secs(60), None));
    let pauses = defaults.retry_interval * (defaults.attempts - 1);
    assert_eq!(pauses, Duration::from_secs(90));
}
