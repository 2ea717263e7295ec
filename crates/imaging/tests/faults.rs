//! Servers that break off, lie, or dawdle: each with its outcome. What is never an outcome is success without the image.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use events::{EventKind, Events};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use imaging::{ErrorKind, Format, MemorySink, Transport};
use support::*;

const LENGTH: usize = 10 * MIB + 4321;

/// The offsets that a transfer is cut at: nothing, a byte, the half, nearly all.
const CUTS: [u64; 4] = [0, 1, LENGTH as u64 / 2, LENGTH as u64 - LENGTH as u64 / 10_000];

fn events_of(events: &Events) -> String {
    format!(
        "{:?}",
        events.after(0, 1000).events.into_iter().map(|event| event.kind).collect::<Vec<EventKind>>()
    )
}

#[test]
fn a_cut_anywhere_is_resumed_at_its_byte() {
    let image = disk_image(LENGTH, 1);
    for cut in CUTS {
        let server = Server::new(image.clone()).faults([Fault::Cut(cut)]);
        let disk = MemorySink::new(12 * MIB, 0xa5);
        let written = write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
        assert_disk(&disk, &image, 0xa5);
        assert_eq!(server.sent(), LENGTH as u64, "no byte came twice");
        let seen = server.seen();
        let range = (cut > 0).then(|| format!("bytes={cut}-"));
        assert_eq!((seen.len(), &seen[1].range), (2, &range));
        assert_eq!((written.resumed, written.restarted), (u32::from(cut > 0), 0));
    }
}

#[test]
fn a_server_without_ranges_is_started_over_and_that_is_said() {
    let image = disk_image(LENGTH, 2);
    for cut in CUTS {
        let server = Server::without_ranges(image.clone()).faults([Fault::Cut(cut)]);
        let disk = MemorySink::new(12 * MIB, 0xa5);
        let events = Events::default();
        let written = write_with(&request(server.url(), &image, Format::Raw), &disk, &events).unwrap();
        assert_disk(&disk, &image, 0xa5);
        assert_eq!((written.resumed, written.restarted), (0, u32::from(cut > 0)));
        let told =
            events_of(&events).contains("can not be resumed (the server sends the image from its start)");
        assert_eq!(told, cut > 0);
    }
}

#[test]
fn a_transfer_that_is_always_cut_fails_in_the_end() {
    let image = disk_image(LENGTH, 3);
    for cut in CUTS {
        let server = Server::new(image.clone()).faults((0..50).map(|_| Fault::Cut(cut)));
        let disk = MemorySink::new(12 * MIB, 0xa5);
        let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Download, "{}", error.report());
        assert!(server.seen().len() <= 4, "{} requests", server.seen().len());
        assert!(!disk.is_committed());
        if error.left_disk_unbootable() {
            assert_unbootable(&disk);
        }
    }
}

#[test]
fn many_cuts_cost_next_to_no_bytes() {
    let image = disk_image(64 * MIB, 4);
    let cuts = (1..40).map(|n| Fault::Cut(n * 1_600_003));
    let server = Server::new(image.clone()).faults(cuts);
    let disk = MemorySink::new(64 * MIB, 0xa5);
    let written = write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!(written.resumed, 39);
    assert!(server.sent() * 100 <= image.len() as u64 * 101, "{} bytes sent", server.sent());
}

#[test]
fn a_connection_that_closes_without_an_answer_is_tried_again() {
    let image = disk_image(3 * MIB, 5);
    let server = Server::new(image.clone()).faults([Fault::HangUp, Fault::Cut(2_000_000), Fault::HangUp]);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let written = write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!((written.resumed, server.seen().len()), (1, 4));
}

#[test]
fn a_lie_that_ends_is_survived() {
    let image = disk_image(LENGTH, 6);
    let half = LENGTH as u64 / 2;
    for faults in [
        // The announced length is too small: what comes is whole by HTTP's rules, and not the image.
        vec![Fault::Shorter(1000)],
        vec![Fault::Shorter(LENGTH as u64 - 1)],
        // Too large: the bytes beyond the end are asked for, and there are none.
        vec![Fault::Longer(1000)],
        // Without any length a cut looks like the end.
        vec![Fault::UnannouncedCut(half)],
        vec![Fault::Cut(half), Fault::WholeForPart],
        vec![Fault::Cut(half), Fault::OtherTag],
        vec![Fault::Cut(half), Fault::WrongTotal],
        vec![Fault::Flip(half)],
    ] {
        let server = Server::new(image.clone()).faults(faults.clone());
        let disk = MemorySink::new(12 * MIB, 0xa5);
        let written = write(&request(server.url(), &image, Format::Raw), &disk)
            .unwrap_or_else(|error| panic!("{faults:?}: {}", error.report()));
        assert_eq!((written.resumed, written.restarted), (0, 1), "{faults:?}");
        assert_disk(&disk, &image, 0xa5);
    }
}

