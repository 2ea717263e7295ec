//! From Ironic's `image_info` to what is to be written: the checks before anything happens, and the rules for formats,
//! digests and credentials. Pure; a checksum file is fetched by the deploy story.
//!
//! Source: data plane page, 1.2 (validation), 1.3 (authentication), 1.5 (checksums), 1.8 (formats).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hwm::Error;
use imaging::{Algorithm, ExpectedDigest, Format, OciReference, Proxies, Rule};
use serde_json::Value;
use wire::{ImageInfo, Secret};

use super::partition::PartitionImage;
use super::signature::ImageSignature;
use crate::settings::{Credentials, Settings};

/// An image that passed the checks.
#[derive(Clone, Debug)]
pub struct Image {
    /// A label for messages.
    pub label: String,
    /// URLs of the same bytes, in order of preference: http, https, oci; file by hand only.
    pub sources: Vec<String>,
    /// What the published bytes are held to.
    pub checksum: Checksum,
    /// Whether a GPT made for other sectors than the disk's is rewritten for them; the setting decides where nothing is said.
    pub translate_sector_size: Option<bool>,
    /// Whether a whole disk may have no partition table, or an empty one: a data disk, which does not boot.
    pub allow_no_partition_table: bool,
    /// The declared format, or that the image's first bytes decide.
    pub format: Format,
    /// The complete `Authorization` header.
    pub authorization: Option<Secret>,
    /// Proxies for the image and its checksum file.
    pub proxies: Proxies,
    /// What it says about its signature.
    pub signature: ImageSignature,
    /// Read the disk back after writing, even where that is not the rule.
    pub verify: bool,
    /// What to make around the image, where it is no whole disk but a root file system.
    pub partition: Option<PartitionImage>,
}

/// A digest, or where to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The digest itself.
    Digest(ExpectedDigest),
    /// A checksum file on a server.
    File {
        /// Its URL.
        url: String,
        /// The algorithm, where it is known beforehand.
        algorithm: Option<Algorithm>,
    },
    /// What the manifest in the registry says; for images of which at least one source is a registry.
    Registry,
}

/// Checks `image_info` and says what is to be written.
///
/// # Errors
/// `InvalidParameters` for what the conductor checks synchronously, `InvalidImage` for formats that are not accepted,
/// `ImageDownload` for credentials that can not work.
pub(crate) fn check(info: &ImageInfo, settings: &Settings) -> Result<Image, Error> {
    if info.id.is_empty() {
        return Err(invalid("image_info has an empty id".into()));
    }
    if info.urls.is_empty() {
        return Err(invalid(format!("image_info of image {} names no url", label(info))));
    }
    for url in &info.urls {
        if OciReference::is_reference(url) {
            let checked = url.parse::<OciReference>();
            checked.map_err(|error| invalid(format!("image {}: {error}", label(info))))?;
        } else if !is_http(url) {
            // Not the URL itself: it may hold a password or a signature.
            let scheme = url.split_once("://").map_or("no scheme", |(scheme, _)| scheme);
            return Err(invalid(format!(
                "image {}: a URL of it is neither http, https nor oci, but {scheme}: publish it on a web server",
                label(info)
            )));
        }
    }
    let checksum = checksum(info, settings)?;
    Ok(Image {
        label: label(info).to_owned(),
        sources: info.urls.clone(),
        checksum,
        format: format(info, settings)?,
        translate_sector_size: info.translate_sector_size,
        allow_no_partition_table: info.allow_no_partition_table.unwrap_or(false),
        authorization: authorization(info, settings.image_server.as_ref())?,
        proxies: proxies(info),
        signature: ImageSignature::parse(info)?,
        verify: info.verify.unwrap_or(false),
        partition: PartitionImage::parse(info)?,
    })
}

