//! Disk images out of an OCI registry, with tokens, by tag and by digest.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use imaging::{ErrorKind, Format, ImageRequest, MemorySink, OciImage, OciReference, Proxies, resolve_oci};
use serde_json::{Value, json};
use sha2::Digest;
use support::*;
use wire::Secret;

/// A registry on this machine that wants a token for everything, from a token server that wants a password.
struct Registry {
    port: u16,
    documents: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

fn sha(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

impl Registry {
    fn new(auth: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let documents: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (files, log) = (Arc::clone(&documents), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, log) = (Arc::clone(&files), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, port, auth, &files, &log));
            }
        });
        Self { port, documents, asked }
    }

    fn put(&self, path: String, bytes: &[u8]) {
        self.documents.lock().unwrap().insert(path, bytes.to_vec());
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

    fn reference(&self, rest: &str) -> OciReference {
        format!("oci://127.0.0.1:{}/images/disk{rest}", self.port).parse().unwrap()
    }

    fn resolve(&self, rest: &str, given: Option<&str>) -> Result<OciImage, imaging::Error> {
        let given = given.map(Secret::new);
        resolve_oci(&self.reference(rest), &transport(), &Proxies::default(), given.as_ref(), "x86_64")
    }
}

fn serve(
    mut stream: TcpStream,
    port: u16,
    auth: &str,
    files: &Mutex<HashMap<String, Vec<u8>>>,
    log: &Mutex<Vec<String>>,
) {
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
        log.lock().unwrap().push(path.clone());
        let header = lines.iter().find_map(|line| {
            line.to_ascii_lowercase().starts_with("authorization:").then(|| line[14..].trim().to_owned())
        });
        let (status, extra, body) = if path.starts_with("/token") {
            match header.as_deref() {
                Some("Basic dTpw") => ("200 OK", String::new(), br#"{"token": "t0"}"#.to_vec()),
                _ => ("401 Unauthorized", String::new(), b"no".to_vec()),
            }
        } else if auth == "bearer" && header.as_deref() != Some("Bearer t0") {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"here\"\r\n"
            );
            ("401 Unauthorized", challenge, b"{}".to_vec())
        } else {
            match files.lock().unwrap().get(&path) {
                Some(bytes) => ("200 OK", String::new(), bytes.clone()),
                None => ("404 Not Found", String::new(), b"{}".to_vec()),
            }
        };
        let head = format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\n\r\n", body.len());
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
            return;
        }
    }
}

fn publish(registry: &Registry, image: &[u8]) -> (String, String) {
    let blob = registry.blob(image);
    let manifest = json!({"schemaVersion": 2, "layers": [{
        "mediaType": "application/octet-stream", "digest": blob, "size": image.len(),
        "annotations": {"org.opencontainers.image.title": "disk.raw"}}]});
    let inner = registry.manifest("inner", &manifest);
    let index = json!({"schemaVersion": 2, "manifests": [
        {"digest": "sha256:00", "platform": {"architecture": "arm64", "os": "linux"}},
        {"digest": inner, "platform": {"architecture": "amd64", "os": "linux"}}]});
    (registry.manifest("v1", &index), blob)
}

#[test]
fn a_disk_is_found_by_tag_behind_a_token_and_written() {
    let registry = Registry::new("bearer");
    let image = disk_image(3 * MIB, 31);
    let (_, blob) = publish(&registry, &image);
    let found = registry.resolve(":v1", Some("Basic dTpw")).unwrap();
    assert!(found.url.ends_with(&format!("/v2/images/disk/blobs/{blob}")), "{}", found.url);
    assert_eq!(
        (found.size, found.title.as_deref(), found.pinned),
        (image.len() as u64, Some("disk.raw"), false)
    );
    let request = ImageRequest {
        sources: vec![found.url],
        digest: found.digest,
        authorization: found.authorization,
        ..request(String::new(), &image, Format::Raw)
    };
    let disk = MemorySink::new(4 * MIB, 0xa5);
    write(&request, &disk).unwrap();
    assert_disk(&disk, &image, 0xa5);
    let asked = registry.asked.lock().unwrap().clone();
    assert!(
        asked.contains(&"/token?service=here&scope=repository%3Aimages%2Fdisk%3Apull".to_owned()),
        "{asked:?}"
    );
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