#[test]
fn a_lie_that_goes_on_is_never_success() {
    let image = disk_image(LENGTH, 7);
    let half = LENGTH as u64 / 2;
    for (fault, kind) in [
        (Fault::Shorter(1), ErrorKind::ChecksumMismatch),
        (Fault::UnannouncedCut(half), ErrorKind::ChecksumMismatch),
        (Fault::UnannouncedCut(0), ErrorKind::InvalidImage),
        (Fault::Longer(1), ErrorKind::Download),
        (Fault::Flip(0), ErrorKind::ChecksumMismatch),
        (Fault::Encoded("gzip"), ErrorKind::DownloadFatal),
        (Fault::Encoded("deflate"), ErrorKind::DownloadFatal),
        (Fault::Encoded("br"), ErrorKind::DownloadFatal),
        (Fault::Status(204), ErrorKind::DownloadFatal),
        (Fault::Status(206), ErrorKind::DownloadFatal),
        (Fault::Status(304), ErrorKind::DownloadFatal),
    ] {
        let server = Server::new(image.clone()).faults((0..30).map(|_| fault.clone()));
        let disk = MemorySink::new(12 * MIB, 0xa5);
        let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {}", error.report());
        assert!(!disk.is_committed(), "{fault:?}");
        if error.left_disk_unbootable() {
            assert_unbootable(&disk);
        } else {
            assert_eq!(disk.writes(), 0, "{fault:?}");
        }
    }
}

#[test]
fn an_image_that_changes_between_tries_is_taken_whole_or_not_at_all() {
    let (old, new) = (disk_image(LENGTH, 81), disk_image(LENGTH, 83));
    let replaced = || [Fault::Cut(LENGTH as u64 / 2), Fault::Replace(std::sync::Arc::new(new.clone()))];
    let disk = MemorySink::new(12 * MIB, 0xa5);
    let server = Server::new(old.clone()).faults(replaced());
    assert_eq!(write(&request(server.url(), &new, Format::Raw), &disk).unwrap().restarted, 1);
    assert_disk(&disk, &new, 0xa5);
    let server = Server::new(old.clone()).faults(replaced());
    let disk = MemorySink::new(12 * MIB, 0xa5);
    let error = write(&request(server.url(), &old, Format::Raw), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert_unbootable(&disk);
    // A server without ETag and Last-Modified can not be asked whether it is the same: the digest tells.
    let server = Server::without_etag(old.clone()).faults(replaced());
    assert_eq!(write(&request(server.url(), &new, Format::Raw), &disk).unwrap().restarted, 1);
    assert_disk(&disk, &new, 0xa5);
}

#[test]
fn a_stall_is_resumed_after_the_read_timeout() {
    let image = disk_image(3 * MIB, 10);
    let server = Server::new(image.clone()).faults([Fault::Stall(2_000_000, Duration::from_secs(20))]);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let started = Instant::now();
    let written = write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!(written.resumed, 1);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn a_server_that_only_stalls_is_given_up() {
    let image = disk_image(3 * MIB, 11);
    let stall = Fault::Stall(0, Duration::from_secs(20));
    let server = Server::new(image.clone()).faults((0..9).map(|_| stall.clone()));
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download);
    assert!(error.report().contains("nothing came"), "{}", error.report());
    assert_eq!(disk.writes(), 0);
}

#[test]
fn a_byte_now_and_then_counts_as_a_stall() {
    let image = disk_image(3 * MIB, 12);
    let slow = Fault::Trickle(2_000_000, Duration::from_millis(40));
    let server = Server::new(image.clone()).faults([slow.clone()]);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let written = write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!(written.resumed, 1, "and goes on fast");

    let server = Server::new(image.clone()).faults((0..9).map(|_| slow.clone()));
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download);
    assert!(error.report().contains("no more than"), "{}", error.report());
    assert_unbootable(&disk);
}