/// Fills in what of our own keys `image_info` lacks from the node's `instance_info`, where they begin with `image_`: so a
/// conductor that knows nothing of them brings them, too.
pub(crate) fn complete(info: &mut ImageInfo, instance_info: Option<&Value>) {
    let field = |key: &str| instance_info.and_then(|info| info.get(key));
    let text = |key: &str| field(key).and_then(Value::as_str).map(str::to_owned);
    if info.signature.is_none() && info.signature_url.is_none() {
        info.signature = text("image_signature");
        info.signature_url = text("image_signature_url");
    }
    if info.signature_keys.is_none() {
        info.signature_keys = field("image_signature_keys").map(|keys| match keys {
            Value::Array(keys) => {
                keys.iter().map(|key| key.as_str().unwrap_or_default().to_owned()).collect()
            }
            // What is no key is refused as one later: it must not be passed over.
            other => vec![other.as_str().unwrap_or_default().to_owned()],
        });
    }
    let flag = |key: &str| field(key).and_then(Value::as_bool);
    info.verify = info.verify.or_else(|| flag("image_verify"));
    info.allow_no_partition_table =
        info.allow_no_partition_table.or_else(|| flag("image_allow_no_partition_table"));
}

/// The id without what may be secret: the conductor sends what follows the last slash of the URL, signatures included.
pub(super) fn label(info: &ImageInfo) -> &str {
    info.label()
}

/// Source: data plane page, 1.5. The pair of algorithm and value is preferred where the algorithm is known.
fn checksum(info: &ImageInfo, settings: &Settings) -> Result<Checksum, Error> {
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let (algorithm, value) = (given(&info.os_hash_algo), given(&info.os_hash_value));
    if algorithm.is_some() != value.is_some() {
        return Err(invalid(format!("image {}: os_hash_algo and os_hash_value go together", label(info))));
    }
    if info.checksum.as_deref() == Some("") {
        return Err(invalid(format!("image {} has an empty checksum", label(info))));
    }
    if let Some((name, value)) = algorithm.zip(value) {
        match name.parse::<Algorithm>() {
            Ok(algorithm) if is_http(&value) => {
                return Ok(Checksum::File { url: value, algorithm: Some(algorithm) });
            }
            Ok(_) => return digest(info, ExpectedDigest::from_parts(&name, &value)),
            Err(error) if info.checksum.is_none() => {
                return Err(invalid(format!("image {}: {error}", label(info))));
            }
            Err(error) => tracing::warn!(image = label(info), %error, "falling back to the field checksum"),
        }
    }
    match info.checksum.as_deref() {
        Some(url) if is_http(url) => Ok(Checksum::File { url: url.to_owned(), algorithm: None }),
        Some(hex) => {
            let expected = ExpectedDigest::from_hex(hex);
            if expected.as_ref().is_ok_and(|e| e.algorithm() == Algorithm::Md5) {
                permit_md5(label(info), settings)?;
            }
            digest(info, expected)
        }
        None if info.urls.iter().any(|url| OciReference::is_reference(url)) => Ok(Checksum::Registry),
        None => Err(invalid(format!(
            "image {} has no usable checksum: set image_checksum, or image_os_hash_algo and image_os_hash_value",
            label(info)
        ))),
    }
}

fn digest(info: &ImageInfo, digest: Result<ExpectedDigest, imaging::DigestError>) -> Result<Checksum, Error> {
    digest
        .map(Checksum::Digest)
        .map_err(|error| invalid(format!("checksum of image {}: {error}", label(info))))
}

/// MD5 by the length of a digest counts only where it is enabled.
pub(crate) fn permit_md5(image: &str, settings: &Settings) -> Result<(), Error> {
    if settings.md5_enabled {
        return Ok(());
    }
    Err(invalid(format!(
        "image {image} has only an MD5 checksum, and MD5 is disabled: publish a SHA-256 digest"
    )))
}

/// The declared format. A name that no image can be written by, or that is not permitted, is refused before the image is asked
/// for; what the image really is, is looked at when it comes.
fn format(info: &ImageInfo, settings: &Settings) -> Result<Format, Error> {
    let refuse =
        |message: String| Err(Error::InvalidImage { message: format!("image {}: {message}", label(info)) });
    match info.disk_format.as_deref().unwrap_or_default().parse::<Format>() {
        Ok(format @ (Format::Raw | Format::Detect)) => Ok(format),
        // Then the declaration counts for nothing.
        _ if settings.disable_deep_image_inspection => Ok(Format::Detect),
        Ok(format @ (Format::Qcow2 | Format::Iso)) => {
            match settings.permitted_formats.iter().any(|permitted| *permitted == format.to_string()) {
                true => Ok(format),
                false => {
                    let permitted = settings.permitted_formats.join(", ");
                    let detail = format!("it is declared {format}, and permitted are {permitted}");
                    refuse(Rule::PermittedFormat.broken(detail).to_string())
                }
            }
        }
        Err(error) => refuse(Rule::WritableFormat.broken(error.to_string()).to_string()),
    }
}

