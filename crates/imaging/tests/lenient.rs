//! Answers that break the rules of HTTP and that curl and requests take: each with what comes of it.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use imaging::{ErrorKind, Format, MemorySink};
use support::qcow2::{Options, Order, build};
use support::*;

/// One request: its target and its fields.
struct Asked {
    target: String,
    fields: HashMap<String, String>,
}

impl Asked {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// First and last offset of a range.
    fn range(&self, length: usize) -> Option<(usize, usize)> {
        let (first, last) = self.field("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().unwrap(), last.parse().map_or(length - 1, |last: usize| last.min(length - 1))))
    }
}

/// Answers on a connection; `true` keeps it for the next request.
type Answer = dyn Fn(&Asked, &mut TcpStream) -> bool + Send + Sync;

struct Scripted {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn start(answer: impl Fn(&Asked, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        Self::with(answer, false)
    }

    /// `one_at_a_time`: a connection waits until the one before it is closed.
    fn with(
        answer: impl Fn(&Asked, &mut TcpStream) -> bool + Send + Sync + 'static,
        one_at_a_time: bool,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/image", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                match one_at_a_time {
                    true => serve(stream, &log, &*answer),
                    false => drop(std::thread::spawn(move || serve(stream, &log, &*answer))),
                }
            }
        });
        Self { url, asked }
    }

    /// Ranges of the requests so far, empty where there was none.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<String>>, answer: &Answer) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let fields =
            fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let asked = Asked { target: head.split(' ').nth(1).unwrap().to_owned(), fields };
        log.lock().unwrap().push(asked.field("range").unwrap_or_default().to_owned());
        if !answer(&asked, &mut stream) {
            return;
        }
    }
}

fn lands(url: &str, published: &[u8], raw: &[u8], format: Format) -> imaging::Written {
    let disk = MemorySink::new(raw.len() + 2 * MIB, 0xa5);
    let written = write(&request(url.to_owned(), published, format), &disk)
        .unwrap_or_else(|e| panic!("{}", e.report()));
    assert_disk(&disk, raw, 0xa5);
    written
}

/// A server that sends this head, and the image as it is.
fn with_head(head: &str, image: &[u8]) -> Scripted {
    let answer = [head.replace("LENGTH", &image.len().to_string()).as_bytes(), image].concat();
    Scripted::start(move |_, stream| stream.write_all(&answer).is_err())
}

#[test]
fn heads_that_are_not_quite_legal_are_taken() {
    let image = disk_image(2 * MIB + 17, 1);
    let many: String = (0..500).map(|n| format!("X-Field-{n}: {}\r\n", "v".repeat(200))).collect();
    for head in [
        "HTTP/1.1 200 OK\r\nServer : x\r\nPHP Warning:  in Unknown on line 0\r\n: y\r\njunk\r\nContent-Length: LENGTH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Long: a\r\n b\r\n\tc\r\nContent-Length: LENGTH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n LENGTH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Name: caf\u{e9}\r\nContent-Length: +LENGTH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\ncontent-length: LENGTH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: LENGTH, LENGTH\r\n\r\n",
        "HTTP/1.1 200\r\nContent-Length: LENGTH  \r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: LENGTH\nX: y\n\n",
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: LENGTH\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\n\r\n",
        &format!("HTTP/1.1 200 OK\r\n{many}Content-Length: LENGTH\r\n\r\n"),
    ] {
        let written = lands(&with_head(head, &image).url, &image, &image, Format::Raw);
        assert_eq!((written.resumed, written.restarted), (0, 0), "{head:?}");
    }
    for (head, words) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\nContent-Length: 5\r\n\r\n",
            "Content-Lengths, which differ",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer encoding"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not answer in HTTP/1"),
        (
            &format!("HTTP/1.1 200 OK\r\n{many}{many}{many}Content-Length: LENGTH\r\n\r\n"),
            "bytes of header fields",
        ),
    ] {
        let disk = MemorySink::new(4 * MIB, 0xa5);
        let error = write(&request(with_head(head, &image).url, &image, Format::Raw), &disk).unwrap_err();
        assert!(error.report().contains(words), "{head:?}: {}", error.report());
        assert_eq!(disk.writes(), 0);
    }
}

