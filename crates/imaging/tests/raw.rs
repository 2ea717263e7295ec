//! Raw images over HTTP and from files: what ends up on the disk, and what a failure leaves there.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod support;

use std::time::{Duration, Instant};

use events::{EventKind, Events, Phase};
use imaging::{BlockSink, Cancel, ErrorKind, Format, MemorySink, Proxies, SmallFile, Transport};
use proptest::prelude::*;
use support::*;

#[test]
fn a_raw_image_replaces_every_byte_it_covers() {
    let image = disk_image(5 * MIB + 12_345, 1);
    let server = Server::new(image.clone());
    let disk = MemorySink::new(9 * MIB, 0xa5);
    let written = write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert!(disk.is_committed());
    assert_eq!(written.published_bytes, image.len() as u64);
    assert_eq!(written.virtual_size, image.len() as u64);
    assert_eq!(written.data_bytes + written.zeroed_bytes, image.len() as u64);
    assert!(written.zeroed_bytes > 0, "runs of zeroes go through the device");
    assert_eq!((written.resumed, written.restarted), (0, 0));
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].accept_encoding.as_deref(), Some("identity"));
}

#[test]
fn a_disk_is_read_back_before_it_can_boot_if_asked_for() {
    let image = disk_image(5 * MIB + 12_345, 9);
    let server = Server::new(image.clone());
    let request = imaging::ImageRequest { read_back: true, ..request(server.url(), &image, Format::Raw) };
    let disk = MemorySink::new(9 * MIB, 0xa5);
    let events = Events::default();
    write_with(&request, &disk, &events).unwrap();
    assert_disk(&disk, &image, 0xa5);
    let length = image.len() as u64;
    let told = EventKind::Progress { phase: Phase::Verify, done: length, total: Some(length), written: None };
    assert!(events.after(0, 1000).events.iter().any(|event| event.kind == told));
}

#[test]
fn a_disk_that_does_not_give_back_what_was_written_never_boots() {
    let image = disk_image(6 * MIB, 10);
    // In the body, in the head, and at the end, which is held back.
    for at in [3 * MIB + 77, 512, 6 * MIB - 1] {
        let server = Server::new(image.clone());
        let disk = MemorySink::new(6 * MIB, 0xa5);
        disk.damage_at(at, 4);
        let plain = request(server.url(), &image, Format::Raw);
        let request = imaging::ImageRequest { read_back: true, ..plain.clone() };
        let error = write_with(&request, &disk, &Events::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Write, "{at}: {}", error.report());
        assert!(error.report().contains("does not give back"), "{}", error.report());
        assert_unbootable(&disk);
        // Without asking nobody notices.
        assert!(write_with(&plain, &disk, &Events::default()).is_ok());
    }
}

#[test]
fn the_phases_are_told_in_order_with_progress_between() {
    let image = disk_image(3 * MIB, 2);
    let server = Server::new(image.clone());
    let events = Events::default();
    write_with(&request(server.url(), &image, Format::Raw), &MemorySink::new(4 * MIB, 0xa5), &events)
        .unwrap();
    let kinds: Vec<_> = events.after(0, 100).events.into_iter().map(|e| e.kind).collect();
    let phases: Vec<_> = kinds
        .iter()
        .filter_map(|kind| match kind {
            EventKind::PhaseFinished { phase, .. } => Some(*phase),
            _ => None,
        })
        .collect();
    assert_eq!(phases, [Phase::Open, Phase::Write, Phase::Verify, Phase::Commit]);
    let length = image.len() as u64;
    assert!(kinds.contains(&EventKind::Progress {
        phase: Phase::Write,
        done: length,
        total: Some(length),
        written: Some(length)
    }));
}

