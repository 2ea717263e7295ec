//! Several sources of one image: which is asked when, and what is said when none will do.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use events::{EventKind, Events};
use imaging::{ErrorKind, Format, MemorySink};
use support::*;

#[test]
fn a_source_that_holds_another_image_is_left_for_the_next() {
    let image = disk_image(3 * MIB, 1);
    let wrong = Server::new(disk_image(3 * MIB, 2));
    let good = Server::new(image.clone());
    let mut request = request(wrong.url(), &image, Format::Raw);
    request.sources.push(good.url());
    let disk = MemorySink::new(4 * MIB, 0xa5);
    // Without patience for wrong digests, as the command line has it.
    let written = write_once(&request, &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!((written.source, written.restarted), (good.url(), 1));
    assert_eq!((wrong.seen().len(), good.seen().len()), (1, 1));
}

/// What the events say of the failures that were followed by another try.
fn retries(events: &Events) -> Vec<String> {
    let reason = |kind| match kind {
        EventKind::Retrying { reason, .. } => Some(reason),
        _ => None,
    };
    events.after(0, 1000).events.into_iter().filter_map(|event| reason(event.kind)).collect()
}

#[test]
fn a_source_of_another_length_is_told_with_both_lengths_and_sources() {
    let image = disk_image(3 * MIB, 9);
    for (length, words) in
        [(3 * MIB + 512, "3146240 bytes, and had 3145728 bytes at "), (MIB, "nothing at byte 2500000")]
    {
        let dying = || Fault::Status(503);
        let one = Server::new(image.clone()).faults([Fault::Cut(2_500_000), dying(), dying(), dying()]);
        let other = Server::new(disk_image(length, 10));
        let mut request = request(one.url(), &image, Format::Raw);
        request.sources.push(other.url());
        let disk = MemorySink::new(4 * MIB, 0xa5);
        let events = Events::default();
        let _ = write_with(&request, &disk, &events); // the second holds another image: whether it ends well is not asked
        let told = retries(&events);
        let told = told.iter().find(|reason| reason.contains("can not be resumed")).unwrap();
        assert!(told.starts_with(&other.url()), "{told}");
        assert!(told.contains(words), "{told}");
        assert!(length == MIB || told.contains(&one.url()), "{told}");
    }
}

#[test]
fn an_image_that_was_replaced_on_its_server_is_told_as_that() {
    let (old, new) = (disk_image(3 * MIB, 11), disk_image(3 * MIB, 12));
    let replaced = [Fault::Cut(2_000_000), Fault::Replace(new.clone().into())];
    let server = Server::new(old).faults(replaced);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let events = Events::default();
    write_with(&request(server.url(), &new, Format::Raw), &disk, &events).unwrap();
    assert_disk(&disk, &new, 0xa5);
    let told = retries(&events);
    assert!(
        told.iter().any(|reason| reason.contains("(the image was replaced meanwhile: its ETag")),
        "{told:?}"
    );
}

#[test]
fn wrong_images_everywhere_are_told_and_leave_the_disk_unbootable() {
    let image = disk_image(3 * MIB, 3);
    let (one, two) = (Server::new(disk_image(3 * MIB, 4)), Server::new(disk_image(3 * MIB, 5)));
    let mut request = request(one.url(), &image, Format::Raw);
    request.sources.push(two.url());
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let error = write_once(&request, &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert_unbootable(&disk);
    // With patience: in turns, one after the other.
    write(&request, &disk).unwrap_err();
    assert_eq!((one.seen().len(), two.seen().len()), (1 + 2, 1 + 1));
}

#[test]
fn a_refused_connection_leads_to_the_next_source() {
    let image = disk_image(2 * MIB, 6);
    let good = Server::new(image.clone());
    // Port 9 (discard) on loopback: nobody listens.
    let mut request = request("http://127.0.0.1:9/image".into(), &image, Format::Raw);
    request.sources.push(good.url());
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let events = Events::default();
    assert_eq!(write_with(&request, &disk, &events).unwrap().source, good.url());
    let kinds: Vec<EventKind> = events.after(0, 1000).events.into_iter().map(|event| event.kind).collect();
    let retries = kinds.iter().filter(|kind| matches!(kind, EventKind::Retrying { .. })).count();
    assert_eq!(retries, 2, "three tries first");
    let notice =
        |kind: &EventKind| matches!(kind, EventKind::Notice { message } if message.contains("next source"));
    assert!(kinds.iter().any(notice), "{kinds:?}");
}

#[test]
fn when_no_source_works_each_failure_is_named() {
    let image = disk_image(2 * MIB, 7);
    let missing = Server::new(image.clone()).faults([Fault::Status(404)]);
    let troubled = Server::new(image.clone()).faults((0..3).map(|_| Fault::Status(503)));
    let mut request = request(missing.url(), &image, Format::Raw);
    request.sources.extend([troubled.url(), "file:///nonexistent/image".into()]);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let report = write(&request, &disk).unwrap_err().report();
    for part in ["3 sources", "404", "503", "/nonexistent/image", &missing.url(), &troubled.url()] {
        assert!(report.contains(part), "{part} is missing: {report}");
    }
    assert_eq!(disk.writes(), 0);
}

#[test]
fn a_file_takes_over_from_a_server_and_a_server_from_a_file() {
    let image = disk_image(4 * MIB, 8);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &image).unwrap();
    let url = format!("file://{}", file.path().display());
    let dying = Server::new(image.clone()).faults([Fault::Cut(2_500_000), Fault::Status(404)]);
    let mut both = request(dying.url(), &image, Format::Raw);
    both.sources.push(url);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let written = write(&both, &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!((written.resumed, written.restarted), (1, 0));

    let good = Server::new(image.clone());
    let mut absent = request("file:///nonexistent/image".into(), &image, Format::Raw);
    absent.sources.push(good.url());
    assert_eq!(write(&absent, &disk).unwrap().source, good.url());
}

#[test]
fn what_is_no_file_is_refused_as_a_source() {
    let image = disk_image(MIB, 9);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let error = write(&request("file:///dev/null".into(), &image, Format::Raw), &disk).unwrap_err();
    assert!(error.report().contains("neither a file nor a block device"), "{}", error.report());
    assert_eq!(disk.writes(), 0);
}
