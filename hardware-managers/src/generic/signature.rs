//! Which signature an image must match: where it comes from, and whose keys count.
//!
//! The keys, first of these that names any: those in the ramdisk, which make signatures mandatory; those of the options; those
//! that came with the image. So nobody further out widens what somebody further in has restricted. Everything but the image's
//! own bytes is checked here, before a disk is touched. The rules for people: `docs/safety.md`.

use events::EventKind;
use hwm::{Context, Error};
use imaging::{Cancel, ExpectedSignature, KeyId, PublicKey, SmallFile, TrustedKeys};
use sys::Host;
use wire::ImageInfo;

use super::image::{Image, invalid, is_http, label};
use crate::settings::{IMAGE_KEYS, Settings};

/// A signature file has four lines.
const SIGNATURE_LIMIT: u64 = 16 * 1024;

/// What is said about the signature of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSignature {
    /// The text of the signature file.
    pub text: Option<String>,
    /// Where the file is, if not in `text`.
    pub url: Option<String>,
    /// Keys to trust, where neither the ramdisk nor an option names any.
    pub keys: TrustedKeys,
}

impl ImageSignature {
    pub(super) fn parse(info: &ImageInfo) -> Result<Self, Error> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.trim().is_empty());
        let url = given(&info.signature_url);
        if url.as_ref().is_some_and(|url| !is_http(url)) {
            return Err(invalid(format!("image {}: signature_url is neither http nor https", label(info))));
        }
        let keys = info.signature_keys.iter().flatten().map(|key| key.parse::<PublicKey>());
        let keys = keys
            .collect::<Result<_, _>>()
            .map_err(|error| invalid(format!("image {}: a key of signature_keys: {error}", label(info))))?;
        Ok(Self { text: given(&info.signature), url, keys: TrustedKeys(keys) })
    }

    fn is_asked_for(&self) -> bool {
        self.text.is_some() || self.url.is_some() || !self.keys.0.is_empty()
    }
}

/// Whose signatures count, and whether there must be one.
struct Trust {
    keys: TrustedKeys,
    require: bool,
}

impl Trust {
    fn of(host: &Host, settings: &Settings, image: &TrustedKeys) -> Result<Self, Error> {
        let (options, in_ramdisk) = (&settings.signatures, keys_in_ramdisk(host)?);
        let require = options.require || !in_ramdisk.0.is_empty();
        let named = [&in_ramdisk, &options.keys, image].into_iter().find(|keys| !keys.0.is_empty());
        Ok(Self { keys: named.cloned().unwrap_or_default(), require })
    }
}

/// A file there that can not be read as a key is an error: the restriction it stood for must not get lost.
fn keys_in_ramdisk(host: &Host) -> Result<TrustedKeys, Error> {
    let fail = |name: &str, reason: &dyn std::fmt::Display| Error::Configuration {
        message: format!("image key {IMAGE_KEYS}/{name}: {reason}: no image is written until it is mended"),
    };
    let names = host.names(IMAGE_KEYS).map_err(|error| fail("", &error))?;
    let mut keys = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".pub")) {
        let text = std::fs::read_to_string(host.path(format!("{IMAGE_KEYS}/{name}")));
        let text = text.map_err(|error| fail(name, &error))?;
        keys.push(text.parse().map_err(|error: imaging::SignatureError| fail(name, &error))?);
    }
    Ok(TrustedKeys(keys))
}

/// Refuses what no signature can be checked of, where everything must be signed.
pub(super) fn refuse_unsigned(host: &Host, settings: &Settings, what: &str) -> Result<(), Error> {
    if !Trust::of(host, settings, &TrustedKeys::default())?.require {
        return Ok(());
    }
    Err(Error::Execution {
        message: format!(
            "everything that is written here must be signed (option require_signature, or keys in {IMAGE_KEYS}), and the \
             signature of {what} can not be checked: deploy a signed disk image"
        ),
    })
}

