//! A small HTTP server with faults, and what the tests of this crate share.
#![allow(dead_code, missing_docs, clippy::cast_possible_truncation)]

pub mod qcow2;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imaging::{Cancel, Error, ExpectedDigest, Format, ImageRequest, MemorySink, Proxies, Transport, Written};
use sha2::Digest;

pub const MIB: usize = 1 << 20;

/// What goes wrong with one request. Offsets are of the image, so that they mean the same in a resumed transfer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// No fault: serves this request properly, for faults that come later.
    None,
    /// Hangs up before this byte.
    Cut(u64),
    /// Sends this byte inverted.
    Flip(u64),
    /// Stops sending before this byte, but keeps the connection for a while.
    Stall(u64, Duration),
    /// Answers with this status.
    Status(u16),
    /// Announces this many bytes more than it has, and hangs up at the end.
    Longer(u64),
    /// Announces a content encoding.
    Encoded(&'static str),
    /// From this request on the image is another one, with another ETag.
    Replace(Arc<Vec<u8>>),
    /// Sends a Content-Range that starts elsewhere.
    WrongRange,
    /// Sends no Content-Length.
    Unannounced,
    /// Sends elsewhere.
    Redirect(String),
    /// Hangs up without an answer.
    HangUp,
    /// Announces this many bytes fewer than it has, and sends no more.
    Shorter(u64),
    /// Sends no Content-Length, and hangs up before this byte.
    UnannouncedCut(u64),
    /// Sends the whole image, whatever part was asked for.
    WholeForPart,
    /// Sends the part that was asked for, under another ETag.
    OtherTag,
    /// Sends a Content-Range of an image of another length.
    WrongTotal,
    /// From this byte on sends a byte at a time, with a pause.
    Trickle(u64, Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub range: Option<String>,
    pub if_range: Option<String>,
    pub authorization: Option<String>,
    pub accept_encoding: Option<String>,
}

pub trait Content: Send + Sync {
    fn len(&self) -> u64;
    fn read(&self, offset: u64, space: &mut [u8]);
}

impl Content for Vec<u8> {
    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }
    fn read(&self, offset: u64, space: &mut [u8]) {
        let start = offset as usize;
        space.copy_from_slice(&self[start..start + space.len()]);
    }
}

/// What a server is like.
#[derive(Clone)]
struct Nature {
    etag: Option<String>,
    encoding: Option<&'static str>,
    ranges: bool,
}

struct State {
    content: Arc<dyn Content>,
    nature: Nature,
    faults: VecDeque<Fault>,
    seen: Vec<Seen>,
}

#[derive(Clone)]
pub struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
    sent: Arc<AtomicU64>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

impl Server {
    pub fn new(content: impl Content + 'static) -> Self {
        Self::start(Arc::new(content), true, Some("\"one\"".into()))
    }

    pub fn without_ranges(content: impl Content + 'static) -> Self {
        Self::start(Arc::new(content), false, Some("\"one\"".into()))
    }

    pub fn without_etag(content: impl Content + 'static) -> Self {
        Self::start(Arc::new(content), true, None)
    }

    /// Serves over TLS with a certificate of its own, which is given as PEM.
    pub fn tls(
        content: impl Content + 'static,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> (Self, String) {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let server =
            Self::start_with(Arc::new(content), true, Some("\"one\"".into()), Some(Arc::new(config)));
        (server, own.cert.pem())
    }

    /// Serves over TLS to whoever shows this certificate.
    pub fn tls_for(content: impl Content + 'static, client: &rcgen::Certificate) -> Self {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(client.der().clone()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        );
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        Self::start_with(Arc::new(content), true, Some("\"one\"".into()), Some(Arc::new(config)))
    }

    fn start(content: Arc<dyn Content>, ranges: bool, etag: Option<String>) -> Self {
        Self::start_with(content, ranges, etag, None)
    }

    fn start_with(
        content: Arc<dyn Content>,
        ranges: bool,
        etag: Option<String>,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let nature = Nature { etag, encoding: None, ranges };
        let state = State { content, nature, faults: VecDeque::new(), seen: Vec::new() };
        let server = Self { port, state: Arc::new(Mutex::new(state)), sent: Arc::default(), tls };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        server
    }

    /// Sends its content as encoded, whatever is asked for.
    pub fn encoded(content: impl Content + 'static, encoding: &'static str) -> Self {
        let server = Self::new(content);
        server.state.lock().unwrap().nature.encoding = Some(encoding);
        server
    }

