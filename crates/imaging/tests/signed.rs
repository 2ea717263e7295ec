//! Signed images: only what a trusted key signed is committed, whatever the digest says.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod support;

use events::{EventKind, Events, Phase};
use imaging::{ErrorKind, ExpectedSignature, Format, ImageRequest, MemorySink, SignatureError};
use support::*;

fn signed(url: String, image: &[u8], signature: ExpectedSignature) -> ImageRequest {
    ImageRequest { signature: Some(signature), ..request(url, image, Format::Raw) }
}

#[test]
fn a_signed_image_is_written() {
    let image = disk_image(5 * MIB + 77, 21);
    let server = Server::new(image.clone());
    let disk = MemorySink::new(9 * MIB, 0xa5);
    let signer = Signer::new(1);
    write(&signed(server.url(), &image, signer.sign(&image)), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert!(disk.is_committed());
    assert_eq!(server.seen().len(), 1, "the image is read once for both sums");
}

#[test]
fn an_image_that_the_key_did_not_sign_is_never_committed_though_its_digest_matches() {
    let image = disk_image(5 * MIB, 22);
    let mut altered = image.clone();
    altered[3 * MIB] ^= 1;
    // The digest is that of the altered image: whoever altered it published a new checksum as well.
    let server = Server::new(altered.clone());
    let disk = MemorySink::new(9 * MIB, 0xa5);
    let events = Events::default();
    let signer = Signer::new(1);
    let error = write_with(&signed(server.url(), &altered, signer.sign(&image)), &disk, &events).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignatureMismatch, "{}", error.report());
    assert!(error.left_disk_unbootable());
    assert!(error.report().contains(&signer.key().id().to_string()), "{}", error.report());
    assert_unbootable(&disk);
    let failed =
        |event: &events::Event| matches!(&event.kind, EventKind::Failed { phase: Phase::Verify, .. });
    assert!(events.after(0, 1000).events.iter().any(failed));
    assert_eq!(server.seen().len(), 1, "what was published with the right digest will not change");
}

#[test]
fn the_signature_is_over_the_published_bytes_of_a_compressed_image() {
    let image = disk_image(4 * MIB, 23);
    let packed = gzip(&image);
    let server = Server::new(packed.clone());
    let signer = Signer::new(1);
    let disk = MemorySink::new(8 * MIB, 0xa5);
    write(&signed(server.url(), &packed, signer.sign(&packed)), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    let disk = MemorySink::new(8 * MIB, 0xa5);
    let error = write(&signed(server.url(), &packed, signer.sign(&image)), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignatureMismatch);
    assert_unbootable(&disk);
}

#[test]
fn damage_on_the_way_is_told_as_a_wrong_digest_and_fetched_again() {
    let image = disk_image(4 * MIB, 24);
    let mut damaged = image.clone();
    damaged[2 * MIB] ^= 0x10;
    let server = Server::new(damaged);
    let disk = MemorySink::new(8 * MIB, 0xa5);
    let error = write(&signed(server.url(), &image, Signer::new(1).sign(&image)), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert_eq!(server.seen().len(), transport().digest_attempts as usize);
}

#[test]
fn only_a_trusted_key_makes_an_expectation() {
    let image = disk_image(MIB, 25);
    let (trusted, stranger) = (Signer::new(1), Signer::new(2));
    let error = trusted.keys().accept(&stranger.file(&image)).unwrap_err();
    assert!(matches!(error, SignatureError::UnknownKey { id, .. } if id == stranger.key().id()));
}
