//! Images from outside, written to a disk in memory by the function that writes them to real ones.

use std::cell::RefCell;
use std::io::{Seek, Write};
use std::path::Path;
use std::time::Duration;

use events::Events;
use imaging::{
    Cancel, Checks, Error, ExpectedDigest, Format, ImageRequest, MemorySink, Proxies, Transport, Written,
};
use md5::{Digest, Md5};

use crate::server::Server;

/// Size of the disk: more than its two ends that are held back, little enough to be made anew for each input.
const DISK: usize = 4 << 20;
/// What each byte of the disk is before.
const FILL: u8 = 0xa5;
/// Each end of the disk that is held back until the image is verified.
const END: usize = 1 << 20;
/// The formats that a conductor can permit.
const FORMATS: [&str; 4] = ["raw", "gpt", "qcow2", "iso"];

/// What an end looks like before the commit. Compared as a whole: a fuzzer counts every comparison of a byte.
static ZEROES: [u8; END] = [0; END];
/// What the disk looks like before.
static UNTOUCHED: [u8; DISK] = [FILL; DISK];

/// Between two answers of a server. A byte sequence that no compressor needs.
const NEXT_ANSWER: &[u8] = b"\n--\n";

thread_local! {
    static FILE: RefCell<Option<tempfile::NamedTempFile>> = const { RefCell::new(None) };
}

/// A qcow2 file from a source with parts and from one without.
pub(crate) fn qcow2(data: &[u8]) {
    drop(both_ways(data, Format::Qcow2));
}

/// A raw image, compressed or not.
pub(crate) fn compressed(data: &[u8]) {
    drop(from_file(data, Format::Raw));
}

/// An image of which nothing is said: what it is, is told by its first bytes.
pub(crate) fn undeclared(data: &[u8]) {
    drop(from_file(data, Format::Detect));
}

/// What became of a disk: its contents and how many of its bytes the image covers.
pub(crate) type Outcome = Result<(Vec<u8>, u64), Error>;

/// Writes a file from a source with parts and from one without: where both succeed, the disks are the same.
pub(crate) fn both_ways(data: &[u8], format: Format) -> Outcome {
    let parts = from_file(data, format);
    // The slower way in turns: told by the input, so that a find stays one.
    if !checksum(data).is_multiple_of(4) {
        return parts;
    }
    let streamed = {
        let server = Server::claim();
        server.serve_file(data);
        write(data, format, server.port())
    };
    if let (Ok(parts), Ok(streamed)) = (&parts, &streamed) {
        assert!(parts == streamed, "the way of reading changes the disk");
    }
    // A stream can need more than a file read in parts (tables before data), never less.
    if let (Err(error), Ok(_)) = (&parts, &streamed) {
        panic!("streaming takes what reading in parts refuses: {}", error.report());
    }
    parts
}

fn checksum(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}

fn from_file(data: &[u8], format: Format) -> Outcome {
    let url = FILE.with_borrow_mut(|place| {
        let stored = place.take().map_or_else(tempfile::NamedTempFile::new, Ok).and_then(|mut file| {
            file.as_file().set_len(0)?;
            file.rewind()?;
            file.write_all(data)?;
            Ok(file)
        });
        match stored {
            Ok(file) => format!("file://{}", place.insert(file).path().display()),
            Err(error) => panic!("no temporary file: {error}"),
        }
    });
    write_from(url, data, format, Proxies::default())
}

/// Through the server, which is the proxy for every host: nothing leaves the machine, whatever an answer says.
fn write(published: &[u8], format: Format, port: u16) -> Outcome {
    write_from("http://images.invalid/image".to_owned(), published, format, proxies(port))
}

fn write_from(url: String, published: &[u8], format: Format, proxies: Proxies) -> Outcome {
    let sink = MemorySink::new(DISK, FILL);
    let result = write_onto(&sink, url, published, format, proxies);
    judge(&sink, result)
}

fn write_onto(
    sink: &MemorySink,
    url: String,
    published: &[u8],
    format: Format,
    proxies: Proxies,
) -> Result<Written, Error> {
    let digest = match ExpectedDigest::from_parts("md5", &hex::encode(Md5::digest(published))) {
        Ok(digest) => digest,
        Err(error) => panic!("{error}"),
    };
    let request = ImageRequest {
        label: "fuzz".into(),
        sources: vec![url],
        digest,
        signature: None,
        format,
        checks: Checks { permitted: FORMATS.map(str::to_owned).into(), ..Checks::default() },
        translate: None,
        preflight: None,
        authorization: None,
        proxies,
        read_back: false,
    };
    imaging::write_image(&request, &transport(), Box::new(sink.clone()), &Events::new(1), &Cancel::new())
}

