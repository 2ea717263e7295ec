//! Which digest an image is held to, and where its bytes are: what has to be asked for before the disk is chosen.
//!
//! Source: data plane page, 1.5 and 1.6. A checksum file is fetched as the image is: with its credentials, through its
//! proxies. A registry says its digest itself.

use hwm::{Context, Error};
use imaging::{Algorithm, Cancel, ExpectedDigest, OciReference, SmallFile};

use super::checksum_file;
use super::deploy::write_error;
use super::image::{Checksum, Image, permit_md5};
use crate::settings::Settings;

/// The largest checksum file that is read. Those of whole distributions have a few hundred lines.
const CHECKSUM_FILE_LIMIT: u64 = 1024 * 1024;

/// The digest that the published bytes must have, and where they are to be had.
pub(super) fn published(
    cx: &Context,
    image: &Image,
    settings: &Settings,
) -> Result<(ExpectedDigest, Vec<String>), Error> {
    let digest = match &image.checksum {
        Checksum::Digest(digest) => digest.clone(),
        Checksum::File { url, algorithm } => from_file(cx, image, url, *algorithm, settings)?,
        Checksum::Registry => return from_registry(cx, image, settings),
    };
    Ok((digest, image.sources.clone()))
}

/// The digest that a checksum file names, fetched with the image's credentials and through its proxies.
fn from_file(
    cx: &Context,
    image: &Image,
    url: &str,
    algorithm: Option<Algorithm>,
    settings: &Settings,
) -> Result<ExpectedDigest, Error> {
    let fail = |reason: String| Error::ImageDownload {
        message: format!("checksum file of image {}: {reason}", image.label),
    };
    let file = SmallFile {
        url,
        authorization: image.authorization.as_ref(),
        proxies: &image.proxies,
        limit_bytes: CHECKSUM_FILE_LIMIT,
    };
    let bytes = imaging::fetch_small(&file, &settings.transport, &Cancel::from(cx.cancel_flag()))
        .map_err(|error| fail(error.report()))?;
    let wanted = image.sources.first().map_or("", String::as_str);
    let found = checksum_file::find(&bytes, wanted, algorithm).map_err(fail)?;
    if let Some(name) = &found.other_name {
        tracing::warn!(image = image.label, name, "the checksum file names another file, and only that");
    }
    let hex = found.digest;
    let digest = match algorithm {
        Some(algorithm) => ExpectedDigest::from_parts(algorithm.name(), &hex),
        None => ExpectedDigest::from_hex(&hex),
    };
    let digest = digest.map_err(|error| fail(error.to_string()))?;
    if algorithm.is_none() && digest.algorithm() == Algorithm::Md5 {
        permit_md5(&image.label, settings)?;
    }
    Ok(digest)
}