#[test]
fn a_redirect_in_circles_is_not_followed_again() {
    let image = disk_image(2 * MIB, 13);
    let server = Server::new(image.clone());
    let circle = Fault::Redirect(server.url());
    let server = server.faults((0..100).map(|_| circle.clone()));
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
    assert!(error.report().contains("redirect"), "{}", error.report());
    assert!(server.seen().len() <= 11, "{}", server.seen().len());
}

#[test]
fn a_redirect_leads_to_web_servers_only() {
    let image = disk_image(2 * MIB, 19);
    let local = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(local.path(), &image).unwrap();
    for place in [format!("file://{}", local.path().display()), "oci://registry.example/disk".to_owned()] {
        let server = Server::new(image.clone()).faults((0..9).map(|_| Fault::Redirect(place.clone())));
        let disk = MemorySink::new(4 * MIB, 0xa5);
        write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
        assert_eq!(disk.writes(), 0);
    }
}

#[test]
fn a_resumed_transfer_follows_the_redirect_anew() {
    let image = disk_image(3 * MIB, 14);
    let store = Server::new(image.clone()).faults([Fault::Cut(2_000_000)]);
    let front = Server::new(image.clone()).faults((0..2).map(|_| Fault::Redirect(store.url())));
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let written = write(&request(front.url(), &image, Format::Raw), &disk).unwrap();
    assert_eq!((written.resumed, front.seen().len()), (1, 2), "signed addresses of stores run out");
    assert_eq!(store.seen()[1].range.as_deref(), Some("bytes=2000000-"));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_content_encoding_is_undone_before_the_digest_and_resumed_by_its_own_bytes() {
    let image = disk_image(LENGTH, 15);
    for (encoded, name) in [(gzip(&image), "gzip"), (deflate(&image), "deflate"), (gzip(&image), "x-gzip")] {
        let disk = MemorySink::new(12 * MIB, 0xa5);
        let server = Server::encoded(encoded.clone(), name);
        let written = write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
        assert_disk(&disk, &image, 0xa5);
        assert_eq!(written.published_bytes, LENGTH as u64);
        assert_eq!(server.seen()[0].accept_encoding.as_deref(), Some("identity"), "it is not asked for");
    }
    let encoded = gzip(&image);
    let half = encoded.len() as u64 / 2;
    let server = Server::encoded(encoded.clone(), "gzip").faults([Fault::Cut(half)]);
    let disk = MemorySink::new(12 * MIB, 0xa5);
    let written = write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!((written.resumed, written.restarted), (1, 0));
    assert_eq!(server.sent(), encoded.len() as u64);
}

#[test]
fn an_encoded_qcow2_is_streamed_without_reading_parts() {
    let guest = disk_image(5 * MIB, 16);
    let file = support::qcow2::build(&guest, support::qcow2::Options::default());
    let server = Server::encoded(gzip(&file), "gzip");
    let disk = MemorySink::new(6 * MIB, 0xa5);
    write(&request(server.url(), &file, Format::Qcow2), &disk).unwrap();
    assert_disk(&disk, &guest, 0xa5);
    assert!(server.seen().iter().all(|seen| seen.range.is_none()));
}

#[test]
fn a_lying_content_encoding_leads_to_the_next_source() {
    let image = disk_image(LENGTH, 17);
    let lying = Server::encoded(image.clone(), "gzip");
    let good = Server::new(image.clone());
    let mut request = request(lying.url(), &image, Format::Raw);
    request.sources.push(good.url());
    let disk = MemorySink::new(12 * MIB, 0xa5);
    let written = write(&request, &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!(written.source, good.url());
}

#[test]
fn the_whole_transfer_may_have_a_limit_however_it_dawdles() {
    let image = disk_image(3 * MIB, 18);
    // Fast enough for the stall rule, and too slow for the limit.
    let slow = Fault::Trickle(2_000_000, Duration::from_micros(300));
    let server = Server::new(image.clone()).faults([slow]);
    let limit = Duration::from_millis(1000);
    let transport = Transport { max_duration: Some(limit), ..transport() };
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let request = request(server.url(), &image, Format::Raw);
    let started = Instant::now();
    let error = imaging::write_image(
        &request,
        &transport,
        Box::new(disk.clone()),
        &Events::default(),
        &imaging::Cancel::new(),
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.report());
    assert!(started.elapsed() < limit * 5, "{:?}", started.elapsed());
    assert_unbootable(&disk);
}
