//! Disk images out of an OCI registry, with tokens, by tag and by digest.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use imaging::{
    Cancel, ErrorKind, ExpectedDigest, Format, ImageRequest, MemorySink, OciImage, Proxies, resolve_oci,
};
use serde_json::{Value, json};
use sha2::Digest;
use support::*;
use wire::Secret;

/// A registry on this machine that may want a token for everything, from a token server that wants a password. Its blobs may
/// lie elsewhere.
#[derive(Clone)]
struct Registry {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    documents: HashMap<String, Vec<u8>>,
    /// Paths that were asked for, and with which credentials.
    asked: Vec<(String, Option<String>)>,
    auth: &'static str,
    /// How many tokens were given out; only the newest counts.
    tokens: u32,
    /// Requests for blobs that the newest token is good for; then it has run out.
    lasting: Option<u32>,
    /// What the registry holds besides, once the token has run out.
    later: HashMap<String, Vec<u8>>,
    /// Sends for blobs there.
    store: Option<String>,
    /// Hangs up before this byte of a blob, once each.
    cuts: Vec<usize>,
    /// Answers to come before anything else.
    troubles: u32,
}

fn sha(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

impl Registry {
    fn new(auth: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { auth, ..State::default() }));
        let registry = Self { port, state };
        let serving = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        registry
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn put(&self, path: String, bytes: &[u8]) {
        self.state().documents.insert(path, bytes.to_vec());
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let digest = sha(bytes);
        self.put(format!("/v2/images/disk/blobs/{digest}"), bytes);
        digest
    }

    fn manifest(&self, tag: &str, manifest: &Value) -> String {
        let bytes = serde_json::to_vec(manifest).unwrap();
        let digest = sha(&bytes);
        for name in [tag, &digest] {
            self.put(format!("/v2/images/disk/manifests/{name}"), &bytes);
        }
        digest
    }

    fn url(&self, rest: &str) -> String {
        format!("oci://127.0.0.1:{}/images/disk{rest}", self.port)
    }

    fn resolve(&self, rest: &str, given: Option<&str>) -> Result<OciImage, imaging::Error> {
        let given = given.map(Secret::new);
        resolve_oci(&self.url(rest), &transport(), &Proxies::default(), given.as_ref(), &Cancel::new())
    }

    fn asked(&self, part: &str) -> Vec<(String, Option<String>)> {
        self.state().asked.iter().filter(|(path, _)| path.contains(part)).cloned().collect()
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                match line.trim_end() {
                    "" => break,
                    line => lines.push(line.to_owned()),
                }
            }
            let path = lines[0].split(' ').nth(1).unwrap().to_owned();
            let header = |name: &str| {
                lines.iter().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let (head, body, cut) = self.answer(&path, header("authorization"), header("range"));
            let head = format!("HTTP/1.1 {head}Content-Length: {}\r\n\r\n", body.len());
            let sent = cut.unwrap_or(body.len());
            let done = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..sent]));
            if done.is_err() || cut.is_some() {
                return;
            }
        }
    }

    /// Status and headers, the body, and where it breaks off.
    fn answer(
        &self,
        path: &str,
        authorization: Option<String>,
        range: Option<String>,
    ) -> (String, Vec<u8>, Option<usize>) {
        let mut state = self.state();
        state.asked.push((path.to_owned(), authorization.clone()));
        if state.troubles > 0 {
            state.troubles -= 1;
            return ("503 Busy\r\n".into(), Vec::new(), None);
        }
        if path.starts_with("/token") {
            if authorization.as_deref() != Some("Basic dTpw") {
                return ("401 Unauthorized\r\n".into(), b"no".to_vec(), None);
            }
            state.tokens += 1;
            let token = json!({"token": format!("t{}", state.tokens)});
            return ("200 OK\r\n".into(), token.to_string().into_bytes(), None);
        }
        let is_blob = path.contains("/blobs/");
        let mut accepted = match state.auth {
            "bearer" => authorization == Some(format!("Bearer t{}", state.tokens)),
            "basic" => authorization.as_deref() == Some("Basic dTpw"),
            _ => true,
        };
        if let Some(lasting) = state.lasting.as_mut().filter(|_| is_blob) {
            accepted &= *lasting > 0;
            *lasting = lasting.saturating_sub(1);
            if !accepted {
                state.lasting = None;
                state.tokens += 1;
                let later = std::mem::take(&mut state.later);
                state.documents.extend(later);
            }
        }
        if !accepted {
            let port = self.port;
            let challenge = match state.auth {
                "basic" => "Basic realm=\"registry\"".to_owned(),
                _ => format!("Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"here\""),
            };
            return (format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\n"), b"{}".to_vec(), None);
        }
        if let Some(store) = state.store.as_ref().filter(|_| is_blob) {
            return (format!("307 Elsewhere\r\nLocation: {store}\r\n"), Vec::new(), None);
        }
        let Some(bytes) = state.documents.get(path).cloned() else {
            return ("404 Not Found\r\n".into(), b"{}".to_vec(), None);
        };
        let first: usize = range.as_deref().map_or(0, |range| {
            range.strip_prefix("bytes=").unwrap().split('-').next().unwrap().parse().unwrap()
        });
        let cut = if is_blob { state.cuts.pop().map(|cut| cut - first) } else { None };
        let total = bytes.len();
        let head = match range {
            Some(_) => format!("206 Partial\r\nContent-Range: bytes {first}-{}/{total}\r\n", total - 1),
            None => "200 OK\r\n".to_owned(),
        };
        (head, bytes[first..].to_vec(), cut)
    }
}