#[test]
fn names_that_are_no_content_encoding_change_nothing() {
    let image = disk_image(2 * MIB, 2);
    for name in
        ["aws-chunked", "utf-8", "UTF8", "none", "binary", "8bit", "identity, identity", "", "zstd", "raw"]
    {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\nContent-Encoding: {name}\r\n\r\n");
        lands(&with_head(&head, &image).url, &image, &image, Format::Raw);
    }
}

#[test]
fn the_digest_of_a_gzip_file_counts_as_sent_and_as_decoded_and_the_image_inside_is_written() {
    let image = disk_image(3 * MIB + 512, 3);
    let packed = gzip(&image);
    let guest = build(&image, Options::default());
    let twice = gzip(&packed);
    for (body, published, name, format) in [
        (&packed, &packed, "x-gzip", Format::Raw),
        (&packed, &packed, "gzip;q=1", Format::Raw),
        (&packed, &packed, "gzip, gzip", Format::Raw),
        (&packed, &image, "GZIP", Format::Raw),
        // A file that is compressed already and once more on its way.
        (&twice, &packed, "gzip", Format::Raw),
        (&twice, &twice, "gzip", Format::Raw),
        (&gzip(&guest), &gzip(&guest), "gzip", Format::Qcow2),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\nContent-Encoding: {name}\r\n\r\n");
        let written = lands(&with_head(&head, body).url, published, &image, format);
        assert_eq!(written.published_bytes, published.len() as u64, "{name}");
    }
    // Neither of them.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\nContent-Encoding: gzip\r\n\r\n";
    let disk = MemorySink::new(5 * MIB, 0xa5);
    let error = write(&request(with_head(head, &packed).url, &twice, Format::Raw), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch, "{}", error.report());
    assert_unbootable(&disk);
}

#[test]
fn a_signature_has_to_be_of_the_bytes_that_the_digest_is_of() {
    let image = disk_image(2 * MIB, 4);
    let packed = gzip(&image);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\nContent-Encoding: x-gzip\r\n\r\n";
    let signer = Signer::new(7);
    for (signed, is_valid) in [(&packed, true), (&image, false)] {
        let mut request = request(with_head(head, &packed).url, &packed, Format::Raw);
        request.signature = Some(signer.sign(signed));
        let disk = MemorySink::new(4 * MIB, 0xa5);
        assert_eq!(write_once(&request, &disk).is_ok(), is_valid);
        assert_eq!(disk.is_committed(), is_valid);
    }
}