#[test]
fn what_was_damaged_on_the_way_is_fetched_again() {
    let image = disk_image(4 * MIB, 3);
    let server = Server::new(image.clone()).faults([Fault::Flip(2_000_000)]);
    let disk = MemorySink::new(6 * MIB, 0xa5);
    let events = Events::default();
    let written = write_with(&request(server.url(), &image, Format::Raw), &disk, &events).unwrap();
    assert_eq!((written.restarted, server.seen().len()), (1, 2));
    assert_disk(&disk, &image, 0xa5);
    let retried = events.after(0, 1000).events.into_iter().find_map(|event| match event.kind {
        EventKind::Retrying { reason, attempt: 2, attempts: 3, .. } => Some(reason),
        _ => None,
    });
    assert!(retried.unwrap().contains("the write starts over"));
}

#[test]
fn a_flipped_byte_leaves_the_disk_unbootable_and_names_both_digests() {
    let image = disk_image(4 * MIB, 3);
    let server = Server::new(image.clone()).faults([const { Fault::Flip(2_000_000) }; 3]);
    let disk = MemorySink::new(6 * MIB, 0xa5);
    let events = Events::default();
    let request = request(server.url(), &image, Format::Raw);
    let error = write_with(&request, &disk, &events).unwrap_err();
    assert_eq!(server.seen().len(), 3, "as often as a transfer is tried");
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert!(error.left_disk_unbootable());
    assert!(error.report().contains(&request.digest.hex()) && error.report().contains("does not boot"));
    assert_unbootable(&disk);
    let last = events.after(0, 1000).events.pop().unwrap().kind;
    assert_eq!(last, EventKind::Failed { phase: Phase::Verify, message: error.report() });
}

#[test]
fn a_cut_transfer_goes_on_where_it_broke() {
    let image = disk_image(8 * MIB, 4);
    let at = image.len() as u64 * 9 / 10;
    let server = Server::new(image.clone()).faults([Fault::Cut(at), Fault::Cut(at + 1_000_000)]);
    let disk = MemorySink::new(8 * MIB, 0xa5);
    let events = Events::default();
    let written = write_with(&request(server.url(), &image, Format::Raw), &disk, &events).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!(written.resumed, 1, "the second cut lies beyond the end");
    assert_eq!(server.sent(), image.len() as u64, "no byte was sent twice");
    let seen = server.seen();
    assert_eq!(seen[1].range, Some(format!("bytes={at}-")));
    assert_eq!(seen[1].if_range.as_deref(), Some("\"one\""));
    let retry = events.after(0, 1000).events.into_iter().find_map(|e| match e.kind {
        EventKind::Retrying { resume_at, attempt, attempts, .. } => Some((resume_at, attempt, attempts)),
        _ => None,
    });
    assert_eq!(retry, Some((at, 2, 3)));
}

#[test]
fn cuts_without_end_are_survived_as_long_as_there_is_progress() {
    let image = disk_image(12 * MIB, 5);
    let cuts = (1..=9).map(|n| Fault::Cut(n * 1_200_000));
    let server = Server::new(image.clone()).faults(cuts);
    let disk = MemorySink::new(12 * MIB, 0xa5);
    let written = write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!(written.resumed, 9);
    assert_eq!(server.sent(), image.len() as u64);
}

#[test]
fn a_server_without_validators_is_resumed_and_the_digest_decides() {
    let image = disk_image(3 * MIB, 6);
    let server = Server::without_etag(image.clone()).faults([Fault::Cut(1_500_000)]);
    let disk = MemorySink::new(3 * MIB, 0xa5);
    assert_eq!(write(&request(server.url(), &image, Format::Raw), &disk).unwrap().resumed, 1);
    assert_disk(&disk, &image, 0xa5);
}

#[test]
fn a_stalled_transfer_is_given_up_and_resumed() {
    let image = disk_image(3 * MIB, 7);
    let server = Server::new(image.clone()).faults([Fault::Stall(2_000_000, Duration::from_secs(20))]);
    let disk = MemorySink::new(3 * MIB, 0xa5);
    let started = Instant::now();
    assert_eq!(write(&request(server.url(), &image, Format::Raw), &disk).unwrap().resumed, 1);
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_disk(&disk, &image, 0xa5);
}

