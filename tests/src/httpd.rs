//! A small HTTP file server that can be told to misbehave, and that counts what it sent.
//!
//! Serves the files of one folder on a free port of the loopback, with `Range`, a strong `ETag` and `If-Range` (RFC 9110,
//! sections 13 and 14), one thread a connection, one request a connection. Faults work on offsets of the file, so a fault
//! meets the same byte whatever ranges the client asks for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Sent at once; small enough that a cut is close to where it was asked for.
const PIECE: usize = 64 * 1024;

/// What goes wrong with a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The lowest bit of the byte at this offset is turned over, each time it is sent.
    FlipByte(u64),
    /// The first time this offset is reached the connection is closed before it.
    CutOnce(u64),
    /// Each time this offset is reached, nothing is sent for so long.
    Stall(u64, Duration),
    /// Not faster than so many bytes a second, on each connection.
    Pace(u64),
    /// `Range` is ignored: the whole file, always.
    NoRange,
}

/// What was asked for and sent of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The `Range` header of each GET, in order; none where there was none.
    pub ranges: Vec<Option<String>>,
    /// Body bytes handed to the network, over all requests.
    pub sent: u64,
}

#[derive(Debug, Default)]
struct State {
    faults: HashMap<String, Vec<Fault>>,
    traffic: HashMap<String, Traffic>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    state: Mutex<State>,
    stop: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct FileServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl FileServer {
    /// Serves the files right in `root`.
    ///
    /// # Errors
    /// No port can be had.
    pub fn start(root: impl Into<PathBuf>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening on the loopback")?;
        let address = listener.local_addr()?;
        let shared =
            Arc::new(Shared { root: root.into(), state: Mutex::default(), stop: AtomicBool::new(false) });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Ok(Self { address, shared, listener: Some(thread) })
    }

    /// The URL of a file, for programs on this machine.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// The URL of a file, for a guest on QEMU's user network.
    pub fn guest_url(&self, name: &str) -> String {
        format!("http://10.0.2.2:{}/{name}", self.address.port())
    }

    /// Adds a fault to a file.
    pub fn fault(&self, name: &str, fault: Fault) {
        self.shared.lock().faults.entry(name.to_owned()).or_default().push(fault);
    }

    /// Takes all faults of a file away again.
    pub fn heal(&self, name: &str) {
        self.shared.lock().faults.remove(name);
    }

    /// What was asked for and sent of a file so far.
    pub fn traffic(&self, name: &str) -> Traffic {
        self.shared.lock().traffic.get(name).cloned().unwrap_or_default()
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // wakes the listener, which then sees the flag
        if let Some(listener) = self.listener.take() {
            let _ = listener.join(); // a panic of its own has been printed
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A client that goes away in the middle is no error here: the test looks at the outcome.
        std::thread::spawn(move || drop(answer(&stream, &shared)));
    }
}

struct Request {
    head_only: bool,
    name: String,
    range: Option<String>,
    if_range: Option<String>,
}

fn read_request(stream: &TcpStream) -> Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let head_only = words.next() == Some("HEAD");
    let path = words.next().unwrap_or_default();
    let name = path.split('?').next().unwrap_or_default().trim_start_matches('/').to_owned();
    let mut request = Request { head_only, name, range: None, if_range: None };
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            return Ok(request);
        }
        let Some((key, value)) = header.split_once(':') else { continue };
        match key.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.trim().to_owned()),
            "if-range" => request.if_range = Some(value.trim().to_owned()),
            _ => {}
        }
    }
}

fn answer(mut stream: &TcpStream, shared: &Shared) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let request = read_request(stream)?;
    let name = &request.name;
    let file = if name.contains('/') { None } else { File::open(shared.root.join(name)).ok() };
    let Some(file) = file.filter(|file| file.metadata().is_ok_and(|data| data.is_file())) else {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Ok(());
    };
    let metadata = file.metadata()?;
    let size = metadata.len();
    let etag =
        format!("\"{:x}-{size:x}-{:x}{:08x}\"", metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
    let faults = shared.lock().faults.get(name).cloned().unwrap_or_default();

    let honoured =
        !faults.contains(&Fault::NoRange) && request.if_range.as_ref().is_none_or(|tag| *tag == etag);
    let range = request.range.as_deref().filter(|_| honoured).and_then(|range| parse_range(range, size));
    let accept = if faults.contains(&Fault::NoRange) { "none" } else { "bytes" };
    let common = format!(
        "ETag: {etag}\r\nAccept-Ranges: {accept}\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n"
    );
    let (start, end) = match range {
        None => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n{common}\r\n")?;
            (0, size)
        }
        Some((start, end)) if start < end => {
            let (length, last) = (end - start, end - 1);
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\nContent-Range: bytes {start}-{last}/{size}\r\n{common}\r\n"
            )?;
            (start, end)
        }
        Some(_) => {
            write!(
                stream,
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nContent-Range: bytes */{size}\r\n{common}\r\n"
            )?;
            return Ok(());
        }
    };
    if request.head_only {
        return Ok(());
    }
    shared.lock().traffic.entry(name.clone()).or_default().ranges.push(request.range.clone());
    send(stream, shared, name, file, start, end)
}

/// The asked-for part as `start..end`; empty where it can not be satisfied; none where the header is to be ignored.
fn parse_range(header: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let length: u64 = last.parse().ok()?;
        return Some((size.saturating_sub(length), size));
    }
    let start: u64 = first.parse().ok()?;
    let end = if last.is_empty() { size } else { last.parse::<u64>().ok()?.saturating_add(1).min(size) };
    Some(if start >= size { (0, 0) } else { (start, end) })
}