/// The digest that the first registry which answers promises. Its reference becomes one by digest, so that what is written
/// is what was promised.
fn from_registry(
    cx: &Context,
    image: &Image,
    settings: &Settings,
) -> Result<(ExpectedDigest, Vec<String>), Error> {
    let cancel = Cancel::from(cx.cancel_flag());
    let mut sources = image.sources.clone();
    let mut failure = None;
    for source in sources.iter_mut().filter(|source| OciReference::is_reference(source)) {
        let found = imaging::resolve_oci(
            source,
            &settings.transport,
            &image.proxies,
            image.authorization.as_ref(),
            &cancel,
        );
        match found {
            Ok(found) => {
                tracing::info!(
                    image = image.label,
                    reference = %found.reference,
                    digest = %found.digest,
                    size_bytes = found.size,
                    title = found.title.as_deref().unwrap_or_default(),
                    "found in the registry"
                );
                *source = found.reference.to_string();
                return Ok((found.digest, sources));
            }
            Err(error) => failure = Some(write_error(&error)),
        }
    }
    Err(failure.unwrap_or_else(|| Error::InvalidParameters {
        message: format!("image {} has neither a checksum nor a registry that says one", image.label),
    }))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use imaging::Transport;
    use serde_json::{Value, json};

    use super::*;
    use crate::generic::image;

    const IMAGE: &str = "http://images.invalid/test.raw";

    /// Answers every request with `body`; gives its address, and the heads of the requests.
    fn server(body: String) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let heads = Arc::clone(&seen);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                heads.lock().unwrap().push(head.join("\n").to_ascii_lowercase());
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        (url, seen)
    }

    fn digest_of(extra: Value, settings: Settings) -> Result<ExpectedDigest, Error> {
        let mut info = json!({"id": "test.raw", "urls": [IMAGE], "disk_format": "raw"});
        info.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let transport =
            Transport { attempts: 2, retry_interval: Duration::from_millis(10), ..Transport::default() };
        let settings = Settings { transport, ..settings };
        let image = image::check(&serde_json::from_value(info).unwrap(), &settings)?;
        let cx = Context::new(sys::fake::host("/nonexistent"), events::Events::default());
        published(&cx, &image, &settings).map(|(digest, _)| digest)
    }

    fn line(digits: usize) -> String {
        format!("{} *test.raw\n{}  other.raw\n", "A".repeat(digits), "b".repeat(digits))
    }

    #[test]
    fn a_checksum_file_is_fetched_with_the_credentials_and_through_the_proxies_of_the_image() {
        let (proxy, seen) = server(line(64));
        let digest = digest_of(
            json!({"checksum": "http://sums.invalid/SHA256SUMS", "proxies": {"http": proxy},
                   "image_request_authorization": "QmVhcmVyIHRva2Vu"}),
            Settings::default(),
        )
        .unwrap();
        assert_eq!(digest.to_string(), format!("sha256:{}", "a".repeat(64)), "upper case is as good");
        let head = seen.lock().unwrap().remove(0);
        assert!(head.starts_with("get http://sums.invalid/sha256sums "), "{head}");
        assert!(head.contains("authorization: bearer token"), "{head}");
    }

    #[test]
    fn a_hash_value_may_be_the_url_of_a_file_of_its_algorithm() {
        for algorithm in Algorithm::ALL {
            let digits = algorithm.length() * 2;
            let (url, _) = server(format!("{}  test.raw\n{}", "c".repeat(digits - 2), line(digits)));
            let info = json!({"os_hash_algo": algorithm.name(), "os_hash_value": format!("{url}/SUMS")});
            let digest = digest_of(info, Settings { md5_enabled: false, ..Settings::default() }).unwrap();
            assert_eq!((digest.algorithm(), digest.hex()), (algorithm, "a".repeat(digits)));
        }
    }

    #[test]
    fn md5_out_of_a_checksum_file_counts_only_where_it_is_enabled() {
        let (url, _) = server(line(32));
        let info = json!({"checksum": format!("{url}/MD5SUMS")});
        assert_eq!(digest_of(info.clone(), Settings::default()).unwrap().algorithm(), Algorithm::Md5);
        let error = digest_of(info, Settings { md5_enabled: false, ..Settings::default() }).unwrap_err();
        assert!(error.to_string().contains("MD5 is disabled"), "{error}");
    }

    #[test]
    fn a_checksum_file_that_does_not_help_is_a_failed_download() {
        for (body, word) in [
            (line(40), "no digest of 32 or 64 or 128"),
            (String::new(), "empty"),
            ("x".repeat(2 << 20), "larger than the limit"),
        ] {
            let (url, _) = server(body);
            let error =
                digest_of(json!({"checksum": format!("{url}/SUMS")}), Settings::default()).unwrap_err();
            assert!(matches!(error, Error::ImageDownload { .. }), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
        }
        let absent = json!({"checksum": "http://127.0.0.1:9/SUMS"});
        assert!(matches!(digest_of(absent, Settings::default()), Err(Error::ImageDownload { .. })));
    }
}