#[test]
fn without_ranges_the_write_starts_over_and_says_so() {
    let image = disk_image(4 * MIB, 8);
    let server = Server::without_ranges(image.clone()).faults([Fault::Cut(3_000_000)]);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let events = Events::default();
    let written = write_with(&request(server.url(), &image, Format::Raw), &disk, &events).unwrap();
    assert_eq!((written.resumed, written.restarted), (0, 1));
    assert_disk(&disk, &image, 0xa5);
    let reasons: Vec<_> = events
        .after(0, 1000)
        .events
        .into_iter()
        .filter_map(|e| match e.kind {
            EventKind::Retrying { reason, resume_at, .. } => Some((reason, resume_at)),
            _ => None,
        })
        .collect();
    assert!(reasons.iter().any(|(reason, at)| reason.contains("starts over") && *at == 0), "{reasons:?}");
}

#[test]
fn an_image_replaced_during_the_transfer_starts_over() {
    let old = disk_image(4 * MIB, 9);
    let new = disk_image(3 * MIB, 10);
    let server = Server::new(old).faults([Fault::Cut(2_000_000), Fault::Replace(new.clone().into())]);
    let disk = MemorySink::new(5 * MIB, 0);
    let written = write(&request(server.url(), &new, Format::Raw), &disk).unwrap();
    assert_eq!(written.restarted, 1);
    // What the first try wrote beyond the new image's end is not part of it.
    assert!(disk.contents().starts_with(&new));
}

#[test]
fn a_server_that_never_finishes_ends_in_an_error_and_an_unbootable_disk() {
    let image = disk_image(4 * MIB, 11);
    let server = Server::without_ranges(image.clone()).faults((0..50).map(|_| Fault::Cut(2_000_000)));
    let disk = MemorySink::new(5 * MIB, 0xa5);
    let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download);
    assert!(
        error.report().contains("at last: the server sends the image from its start"),
        "{}",
        error.report()
    );
    assert!(error.left_disk_unbootable());
    assert_unbootable(&disk);
    assert!(server.seen().len() <= 10, "{}", server.seen().len());
}

#[test]
fn a_length_that_never_comes_is_an_error() {
    let image = disk_image(2 * MIB, 12);
    let server = Server::new(image.clone()).faults((0..20).map(|_| Fault::Longer(1000)));
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download, "{}", error.report());
    assert_unbootable(&disk);
}

#[test]
fn an_image_without_announced_length_is_written() {
    let image = disk_image(4 * MIB, 13);
    let server = Server::new(image.clone()).faults([Fault::Unannounced]);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
}

#[test]
fn an_image_without_announced_length_that_does_not_fit_leaves_the_disk_unbootable() {
    let image = disk_image(6 * MIB, 14);
    let server = Server::new(image.clone()).faults([Fault::Unannounced]);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfSpace);
    assert_unbootable(&disk);
}

#[test]
fn an_image_larger_than_the_disk_is_refused_before_a_write() {
    let image = disk_image(3 * MIB, 15);
    let server = Server::new(image.clone());
    let disk = MemorySink::new(3 * MIB - 1, 0xa5);
    let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfSpace);
    assert!(!error.left_disk_unbootable());
    assert_eq!((disk.writes(), server.seen().len()), (0, 1));
}

#[test]
fn another_format_than_declared_is_refused_before_a_write() {
    let mut vmdk = disk_image(2 * MIB, 16);
    vmdk[..4].copy_from_slice(b"KDMV");
    let mut qcow2 = vmdk.clone();
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let raw = disk_image(2 * MIB, 17);
    for (image, declared, named) in [
        (vmdk, Format::Raw, "vmdk"),
        (qcow2, Format::Raw, "qcow2"),
        (raw, Format::Qcow2, "raw"),
        (Vec::new(), Format::Raw, "empty"),
    ] {
        let server = Server::new(image.clone());
        let disk = MemorySink::new(4 * MIB, 0xa5);
        let error = write(&request(server.url(), &image, declared), &disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage);
        assert!(error.report().contains(named), "{}", error.report());
        assert_eq!(disk.writes(), 0);
    }
}