fn publish(registry: &Registry, image: &[u8]) -> (String, String) {
    let blob = registry.blob(image);
    let manifest = json!({"schemaVersion": 2, "layers": [{
        "mediaType": "application/octet-stream", "digest": blob, "size": image.len(),
        "annotations": {"org.opencontainers.image.title": "disk.raw"}}]});
    let inner = registry.manifest("inner", &manifest);
    let index = json!({"schemaVersion": 2, "manifests": [
        {"digest": "sha256:00", "platform": {"architecture": "s390x", "os": "linux"}},
        {"digest": inner, "platform": {"architecture": std::env::consts::ARCH, "os": "linux"}}]});
    (registry.manifest("v1", &index), blob)
}

/// A request for the disk in a registry, held to what the registry promises.
fn by_promise(registry: &Registry, image: &OciImage, given: Option<&str>) -> ImageRequest {
    ImageRequest {
        sources: vec![image.reference.to_string()],
        digest: image.digest.clone(),
        authorization: given.map(Secret::new),
        ..request(registry.url(":v1"), &[], Format::Raw)
    }
}

#[test]
fn a_disk_is_found_by_tag_behind_a_token_and_written() {
    let registry = Registry::new("bearer");
    let image = disk_image(3 * MIB, 31);
    let (_, blob) = publish(&registry, &image);
    let found = registry.resolve(":v1", Some("Basic dTpw")).unwrap();
    assert_eq!(found.digest.to_string(), blob);
    assert_eq!(
        (found.size, found.title.as_deref(), found.pinned),
        (image.len() as u64, Some("disk.raw"), false)
    );
    assert!(found.reference.is_pinned(), "{}", found.reference);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let written = write(&by_promise(&registry, &found, Some("Basic dTpw")), &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!(written.source, found.reference.to_string());
    assert_eq!(registry.asked("/token?service=here&scope=repository%3Aimages%2Fdisk%3Apull").len(), 2);
    let (_, header) = &registry.asked("/blobs/")[0];
    assert_eq!(header.as_deref(), Some("Bearer t2"), "the password stays with the token server");
}

#[test]
fn a_registry_may_want_the_password_itself_or_take_a_token_that_is_known() {
    let image = disk_image(MIB, 34);
    for (auth, given) in [("basic", Some("Basic dTpw")), ("bearer", Some("Bearer t0")), ("open", None)] {
        let registry = Registry::new(auth);
        publish(&registry, &image);
        let request = ImageRequest {
            authorization: given.map(Secret::new),
            ..request(registry.url(":v1"), &image, Format::Raw)
        };
        let disk = MemorySink::new(2 * MIB, 0xa5);
        write(&request, &disk).unwrap();
        assert_disk(&disk, &image, 0xa5);
        assert!(registry.asked("/token").is_empty());
        assert_eq!(registry.asked("/blobs/")[0].1.as_deref(), given);
    }
    let registry = Registry::new("bearer");
    publish(&registry, &image);
    let report = registry.resolve(":v1", Some("Bearer old")).unwrap_err().report();
    assert!(report.contains("does not accept the token"), "{report}");
    assert!(registry.asked("/token").is_empty(), "no token is shown to a token server");
}

#[test]
fn a_blob_store_elsewhere_gets_no_credentials_and_is_resumed() {
    let registry = Registry::new("bearer");
    let image = disk_image(3 * MIB, 35);
    publish(&registry, &image);
    let store = Server::new(image.clone()).faults([Fault::Cut(2_000_000)]);
    registry.state().store = Some(store.url());
    let request = ImageRequest {
        authorization: Some(Secret::new("Basic dTpw")),
        ..request(registry.url(":v1"), &image, Format::Raw)
    };
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let written = write(&request, &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!((written.resumed, written.source), (1, registry.url(":v1")));
    let seen = store.seen();
    assert_eq!(seen[1].range.as_deref(), Some("bytes=2000000-"));
    assert!(seen.iter().all(|seen| seen.authorization.is_none()), "{seen:?}");
    assert!(registry.asked("/blobs/").iter().all(|(_, header)| header.as_deref() == Some("Bearer t1")));
}

#[test]
fn a_token_that_runs_out_in_the_middle_is_renewed_and_the_blob_resumed() {
    let registry = Registry::new("bearer");
    let image = disk_image(3 * MIB, 36);
    publish(&registry, &image);
    registry.state().cuts = vec![2_000_000];
    registry.state().lasting = Some(1);
    let request = ImageRequest {
        authorization: Some(Secret::new("Basic dTpw")),
        ..request(registry.url(":v1"), &image, Format::Raw)
    };
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let written = write(&request, &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    assert_eq!((written.resumed, written.restarted), (1, 0));
    let blobs = registry.asked("/blobs/");
    let headers: Vec<Option<&str>> = blobs.iter().map(|(_, header)| header.as_deref()).collect();
    assert_eq!(headers, [Some("Bearer t1"), Some("Bearer t1"), Some("Bearer t3")]);
}

#[test]
fn a_tag_that_moves_in_the_middle_starts_the_write_over() {
    let registry = Registry::new("bearer");
    let (old, new) = (disk_image(3 * MIB, 37), disk_image(3 * MIB, 38));
    publish(&registry, &old);
    registry.state().cuts = vec![2_000_000];
    registry.state().lasting = Some(1);
    let after = Registry::new("open");
    publish(&after, &new);
    registry.state().later = after.state().documents.clone();
    // Of another algorithm than the promise, which would be compared beforehand.
    let sha512 = hex::encode(sha2::Sha512::digest(&new));
    let request = ImageRequest {
        authorization: Some(Secret::new("Basic dTpw")),
        digest: ExpectedDigest::from_parts("sha512", &sha512).unwrap(),
        ..request(registry.url(":v1"), &new, Format::Raw)
    };
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let written = write(&request, &disk).unwrap();
    assert_disk(&disk, &new, 0xa5);
    assert_eq!((written.resumed, written.restarted), (0, 1));
}

#[test]
fn a_given_digest_is_compared_with_the_promise_before_a_byte_is_written() {
    let registry = Registry::new("open");
    let image = disk_image(2 * MIB, 39);
    publish(&registry, &image);
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let other = request(registry.url(":v1"), b"another image", Format::Raw);
    let error = write(&other, &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert!(error.report().contains(&sha(&image)) && error.report().contains(&sha(b"another image")));
    assert_eq!((disk.writes(), registry.asked("/blobs/").len()), (0, 1));
    // The next source may have it.
    let good = Server::new(image.clone());
    let mut both = request(registry.url(":v1"), &image, Format::Raw);
    registry.manifest("v1", &json!({"layers": [{"digest": sha(b"x"), "size": 1}]}));
    registry.blob(b"x");
    both.sources.push(good.url());
    assert_eq!(write(&both, &disk).unwrap().source, good.url());
    // Of another algorithm, it is the one that counts.
    let sha512 = hex::encode(sha2::Sha512::digest(&image));
    publish(&registry, &image);
    let longer = ImageRequest {
        digest: ExpectedDigest::from_parts("sha512", &sha512).unwrap(),
        ..request(registry.url(":v1"), &image, Format::Raw)
    };
    write(&longer, &disk).unwrap();
}

#[test]
fn a_blob_that_is_not_what_the_manifest_says_is_no_success() {
    let registry = Registry::new("open");
    let image = disk_image(2 * MIB, 40);
    let (_, blob) = publish(&registry, &image);
    let path = format!("/v2/images/disk/blobs/{blob}");
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let found = registry.resolve(":v1", None).unwrap();
    registry.put(path.clone(), &image[..MIB]);
    let report = write(&by_promise(&registry, &found, None), &disk).unwrap_err().report();
    assert!(report.contains(&format!("the manifest says {} bytes", image.len())), "{report}");
    assert_eq!(disk.writes(), 0);
    registry.put(path, &disk_image(2 * MIB, 43));
    let error = write(&by_promise(&registry, &found, None), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert_unbootable(&disk);
}

#[test]
fn a_reference_by_digest_is_held_to_it() {
    let registry = Registry::new("open");
    let (index, _) = publish(&registry, &disk_image(MIB, 32));
    assert!(registry.resolve(&format!("@{index}"), None).unwrap().pinned);
    // The registry gives out another manifest under that digest.
    registry.put(format!("/v2/images/disk/manifests/{index}"), b"{\"layers\": []}");
    let error = registry.resolve(&format!("@{index}"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DownloadFatal);
    assert!(error.report().contains(&index), "{}", error.report());
}

#[test]
fn a_busy_registry_is_asked_again() {
    let registry = Registry::new("open");
    publish(&registry, &disk_image(MIB, 42));
    registry.state().troubles = 2;
    registry.resolve(":v1", None).unwrap();
    registry.state().troubles = 9;
    let error = registry.resolve(":v1", None).unwrap_err();
    assert_eq!((error.kind(), registry.state().troubles), (ErrorKind::Download, 6));
}

#[test]
fn what_a_registry_does_not_have_is_told() {
    let registry = Registry::new("bearer");
    publish(&registry, &disk_image(MIB, 33));
    let error = registry.resolve(":v1", None).unwrap_err();
    assert!(error.report().contains("401"), "{}", error.report());
    let error = registry.resolve(":v2", Some("Basic dTpw")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DownloadFatal);
    assert!(error.report().contains("404"), "{}", error.report());
    let container = json!({"layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": "sha256:aa", "size": 3}]});
    registry.manifest("container", &container);
    let error = registry.resolve(":container", Some("Basic dTpw")).unwrap_err();
    assert!(error.report().contains("container image"), "{}", error.report());
    registry.put("/v2/images/disk/manifests/junk".into(), b"<html>");
    let error = registry.resolve(":junk", Some("Basic dTpw")).unwrap_err();
    assert!(error.report().contains("JSON"), "{}", error.report());
    registry.put("/v2/images/disk/manifests/huge".into(), &vec![b' '; 5 * MIB]);
    let error = registry.resolve(":huge", Some("Basic dTpw")).unwrap_err();
    assert!(error.report().contains("larger"), "{}", error.report());
}