/// Sends a body in chunks, each with this behind its length, and this at the end.
fn chunked(image: &[u8], size: usize, extension: &str, end: &str) -> Scripted {
    let mut body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 7\r\n\r\n".to_vec();
    for part in image.chunks(size) {
        body.extend_from_slice(format!("{:X}{extension}\r\n", part.len()).as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(end.as_bytes());
    Scripted::start(move |_, stream| stream.write_all(&body).is_err())
}

#[test]
fn chunks_may_have_long_extensions_and_trailers() {
    let image = disk_image(2 * MIB, 5);
    let long = format!(";chunk-signature={}", "a".repeat(64));
    let longer = format!("  ;x={}", "y".repeat(40_000));
    let trailers = format!("0\r\nX-Sum: {}\r\n\r\n", "z".repeat(20_000));
    for (size, extension, end) in [
        (1000, long.as_str(), "0\r\n\r\n"),
        (500_000, &longer, "0;last\r\n\r\n"),
        (123_457, "", &trailers),
        (70_000, "   ", "000\r\n\r\n"),
    ] {
        lands(&chunked(&image, size, extension, end).url, &image, &image, Format::Raw);
    }
    // An end that does not come is no end.
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let cut = chunked(&image, 100_000, "", "");
    assert!(write(&request(cut.url, &image, Format::Raw), &disk).is_err());
    assert!(!disk.is_committed());
    let endless = chunked(&image, 100_000, &format!(";{}", "x".repeat(300_000)), "0\r\n\r\n");
    let disk = MemorySink::new(4 * MIB, 0xa5);
    assert!(
        write(&request(endless.url, &image, Format::Raw), &disk)
            .unwrap_err()
            .report()
            .contains("header fields")
    );
}

fn ok(stream: &mut TcpStream, fields: &str, body: &[u8]) -> bool {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    stream.write_all(head.as_bytes()).is_ok() && stream.write_all(body).is_ok()
}

fn say(stream: &mut TcpStream, status: &str, fields: &str) -> bool {
    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n{fields}\r\n").as_bytes()).is_ok()
}

#[test]
fn a_cookie_of_a_redirect_is_sent_back() {
    let image = disk_image(2 * MIB, 6);
    let body = image.clone();
    let server = Scripted::start(move |asked, stream| match asked.field("cookie") {
        Some("gate=\"1\"; way=b") => ok(stream, "", &body),
        _ => {
            let cookies = "Set-Cookie: gate=\"1\"; Path=/; HttpOnly\r\nSet-Cookie: way=b\r\n";
            say(stream, "302 Found", &format!("{cookies}Location: {}\r\n", asked.target))
        }
    });
    lands(&server.url, &image, &image, Format::Raw);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_place_may_have_spaces_letters_and_a_fragment() {
    let image = disk_image(MIB, 7);
    let body = image.clone();
    let server = Scripted::start(move |asked, stream| match asked.target.as_str() {
        "/image" => say(stream, "302", "Location: dir/one two/\u{e9}.raw#part\r\n"),
        "/dir/one%20two/%C3%A9.raw" => ok(stream, "", &body),
        other => panic!("{other}"),
    });
    lands(&server.url, &image, &image, Format::Raw);
}

/// Serves ranges; `tag` makes the validator of each request by its number, `total` what stands behind the slash.
fn ranges(
    file: &[u8],
    fields: impl Fn(usize) -> String + Send + Sync + 'static,
    total: &'static str,
) -> Scripted {
    let (file, count) = (file.to_vec(), Mutex::new(0));
    Scripted::start(move |asked, stream| {
        let number = {
            let mut count = count.lock().unwrap();
            *count += 1;
            *count
        };
        let fields = fields(number);
        let is_same = asked.field("if-range").is_none_or(|tag| fields.contains(tag));
        match asked.range(file.len()).filter(|_| is_same) {
            None => ok(stream, &fields, &file),
            Some((first, last)) => {
                let total = total.replace("TOTAL", &file.len().to_string());
                let head = format!(
                    "HTTP/1.1 206 x\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{total}\r\n{fields}\r\n",
                    last - first + 1
                );
                stream.write_all(head.as_bytes()).is_ok() && stream.write_all(&file[first..=last]).is_ok()
            }
        }
    })
}

#[test]
fn tables_of_a_qcow2_are_read_whatever_the_server_says_of_its_parts() {
    let raw = disk_image(16 * MIB, 8);
    let file = build(&raw, Options { order: Order::DataFirst, zero_clusters: false, ..Options::default() });
    let now = |_| {
        let now = httpdate::fmt_http_date(std::time::SystemTime::now());
        format!("Last-Modified: {now}\r\nDate: {now}\r\n")
    };
    for server in [
        ranges(&file, |number| format!("ETag: \"backend{}\"\r\n", number % 2), "TOTAL"),
        ranges(&file, |number| format!("ETag: W/\"{number}\"\r\n"), "TOTAL"),
        ranges(&file, now, "TOTAL"),
        ranges(&file, |_| "ETag: \"one\"\r\n".to_owned(), "*"),
    ] {
        let written = lands(&server.url, &file, &raw, Format::Qcow2);
        assert_eq!((written.resumed, written.restarted), (0, 0));
        assert!(server.asked().iter().skip(1).all(|range| !range.is_empty()), "{:?}", server.asked());
    }
    // No ranges at all, or a refusal: the image is downloaded again for its tables.
    for status in ["200", "403 Forbidden", "416 x", "400 Bad Request", "501 x"] {
        let body = file.clone();
        let server = Scripted::start(move |asked, stream| match asked.field("range") {
            Some(_) if status != "200" => say(stream, status, ""),
            Some(_) | None => ok(stream, "", &body),
        });
        let written = lands(&server.url, &file, &raw, Format::Qcow2);
        assert_eq!((written.resumed, written.restarted), (0, 0), "{status}");
        assert!(server.asked().len() <= 5, "{status}: {:?}", server.asked());
    }
}

#[test]
fn a_server_that_serves_one_connection_at_a_time_is_not_waited_for() {
    let raw = disk_image(16 * MIB, 9);
    let file = build(&raw, Options { order: Order::DataFirst, zero_clusters: false, ..Options::default() });
    for has_ranges in [true, false] {
        let body = file.clone();
        let server = Scripted::with(
            move |asked, stream| match asked.range(body.len()).filter(|_| has_ranges) {
                None => ok(stream, "", &body),
                Some((first, last)) => {
                    let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", body.len());
                    let head =
                        format!("HTTP/1.1 206 x\r\nContent-Length: {}\r\n{range}\r\n", last - first + 1);
                    stream.write_all(head.as_bytes()).is_ok() && stream.write_all(&body[first..=last]).is_ok()
                }
            },
            true,
        );
        let started = Instant::now();
        let patient = imaging::Transport { connect_timeout: Duration::from_secs(60), ..transport() };
        let disk = MemorySink::new(raw.len() + 2 * MIB, 0xa5);
        let written = imaging::write_image(
            &request(server.url.clone(), &file, Format::Qcow2),
            &patient,
            Box::new(disk.clone()),
            &events::Events::default(),
            &imaging::Cancel::new(),
        )
        .unwrap();
        assert_disk(&disk, &raw, 0xa5);
        assert_eq!((written.resumed, written.restarted), (0, 0));
        assert!(started.elapsed() < Duration::from_secs(30), "{has_ranges}: {:?}", started.elapsed());
    }
}

#[test]
fn a_transfer_is_resumed_in_the_end_where_each_answer_has_another_tag() {
    let image = disk_image(6 * MIB, 10);
    let cut = Mutex::new(0);
    let body = image.clone();
    // Every answer ends after 4 MiB, and has an ETag of its own.
    let server = Scripted::start(move |asked, stream| {
        let number = {
            let mut cut = cut.lock().unwrap();
            *cut += 1;
            *cut
        };
        let range = asked.range(body.len()).filter(|_| asked.field("if-range").is_none());
        let (first, status) = range.map_or((0, "200 OK"), |(first, _)| (first, "206 x"));
        let end = body.len().min(first + 4 * MIB);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{}/*\r\nETag: \"{number}\"\r\n\r\n",
            body.len() - first,
            body.len() - 1
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[first..end]));
        false
    });
    let disk = MemorySink::new(8 * MIB, 0xa5);
    let transport = imaging::Transport { attempts: 5, ..transport() };
    let events = events::Events::default();
    let request = request(server.url.clone(), &image, Format::Raw);
    let written =
        imaging::write_image(&request, &transport, Box::new(disk.clone()), &events, &imaging::Cancel::new())
            .unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!((written.restarted, written.resumed), (2, 1), "{:?}", server.asked());
}