#[test]
fn missing_images_are_not_asked_for_again_but_troubled_servers_are() {
    let image = disk_image(2 * MIB, 18);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let server = Server::new(image.clone()).faults([Fault::Status(404)]);
    let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
    assert_eq!((error.kind(), server.seen().len()), (ErrorKind::DownloadFatal, 1));
    let server = Server::new(image.clone()).faults((0..5).map(|_| Fault::Status(503)));
    let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
    assert_eq!((error.kind(), server.seen().len()), (ErrorKind::Download, 3));
    assert!(error.report().contains("503"));
    assert_eq!(disk.writes(), 0);
    let server = Server::new(image.clone()).faults((0..2).map(|_| Fault::Status(503)));
    write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
}

#[test]
fn a_range_that_starts_elsewhere_is_not_taken() {
    let image = disk_image(3 * MIB, 20);
    let server = Server::new(image.clone()).faults([Fault::Cut(1_500_000), Fault::WrongRange]);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DownloadFatal, "{}", error.report());
    assert_unbootable(&disk);
}

#[test]
fn the_next_source_takes_over_where_the_first_died() {
    let image = disk_image(4 * MIB, 21);
    let dying = Server::new(image.clone()).faults([
        Fault::Cut(2_500_000),
        Fault::Status(503),
        Fault::Status(503),
        Fault::Status(503),
    ]);
    let missing = Server::new(image.clone()).faults([Fault::Status(404)]);
    let good = Server::without_etag(image.clone());
    let mut request = request(missing.url(), &image, Format::Raw);
    request.sources.extend([dying.url(), good.url()]);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let written = write(&request, &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!(written.source, good.url());
    assert_eq!(good.seen()[0].range.as_deref(), Some("bytes=2500000-"));
    assert_eq!(good.seen()[0].if_range, None, "one server's ETag means nothing to another");
}

#[test]
fn credentials_are_sent_and_not_shown() {
    let image = disk_image(2 * MIB, 22);
    let server = Server::new(image.clone()).faults([Fault::Status(403)]);
    let mut request = request(format!("{}?sig=hush", server.url()), &image, Format::Raw);
    request.authorization = Some(wire::Secret::new("Bearer hush"));
    let error = write(&request, &MemorySink::new(4 * MIB, 0)).unwrap_err();
    assert_eq!(server.seen()[0].authorization.as_deref(), Some("Bearer hush"));
    assert!(!error.report().contains("hush") && !format!("{request:?}").contains("Bearer"));
}

#[test]
fn a_file_is_an_image_source_too() {
    let image = disk_image(3 * MIB + 7, 23);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &image).unwrap();
    let disk = MemorySink::new(5 * MIB, 0xa5);
    let url = format!("file://{}", file.path().display());
    write(&request(url, &image, Format::Raw), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    let error = write(&request("file:///nonexistent/image".into(), &image, Format::Raw), &disk).unwrap_err();
    assert!(error.report().contains("/nonexistent/image"));
}

#[test]
fn a_failing_disk_is_named_with_its_offset() {
    let image = disk_image(4 * MIB, 24);
    let server = Server::new(image.clone());
    let disk = MemorySink::new(4 * MIB, 0xa5);
    disk.fail_at(2_500_000);
    let error = write(&request(server.url(), &image, Format::Raw), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Write);
    assert!(
        error.report().contains("medium error") && error.report().contains("offset"),
        "{}",
        error.report()
    );
    assert_unbootable(&disk);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn cancelling_stops_a_stalled_write_soon() {
    let image = disk_image(4 * MIB, 25);
    let server = Server::new(image.clone()).faults([Fault::Stall(2_000_000, Duration::from_secs(30))]);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let cancel = Cancel::new();
    let other = cancel.clone();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        other.cancel();
    });
    let started = Instant::now();
    let mut patient = transport();
    patient.connect_timeout = Duration::from_secs(60);
    let request = request(server.url(), &image, Format::Raw);
    let error = imaging::write_image(&request, &patient, Box::new(disk.clone()), &Events::default(), &cancel)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_unbootable(&disk);
    canceller.join().unwrap();
}