    /// Queues faults, one for each request to come.
    pub fn faults(self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.state.lock().unwrap().faults.extend(faults);
        self
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}/image", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// Body bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    fn serve(&self, stream: TcpStream) {
        let mut stream: Box<dyn Connection> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let connection = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                Box::new(rustls::StreamOwned::new(connection, stream))
            }
        };
        let mut seen = Seen { range: None, if_range: None, authorization: None, accept_encoding: None };
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        for line in String::from_utf8_lossy(&head).lines() {
            if let Some((name, value)) = line.split_once(':') {
                let value = Some(value.trim().to_owned());
                match name.to_ascii_lowercase().as_str() {
                    "range" => seen.range = value,
                    "if-range" => seen.if_range = value,
                    "authorization" => seen.authorization = value,
                    "accept-encoding" => seen.accept_encoding = value,
                    _ => {}
                }
            }
        }
        let (fault, content, mut nature) = {
            let mut state = self.state.lock().unwrap();
            state.seen.push(seen.clone());
            let fault = state.faults.pop_front().unwrap_or(Fault::None);
            if let Fault::Replace(other) = &fault {
                state.content = Arc::new(Vec::clone(other));
                state.nature.etag = Some("\"two\"".into());
            }
            (fault, Arc::clone(&state.content), state.nature.clone())
        };
        match &fault {
            Fault::HangUp => return,
            Fault::WholeForPart => nature.ranges = false,
            Fault::OtherTag => {
                seen.if_range = None;
                nature.etag = Some("\"other\"".into());
            }
            _ => {}
        }
        let _ = self.answer(&mut *stream, &seen, &fault, &*content, &nature);
        let _ = stream.flush();
    }

    fn answer(
        &self,
        stream: &mut dyn Connection,
        seen: &Seen,
        fault: &Fault,
        content: &dyn Content,
        nature: &Nature,
    ) -> std::io::Result<()> {
        let Nature { etag, encoding, ranges } = nature;
        let etag = etag.as_deref();
        if let Fault::Status(status) = fault {
            return write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        if let Fault::Redirect(to) = fault {
            return write!(
                stream,
                "HTTP/1.1 302 x\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        let total = content.len();
        let fresh = seen.if_range.as_deref().is_none_or(|tag| Some(tag) == etag);
        let range = seen.range.as_deref().filter(|_| *ranges && fresh).map(|range| {
            let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let last = last.parse::<u64>().map_or(total - 1, |last| last.min(total - 1));
            (first.parse::<u64>().unwrap(), last)
        });
        if range.is_some_and(|(first, _)| first >= total) {
            return write!(
                stream,
                "HTTP/1.1 416 x\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        let (first, end) = range.map_or((0, total), |(first, last)| (first, last + 1));
        let mut head = match range {
            Some((first, last)) => {
                let first = if matches!(fault, Fault::WrongRange) { first + 1 } else { first };
                let total = if matches!(fault, Fault::WrongTotal) { total + 7 } else { total };
                let last = if matches!(fault, Fault::WrongTotal) { last + 7 } else { last };
                format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{total}\r\n")
            }
            None => "HTTP/1.1 200 OK\r\n".to_owned(),
        };
        match fault {
            Fault::Longer(more) => head += &format!("Content-Length: {}\r\n", end - first + more),
            Fault::Shorter(fewer) => head += &format!("Content-Length: {}\r\n", end - first - fewer),
            Fault::Unannounced | Fault::UnannouncedCut(_) => {}
            _ => head += &format!("Content-Length: {}\r\n", end - first),
        }
        let lie = if let Fault::Encoded(encoding) = fault { Some(*encoding) } else { None };
        if let Some(encoding) = lie.or(*encoding) {
            head += &format!("Content-Encoding: {encoding}\r\n");
        }
        if let Some(etag) = etag {
            head += &format!("ETag: {etag}\r\n");
        }
        if *ranges {
            head += "Accept-Ranges: bytes\r\n";
        }
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        let mut buffer = vec![0u8; 128 * 1024];
        let mut at = first;
        let end = if let Fault::Shorter(fewer) = fault { end - fewer } else { end };
        while at < end {
            let mut stop = end.min(at + buffer.len() as u64);
            let mut stall = None;
            match fault {
                Fault::Cut(cut) | Fault::UnannouncedCut(cut) if *cut <= at => return Ok(()),
                Fault::Cut(cut) | Fault::UnannouncedCut(cut) => stop = stop.min(*cut),
                Fault::Trickle(from, pause) if *from <= at => {
                    std::thread::sleep(*pause);
                    stop = at + 1;
                }
                Fault::Trickle(from, _) => stop = stop.min(*from),
                Fault::Stall(from, time) if *from <= at => stall = Some(*time),
                Fault::Stall(from, _) => stop = stop.min(*from),
                _ => {}
            }
            if let Some(time) = stall {
                std::thread::sleep(time);
                return Ok(());
            }
            let space = &mut buffer[..(stop - at) as usize];
            content.read(at, space);
            if let Fault::Flip(byte) = fault
                && (at..stop).contains(byte)
            {
                space[(byte - at) as usize] ^= 0xff;
            }
            stream.write_all(space)?;
            self.sent.fetch_add(space.len() as u64, Ordering::SeqCst);
            at = stop;
        }
        Ok(())
    }
}

/// Bytes that look like a disk: data, runs of zeroes of many lengths, data again.
pub fn disk_image(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut image = Vec::with_capacity(length + 8);
    while image.len() < length {
        let run = (next() % 300_000) as usize + 1;
        match next() % 3 {
            0 => image.resize(image.len() + run, 0),
            1 => image.extend((0..run).map(|i| (i % 251) as u8 | 1)),
            _ => (0..run / 8).for_each(|_| image.extend_from_slice(&next().to_le_bytes())),
        }
    }
    image.truncate(length);
    image
}

pub fn sha256(bytes: &[u8]) -> ExpectedDigest {
    ExpectedDigest::from_parts("sha256", &hex::encode(sha2::Sha256::digest(bytes))).unwrap()
}

pub fn request(url: String, published: &[u8], format: Format) -> ImageRequest {
    ImageRequest {
        label: "test-image".into(),
        sources: vec![url],
        digest: sha256(published),
        format,
        checks: imaging::Checks::default(),
        translate: None,
        preflight: None,
        authorization: None,
        proxies: Proxies::default(),
        signature: None,
        read_back: false,
    }
}

/// Impatient, so that tests are quick.
pub fn transport() -> Transport {
    Transport {
        connect_timeout: Duration::from_millis(1500),
        attempts: 3,
        digest_attempts: 3,
        retry_interval: Duration::from_millis(20),
        ..Transport::default()
    }
}

pub fn write(request: &ImageRequest, disk: &MemorySink) -> Result<Written, Error> {
    write_with(request, disk, &events::Events::default())
}

/// As [`write`], without a second try.
#[allow(dead_code)] // each test binary uses its part
pub fn write_once(request: &ImageRequest, disk: &MemorySink) -> Result<Written, Error> {
    let (transport, events) = (Transport { digest_attempts: 1, ..transport() }, events::Events::default());
    imaging::write_image(request, &transport, Box::new(disk.clone()), &events, &Cancel::new())
}

pub fn write_with(
    request: &ImageRequest,
    disk: &MemorySink,
    events: &events::Events,
) -> Result<Written, Error> {
    imaging::write_image(request, &transport(), Box::new(disk.clone()), events, &Cancel::new())
}

/// Panics unless the disk equals the image, followed by `fill` up to its last MiB, followed by zeroes.
pub fn assert_disk(disk: &MemorySink, image: &[u8], fill: u8) {
    let contents = disk.contents();
    let tail = contents.len() - MIB;
    // Compared whole first: byte by byte takes minutes on large disks without optimization.
    if contents[..image.len()] != *image {
        let first = contents.iter().zip(image).position(|(a, b)| a != b);
        panic!("byte {first:?} differs from the image");
    }
    let beyond = |from: usize, to: usize, value: u8| {
        let (from, to) = (from.max(image.len()), to.max(image.len()));
        assert!(contents[from..to].iter().all(|b| *b == value), "disk beyond the image, {from}..{to}");
    };
    beyond(0, MIB, 0);
    beyond(MIB.min(tail), tail, fill);
    beyond(tail, contents.len(), 0);
}

/// Panics unless both ends of the disk are zero.
pub fn assert_unbootable(disk: &MemorySink) {
    let contents = disk.contents();
    assert!(contents[..MIB].iter().all(|b| *b == 0), "the head was written");
    assert!(contents[contents.len() - MIB..].iter().all(|b| *b == 0), "the tail was written");
    assert!(!disk.is_committed());
}

/// A key pair of minisign's kind, always the same for a seed.
#[allow(dead_code)] // each test binary uses its part
pub struct Signer {
    pair: aws_lc_rs::signature::Ed25519KeyPair,
    id: [u8; 8],
}

#[allow(dead_code)]
impl Signer {
    pub fn new(seed: u8) -> Self {
        let pair = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        Self { pair, id: [seed; 8] }
    }

    pub fn key(&self) -> imaging::PublicKey {
        use aws_lc_rs::signature::KeyPair;
        let bytes = [b"Ed", self.id.as_slice(), self.pair.public_key().as_ref()].concat();
        base64(&bytes).parse().unwrap()
    }

    pub fn keys(&self) -> imaging::TrustedKeys {
        imaging::TrustedKeys(vec![self.key()])
    }

    /// What `minisign -S` would write.
    pub fn file(&self, image: &[u8]) -> String {
        let comment = "signed in a test";
        let signature = self.pair.sign(&blake2::Blake2b512::digest(image));
        let vouch = self.pair.sign(&[signature.as_ref(), comment.as_bytes()].concat());
        let line = base64(&[b"ED", self.id.as_slice(), signature.as_ref()].concat());
        format!("untrusted comment: x\n{line}\ntrusted comment: {comment}\n{}\n", base64(vouch.as_ref()))
    }

    pub fn sign(&self, image: &[u8]) -> imaging::ExpectedSignature {
        self.keys().accept(&self.file(image)).unwrap()
    }
}

#[allow(dead_code)]
fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[allow(dead_code)]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