/// Writes a qcow2 file onto a disk in memory, for `tests/oracles`. `size` is that of the disk image inside, in bytes. Gives back
/// that many bytes of the disk, each of which was something else than zero before, and what was told.
///
/// # Errors
/// See [`imaging::write_image`].
pub fn written_disk(image: &Path, size: usize) -> Result<(Vec<u8>, Written), Error> {
    let published = std::fs::read(image).unwrap_or_default();
    let sink = MemorySink::new(size.saturating_add(2 * END), FILL);
    let url = format!("file://{}", image.display());
    let written = write_onto(&sink, url, &published, Format::Qcow2, Proxies::default())?;
    let mut disk = sink.contents();
    disk.truncate(size);
    Ok((disk, written))
}

fn proxies(port: u16) -> Proxies {
    let proxy = Some(format!("http://127.0.0.1:{port}"));
    Proxies { http: proxy.clone(), https: proxy, no_proxy: None }
}

/// Impatient, as the server is near and never stalls. Certificates are not looked at, so that no authorities are read.
fn transport() -> Transport {
    Transport {
        insecure: true,
        connect_timeout: Duration::from_secs(10),
        attempts: 2,
        digest_attempts: 1,
        retry_interval: Duration::ZERO,
        max_duration: Some(Duration::from_secs(20)),
        ..Transport::default()
    }
}

/// Holds what became of the disk to what was told.
fn judge(sink: &MemorySink, result: Result<Written, Error>) -> Outcome {
    let contents = sink.contents();
    let zero = |range: Option<&[u8]>| range == Some(ZEROES.as_slice());
    match result {
        Ok(written) => {
            assert!(sink.is_committed(), "success without a commit");
            assert_eq!(written.data_bytes + written.zeroed_bytes, written.virtual_size, "each byte once");
            let covered = usize::try_from(written.virtual_size).unwrap_or(usize::MAX);
            let beyond = contents.get(covered.max(END)..DISK - END).unwrap_or_default();
            assert!(Some(beyond) == UNTOUCHED.get(..beyond.len()), "written beyond the image");
            Ok((contents, written.virtual_size))
        }
        Err(error) => {
            assert!(!sink.is_committed(), "a commit without success");
            if error.left_disk_unbootable() {
                assert!(zero(contents.get(..END)), "the head was written: {}", error.report());
                assert!(zero(contents.get(DISK - END..)), "the tail was written: {}", error.report());
            } else {
                assert!(sink.writes() == 0, "the disk was touched in silence: {}", error.report());
            }
            Err(error)
        }
    }
}

/// The answers of a server, one a connection.
fn answers(data: &[u8]) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(NEXT_ANSWER.len()).position(|window| window == NEXT_ANSWER) {
        answers.push(rest.get(..at).unwrap_or_default().to_vec());
        rest = rest.get(at + NEXT_ANSWER.len()..).unwrap_or_default();
    }
    answers.push(rest.to_vec());
    answers
}

/// An image server that answers anything: to a write of a raw image and of a qcow2 file.
pub(crate) fn http_answers(data: &[u8]) {
    let server = Server::claim();
    let (format, data) = match data.split_first() {
        Some((first, rest)) if first & 1 == 1 => (Format::Qcow2, rest),
        Some((_, rest)) => (Format::Raw, rest),
        None => return,
    };
    let answers = answers(data);
    // The digest is that of the first answer's body: the image that a server without faults would send.
    let body = answers.first().and_then(|first| {
        let at = first.windows(4).position(|end| end == b"\r\n\r\n")?;
        first.get(at + 4..)
    });
    let body = body.unwrap_or_default().to_vec();
    server.serve_bytes(answers);
    drop(write(&body, format, server.port()));
}

/// A registry that answers anything, to a look at what it holds.
pub(crate) fn oci_registry(data: &[u8]) {
    let server = Server::claim();
    // On this machine, as others are asked over TLS. Its token server is anywhere, and so behind the proxy.
    let reference = format!("oci://127.0.0.1:{}/images/disk:tag", server.port());
    server.serve_bytes(answers(data));
    let proxies = proxies(server.port());
    if let Ok(image) = imaging::resolve_oci(&reference, &transport(), &proxies, None, &Cancel::new()) {
        assert!(!image.pinned, "a tag is no digest");
        let name = image.reference.to_string();
        assert!(name.starts_with("oci://127.0.0.1:") && name.contains("@sha256:"), "another image: {name}");
    }
}