fn fetch(server: &Server, limit_bytes: u64) -> Result<Vec<u8>, imaging::Error> {
    let (url, proxies) = (server.url(), Proxies::default());
    let file = SmallFile { url: &url, authorization: None, proxies: &proxies, limit_bytes };
    imaging::fetch_small(&file, &transport(), &Cancel::new())
}

#[test]
fn small_files_are_fetched_whole_or_refused_by_size() {
    let content = disk_image(200_000, 26);
    let server = Server::new(content.clone()).faults([Fault::Cut(150_000)]);
    assert_eq!(fetch(&server, 200_000).unwrap(), content);
    let error = fetch(&server, 199_999).unwrap_err();
    assert!(error.to_string().contains("199999"));
    let server = Server::new(content).faults([Fault::Unannounced]);
    assert!(fetch(&server, 199_999).is_err());
    let empty = Server::new(Vec::new());
    assert!(fetch(&empty, 10).unwrap().is_empty());
}

#[test]
fn cancelling_ends_the_pause_before_a_small_file_is_fetched_anew() {
    let server = Server::without_ranges(disk_image(200_000, 27)).faults([Fault::Cut(150_000)]);
    let pause = Duration::from_secs(4);
    let patient = Transport { retry_interval: pause, ..transport() };
    let (cancel, url, proxies) = (Cancel::new(), server.url(), Proxies::default());
    let canceller = std::thread::spawn({
        let (cancel, server) = (cancel.clone(), server.clone());
        move || {
            // The answer to the second request is the file from its start: after another pause it is fetched anew.
            while server.seen().len() < 2 {
                std::thread::sleep(Duration::from_millis(20));
            }
            std::thread::sleep(Duration::from_millis(300));
            cancel.cancel();
            Instant::now()
        }
    });
    let file = SmallFile { url: &url, authorization: None, proxies: &proxies, limit_bytes: 1 << 20 };
    let error = imaging::fetch_small(&file, &patient, &cancel).unwrap_err();
    let took = canceller.join().unwrap().elapsed();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(took < pause / 2, "{took:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_image_cut_anywhere_arrives_whole(
        length in 1usize..3_000_000,
        seed in any::<u64>(),
        cuts in proptest::collection::vec(0u64..3_000_000, 0..3),
        spare in 0usize..3_000_000,
    ) {
        let image = disk_image(length, seed);
        let server = Server::new(image.clone()).faults(cuts.into_iter().map(Fault::Cut));
        let disk = MemorySink::new(length + spare + MIB, 0xa5);
        write(&request(server.url(), &image, Format::Raw), &disk).unwrap();
        assert_disk(&disk, &image, 0xa5);
    }

    #[test]
    fn a_wrong_byte_anywhere_leaves_the_disk_unbootable(
        length in 1usize..2_500_000,
        seed in any::<u64>(),
        at in any::<prop::sample::Index>(),
    ) {
        let image = disk_image(length, seed);
        let server = Server::new(image.clone()).faults([Fault::Flip(at.index(length) as u64)]);
        let disk = MemorySink::new(3 * MIB, 0xa5);
        prop_assert!(write_once(&request(server.url(), &image, Format::Raw), &disk).is_err());
        assert_unbootable(&disk);
        prop_assert_eq!(disk.size(), 3 * MIB as u64);
    }
}