fn send(
    mut stream: &TcpStream,
    shared: &Shared,
    name: &str,
    mut file: File,
    start: u64,
    end: u64,
) -> Result<()> {
    file.seek(SeekFrom::Start(start))?;
    let begin = Instant::now();
    let mut buffer = vec![0; PIECE];
    let mut offset = start;
    while offset < end && !shared.stop.load(Ordering::Relaxed) {
        let faults = shared.lock().faults.get(name).cloned().unwrap_or_default();
        // Pieces stop at the next fault's offset, so that each fault is met exactly.
        let stop = faults.iter().filter_map(stops_at).filter(|at| *at > offset).min().unwrap_or(end).min(end);
        for fault in &faults {
            match fault {
                Fault::CutOnce(at) if *at == offset => {
                    if let Some(list) = shared.lock().faults.get_mut(name) {
                        list.retain(|other| other != fault);
                    }
                    return Ok(()); // the stream is dropped by the caller's caller: closed
                }
                Fault::Stall(at, pause) if *at == offset => std::thread::sleep(*pause),
                Fault::Pace(rate) => {
                    let due = Duration::from_secs_f64((offset - start) as f64 / *rate as f64);
                    std::thread::sleep(due.saturating_sub(begin.elapsed()));
                }
                _ => {}
            }
        }
        let length = usize::try_from(stop - offset).unwrap_or(PIECE).min(PIECE);
        let piece = buffer.get_mut(..length).context("piece longer than the buffer")?;
        file.read_exact(piece)?;
        for fault in &faults {
            if let Fault::FlipByte(at) = fault
                && let Some(byte) =
                    at.checked_sub(offset).and_then(|at| piece.get_mut(usize::try_from(at).ok()?))
            {
                *byte ^= 1;
            }
        }
        stream.write_all(piece)?;
        offset += piece.len() as u64;
        shared.lock().traffic.entry(name.to_owned()).or_default().sent += piece.len() as u64;
    }
    Ok(())
}

fn stops_at(fault: &Fault) -> Option<u64> {
    match fault {
        Fault::CutOnce(at) | Fault::Stall(at, _) => Some(*at),
        Fault::FlipByte(_) | Fault::Pace(_) | Fault::NoRange => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        _dir: tempfile::TempDir,
        server: FileServer,
        content: Vec<u8>,
    }

    fn bench(length: usize) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
        std::fs::write(dir.path().join("file"), &content).unwrap();
        let server = FileServer::start(dir.path()).unwrap();
        Bench { _dir: dir, server, content }
    }

    /// Status line, headers, body.
    fn get(server: &FileServer, headers: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(server.address).unwrap();
        write!(stream, "GET /file HTTP/1.1\r\nHost: x\r\n{headers}\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (String::from_utf8(answer[..split].to_vec()).unwrap(), answer[split + 4..].to_vec())
    }

    #[test]
    fn a_range_is_served_and_counted() {
        let bench = bench(200_000);
        let (head, body) = get(&bench.server, "Range: bytes=100000-\r\n");
        assert!(
            head.starts_with("HTTP/1.1 206") && head.contains("Content-Range: bytes 100000-199999/200000"),
            "{head}"
        );
        assert_eq!(body, bench.content[100_000..]);
        let expected = Traffic { ranges: vec![Some("bytes=100000-".into())], sent: 100_000 };
        assert_eq!(bench.server.traffic("file"), expected);
    }

    #[test]
    fn a_range_past_the_end_can_not_be_satisfied() {
        let bench = bench(10);
        assert!(get(&bench.server, "Range: bytes=10-\r\n").0.starts_with("HTTP/1.1 416"));
    }

    #[test]
    fn if_range_with_another_etag_gives_the_whole() {
        let bench = bench(1000);
        let (head, body) = get(&bench.server, "Range: bytes=10-\r\nIf-Range: \"other\"\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(body.len(), 1000);
        let etag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
        let (head, _) = get(&bench.server, &format!("Range: bytes=10-\r\nIf-Range: {etag}\r\n"));
        assert!(head.starts_with("HTTP/1.1 206"), "{head}");
    }

    #[test]
    fn one_byte_is_flipped_whatever_the_range() {
        let bench = bench(200_000);
        bench.server.fault("file", Fault::FlipByte(150_000));
        for start in [0, 70_000, 150_000] {
            let (_, body) = get(&bench.server, &format!("Range: bytes={start}-\r\n"));
            let different: Vec<_> =
                (start..200_000).filter(|at| body[at - start] != bench.content[*at]).collect();
            assert_eq!(different, [150_000]);
        }
        bench.server.heal("file");
        assert_eq!(get(&bench.server, "").1, bench.content);
    }

    #[test]
    fn the_connection_is_cut_once_and_exactly() {
        let bench = bench(300_000);
        bench.server.fault("file", Fault::CutOnce(123_456));
        let (head, body) = get(&bench.server, "");
        assert!(head.contains("Content-Length: 300000"), "{head}");
        assert_eq!(body, bench.content[..123_456]);
        assert_eq!(get(&bench.server, "Range: bytes=123456-\r\n").1, bench.content[123_456..]);
        assert_eq!(bench.server.traffic("file").sent, 300_000);
    }

    #[test]
    fn pace_holds_the_rate_down() {
        let bench = bench(200_000);
        bench.server.fault("file", Fault::Pace(400_000));
        let start = Instant::now();
        assert_eq!(get(&bench.server, "").1.len(), 200_000);
        assert!(start.elapsed() > Duration::from_millis(300), "{:?}", start.elapsed());
    }

    #[test]
    fn nothing_outside_the_folder_is_served() {
        let bench = bench(1);
        let mut stream = TcpStream::connect(bench.server.address).unwrap();
        write!(stream, "GET /../../etc/passwd HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
}
