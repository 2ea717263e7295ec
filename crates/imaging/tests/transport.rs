//! The way to the server: TLS with a given authority, without any, with none at all; redirects and proxies.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::io::Write;
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