/// Source: data plane page, 1.3. The image's own header, then its own basic credentials, then the configured ones.
fn authorization(info: &ImageInfo, configured: Option<&Credentials>) -> Result<Option<Secret>, Error> {
    if let Some(encoded) = info.image_request_authorization.as_ref().filter(|s| !s.expose().is_empty()) {
        let header =
            BASE64.decode(encoded.expose().trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let message =
            format!("image {}: image_request_authorization is not base64 of a header value", label(info));
        return header.map(|header| Some(Secret::new(header))).ok_or(Error::InvalidParameters { message });
    }
    let own = (info.image_server_auth_strategy.as_deref() == Some("http_basic")).then(|| Credentials {
        user: info.image_server_user.clone().unwrap_or_default(),
        password: info.image_server_password.clone().unwrap_or_else(|| Secret::new("")),
    });
    let Some(credentials) = own.as_ref().or(configured) else { return Ok(None) };
    if credentials.user.is_empty() || credentials.password.expose().is_empty() {
        let message = format!(
            "image {}: http_basic authentication needs both image_server_user and image_server_password",
            label(info)
        );
        return Err(Error::ImageDownload { message });
    }
    Ok(Some(credentials.header()))
}

fn proxies(info: &ImageInfo) -> Proxies {
    let proxy = |scheme: &str| {
        info.proxies.as_ref().and_then(|map| map.get(scheme)).cloned().filter(|url| !url.is_empty())
    };
    Proxies { http: proxy("http"), https: proxy("https"), no_proxy: info.no_proxy.clone() }
}

pub(super) fn is_http(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("http" | "https"))
}