/// The signature that `image` must match; none where none is asked for by anybody. Fetches the signature file.
///
/// # Errors
/// `InvalidParameters` and `Configuration` where no key can be used, `ImageDownload` for a signature that is not there,
/// `ImageChecksum` for one that does not count.
pub(crate) fn expected(
    cx: &Context,
    settings: &Settings,
    image: &Image,
) -> Result<Option<ExpectedSignature>, Error> {
    let trust = Trust::of(&cx.host, settings, &image.signature.keys)?;
    if !trust.require && !image.signature.is_asked_for() {
        return Ok(None);
    }
    let label = &image.label;
    if trust.keys.0.is_empty() {
        return Err(invalid(format!(
            "image {label} must be checked against its signature, and there is no key to check it with: build the ramdisk \
             with --image-key, or set image_keys (kernel parameter ferric-image-keys), or send signature_keys"
        )));
    }
    let (text, place) = match &image.signature.text {
        Some(text) => (text.clone(), "that was given".to_owned()),
        None => fetch(cx, settings, image)?,
    };
    let signature = trust.keys.accept(&text).map_err(|error| Error::ImageChecksum {
        message: format!(
            "the signature of image {label} {place} does not count: {error}; nothing was written"
        ),
    })?;
    let (key, comment): (KeyId, _) = (signature.key(), signature.comment());
    tracing::info!(image = label, %key, trusted_comment = ?comment, "signature of the image accepted, its bytes are checked as they are written");
    let message = format!("image {label} must match its signature by the key {key}, which says {comment:?}");
    cx.events.emit(EventKind::Notice { message });
    Ok(Some(signature))
}

/// The text of the signature file, and where it was.
fn fetch(cx: &Context, settings: &Settings, image: &Image) -> Result<(String, String), Error> {
    let label = &image.label;
    let url = image.signature.url.clone().or_else(|| image.sources.iter().find_map(|url| beside(url)));
    let url = url.ok_or_else(|| Error::ImageDownload {
        message: format!(
            "image {label} must be signed, and an image of a registry has no file beside it: give what `minisign -S` wrote of the \
             published file, as text (signature) or by its URL (signature_url), in image_info, or as image_signature or \
             image_signature_url in the node's instance_info (write --signature by hand); nothing was written"
        ),
    })?;
    // Credentials for the image go nowhere else.
    let same_server = image.sources.iter().any(|source| server(source) == server(&url));
    let authorization = image.authorization.as_ref().filter(|_| same_server);
    let file = SmallFile { url: &url, authorization, proxies: &image.proxies, limit_bytes: SIGNATURE_LIMIT };
    let bytes = imaging::fetch_small(&file, &settings.transport, &Cancel::from(cx.cancel_flag()));
    let bytes = bytes.map_err(|error| Error::ImageDownload {
        message: format!(
            "image {label} must be signed, and its signature can not be had: {}: publish what `minisign -S` wrote beside \
             the image, or name its place (signature_url); nothing was written",
            error.report()
        ),
    })?;
    let place = format!("at {}", url.split(['?', '#']).next().unwrap_or_default());
    Ok((String::from_utf8_lossy(&bytes).into_owned(), place))
}

/// Where `minisign -S` puts the signature of a published file: `.minisig` after its path, before a query.
fn beside(url: &str) -> Option<String> {
    let (scheme, _) = url.split_once("://")?;
    if !["http", "https", "file"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return None;
    }
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (path, rest) = url.split_at(end);
    Some(format!("{path}.minisig{}", rest.split('#').next().unwrap_or_default()))
}

/// Scheme, host and port of a URL.
fn server(url: &str) -> Option<&str> {
    let after = url.find("://")?.checked_add(3)?;
    let length = url.get(after..)?.find(['/', '?', '#']);
    length.map_or(Some(url), |length| url.get(..after.checked_add(length)?))
}

#[cfg(test)]
mod tests;