pub(super) fn invalid(message: String) -> Error {
    Error::InvalidParameters { message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(extra: Value) -> Result<Image, Error> {
        check_with(extra, &Settings::default())
    }

    fn check_with(extra: Value, settings: &Settings) -> Result<Image, Error> {
        let mut info = json!({"id": "debian.raw", "urls": ["http://h/debian.raw"], "disk_format": "raw"});
        let map = info.as_object_mut().unwrap();
        map.extend(extra.as_object().unwrap().clone());
        check(&serde_json::from_value(info).unwrap(), settings)
    }

    fn sha(digit: &str) -> String {
        digit.repeat(64)
    }

    #[test]
    fn an_image_without_a_usable_checksum_is_refused() {
        for extra in [
            json!({}),
            json!({"checksum": ""}),
            json!({"checksum": "abc"}),
            json!({"checksum": "d".repeat(40)}),
            json!({"os_hash_algo": "sha256"}),
            json!({"os_hash_value": sha("a")}),
            json!({"os_hash_algo": "sha256", "os_hash_value": "short"}),
            json!({"os_hash_algo": "whirlpool", "os_hash_value": sha("a")}),
            json!({"checksum": sha("a"), "urls": []}),
            json!({"checksum": sha("a"), "urls": ["file:///etc/shadow"]}),
            json!({"checksum": sha("a"), "urls": ["http://h/x", "file:///etc/shadow"]}),
            json!({"checksum": "file:///etc/shadow"}),
            json!({"os_hash_algo": "sha256", "os_hash_value": "file:///etc/shadow"}),
            json!({"checksum": sha("a"), "urls": ["oci://registry.example/Upper"]}),
            json!({"checksum": sha("a"), "urls": ["oci://user:pw@registry.example/disk"]}),
            json!({"os_hash_algo": "shake_128", "os_hash_value": sha("a")}),
            json!({"checksum": sha("a"), "id": ""}),
        ] {
            let error = with(extra.clone()).unwrap_err();
            assert!(matches!(error, Error::InvalidParameters { .. }), "{extra}: {error:?}");
        }
    }

    #[test]
    fn messages_and_labels_hold_no_secrets_of_the_url() {
        let signed = json!({"id": "debian.raw?X-Signature=hush", "checksum": sha("a")});
        assert_eq!(with(signed).unwrap().label, "debian.raw");
        for extra in [
            json!({"id": "debian.raw?X-Signature=hush"}),
            json!({"checksum": sha("a"), "urls": ["ftp://user:hush@h/debian.raw"]}),
            json!({"checksum": sha("a"), "urls": ["user:hush@h/debian.raw?hush"]}),
        ] {
            let text = with(extra).unwrap_err().to_string();
            assert!(!text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn the_hash_pair_beats_the_checksum_and_falls_back_to_it() {
        let both = json!({"checksum": sha("a"), "os_hash_algo": "sha512", "os_hash_value": "b".repeat(128)});
        let Checksum::Digest(digest) = with(both).unwrap().checksum else { panic!() };
        assert_eq!(digest.algorithm(), Algorithm::Sha512);
        let unknown = json!({"checksum": sha("a"), "os_hash_algo": "whirlpool", "os_hash_value": "b"});
        let Checksum::Digest(digest) = with(unknown).unwrap().checksum else { panic!() };
        assert_eq!(digest.hex(), sha("a"));
    }

    #[test]
    fn checksums_may_be_urls() {
        let url = "https://h/SHA256SUMS".to_owned();
        assert_eq!(
            with(json!({"checksum": url})).unwrap().checksum,
            Checksum::File { url: url.clone(), algorithm: None }
        );
        assert_eq!(
            with(json!({"os_hash_algo": "sha512", "os_hash_value": url})).unwrap().checksum,
            Checksum::File { url, algorithm: Some(Algorithm::Sha512) }
        );
    }

    #[test]
    fn a_registry_may_say_the_digest_itself_where_none_is_given() {
        let oci = |extra: Value| {
            let mut image = json!({"urls": ["http://h/debian.raw", "oci://registry.example/disk:v1"]});
            image.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            with(image).map(|image| image.checksum)
        };
        assert_eq!(oci(json!({})).unwrap(), Checksum::Registry);
        let Checksum::Digest(digest) = oci(json!({"checksum": sha("a")})).unwrap() else { panic!() };
        assert_eq!(digest.hex(), sha("a"));
        assert!(oci(json!({"checksum": "abc"})).is_err());
    }

    #[test]
    fn hash_algorithms_are_those_of_hashlib_in_upper_or_lower_case() {
        for algorithm in Algorithm::ALL {
            let value = "AB".repeat(algorithm.length());
            let extra = json!({"os_hash_algo": algorithm.name(), "os_hash_value": value});
            let Checksum::Digest(digest) = with(extra).unwrap().checksum else { panic!() };
            assert_eq!((digest.algorithm(), digest.hex()), (algorithm, value.to_lowercase()));
        }
    }

    #[test]
    fn md5_by_length_counts_only_where_enabled() {
        let md5 = json!({"checksum": "a".repeat(32)});
        assert!(with(md5.clone()).is_ok());
        let settings = Settings { md5_enabled: false, ..Settings::default() };
        assert!(check_with(md5, &settings).unwrap_err().to_string().contains("MD5 is disabled"));
        let pair = json!({"os_hash_algo": "md5", "os_hash_value": "a".repeat(32)});
        assert!(check_with(pair, &settings).is_ok());
    }

    #[test]
    fn signature_and_verify_come_from_the_image_or_else_from_the_node() {
        let mut node =
            json!({"image_signature_url": "http://h/s", "image_signature_keys": "KEY", "image_verify": true});
        node["image_allow_no_partition_table"] = json!(true);
        let mut bare = ImageInfo::default();
        complete(&mut bare, Some(&node));
        assert_eq!(bare.allow_no_partition_table, Some(true));
        assert_eq!((bare.signature_url.as_deref(), bare.verify), (Some("http://h/s"), Some(true)));
        assert_eq!(bare.signature_keys, Some(vec!["KEY".to_owned()]));
        let own = ImageInfo {
            signature: Some("text".into()),
            signature_keys: Some(vec!["OWN".into()]),
            verify: Some(false),
            allow_no_partition_table: Some(false),
            ..ImageInfo::default()
        };
        let mut full = own.clone();
        complete(&mut full, Some(&node));
        assert_eq!(full, own);
        complete(&mut full, None);
        assert_eq!(full, own);
        // What makes no sense there does not pass for "no key".
        let mut wrong = ImageInfo::default();
        complete(&mut wrong, Some(&json!({"image_signature_keys": 7})));
        assert_eq!(wrong.signature_keys, Some(vec![String::new()]));
        assert!(with(json!({"checksum": sha("a"), "verify": true})).unwrap().verify);
    }

    #[test]
    fn formats_are_declared_detected_or_refused() {
        let format = |format: Value| {
            with(json!({"checksum": sha("a"), "disk_format": format})).map(|image| image.format)
        };
        assert_eq!(format(json!("raw")).unwrap(), Format::Raw);
        assert_eq!(format(json!("gpt")).unwrap(), Format::Raw);
        assert_eq!(format(json!("qcow2")).unwrap(), Format::Qcow2);
        for unknown in [json!(null), json!(""), json!("unknown")] {
            assert_eq!(format(unknown).unwrap(), Format::Detect);
        }
        for refused in ["vmdk", "vhd", "luks"] {
            let error = format(json!(refused)).unwrap_err();
            assert!(matches!(error, Error::InvalidImage { .. }));
            let text = error.to_string();
            assert!(text.contains("writable-format") && text.contains("qemu-img convert"), "{text}");
        }
    }

    #[test]
    fn a_declared_format_must_be_permitted_unless_nobody_looks() {
        let settings =
            Settings { permitted_formats: vec!["raw".into(), "iso".into()], ..Settings::default() };
        let declared = |format: &str| json!({"checksum": sha("a"), "disk_format": format});
        let error = check_with(declared("qcow2"), &settings).unwrap_err();
        assert!(
            matches!(error, Error::InvalidImage { .. }) && error.to_string().contains("permitted-format")
        );
        assert_eq!(check_with(declared("iso"), &settings).unwrap().format, Format::Iso);
        assert!(check_with(declared("iso"), &Settings::default()).is_err());
        let settings = Settings { disable_deep_image_inspection: true, ..settings };
        for format in ["qcow2", "iso", "vmdk"] {
            assert_eq!(check_with(declared(format), &settings).unwrap().format, Format::Detect);
        }
        assert_eq!(check_with(declared("raw"), &settings).unwrap().format, Format::Raw);
    }

    #[test]
    fn a_partition_image_is_one_by_its_type_alone() {
        let sizes = json!({"checksum": sha("a"), "image_type": "partition", "root_mb": 1, "swap_mb": 0, "ephemeral_mb": 0,
                           "ephemeral_format": null, "preserve_ephemeral": false});
        assert_eq!(with(sizes).unwrap().partition.unwrap().root_mib, 1);
        assert!(with(json!({"checksum": sha("a"), "image_type": "whole-disk"})).unwrap().partition.is_none());
        let lacking = with(json!({"checksum": sha("a"), "image_type": "partition"})).unwrap_err();
        assert!(matches!(lacking, Error::InvalidParameters { .. }), "{lacking:?}");
    }

    #[test]
    fn the_images_own_header_beats_its_user_beats_the_configured_one() {
        let settings = Settings {
            image_server: Some(Credentials { user: "conf".into(), password: Secret::new("pw") }),
            ..Settings::default()
        };
        let header = |extra: Value| {
            let mut image = json!({"checksum": sha("a")});
            image.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            check_with(image, &settings).map(|image| image.authorization.unwrap().expose().to_owned())
        };
        let own = json!({"image_server_auth_strategy": "http_basic", "image_server_user": "u", "image_server_password": "p"});
        assert_eq!(header(json!({})).unwrap(), "Basic Y29uZjpwdw==");
        assert_eq!(header(own.clone()).unwrap(), "Basic dTpw");
        let mut complete = own;
        complete["image_request_authorization"] = json!("QmVhcmVyIHRva2Vu");
        assert_eq!(header(complete).unwrap(), "Bearer token");
        let none = json!({"image_server_auth_strategy": "kerberos", "image_server_user": "u", "image_server_password": "p"});
        assert_eq!(header(none).unwrap(), "Basic Y29uZjpwdw==", "any other strategy is none");
        for (user, password) in [("u", json!(null)), ("u", json!("")), ("", json!("p"))] {
            // Not mixed with the configured pair.
            let half = json!({"image_server_auth_strategy": "http_basic", "image_server_user": user,
                              "image_server_password": password});
            assert!(matches!(header(half), Err(Error::ImageDownload { .. })));
        }
        assert!(header(json!({"image_request_authorization": "%%"})).is_err());
    }
}
