//! `ferric deploy`, `rebuild` and `undeploy`: says what is to be written, asks for it, and follows it where asked.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wire::ProvisionState;

use super::client::{Client, segment};
use super::watch::{self, WatchArguments};
use super::{Exit, Failure, chain};
use crate::api::{Located, Published, Stored};
use crate::config_drive;
use crate::machine::{self, Verb};

/// What to deploy where.
#[derive(Debug, Args)]
pub struct DeployArguments {
    /// Name or UUID
    node: String,
    /// The image, of a whole disk unless --root-gb is given: an http(s) URL, or a local file
    #[arg(long, value_name = "URL|PATH")]
    image: String,
    /// sha256:HEX, sha512:HEX, HEX, or the URL of a checksum file; needed for a URL, computed for a file
    #[arg(long)]
    checksum: Option<String>,
    /// Format of the image [default: by the file's magic, or the URL's ending]
    #[arg(long)]
    format: Option<ImageFormat>,
    /// Signature of the image: a file that `minisign -S` wrote, or its URL
    #[arg(long, value_name = "FILE|URL")]
    signature: Option<String>,
    /// Public key (minisign) that the image must be signed with; a key in the ramdisk comes first [repeatable]
    #[arg(long, value_name = "FILE|KEY")]
    image_key: Vec<String>,
    /// Read the disk back and compare, before it can boot
    #[arg(long)]
    verify: bool,
    /// Config drive: the directory that holds openstack/, an ISO, or base64 of a gzipped ISO
    #[arg(long, value_name = "DIR|FILE")]
    config_drive: Option<PathBuf>,
    /// The image is that of a root file system: make partitions, one of this size for it; it boots by its own grub
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(u32).range(1..))]
    root_gb: Option<u32>,
    /// Besides the root partition, swap space of this size
    #[arg(long, value_name = "MIB", requires = "root_gb")]
    swap_mb: Option<u32>,
    /// Besides the root partition, an ext4 file system of this size
    #[arg(long, value_name = "GIB", requires = "root_gb")]
    ephemeral_gb: Option<u32>,
    /// Keep the ephemeral file system of an earlier deployment with the same sizes, and what is in it
    #[arg(long, requires = "ephemeral_gb")]
    preserve_ephemeral: bool,
    /// Which disk: root device hints as JSON, such as {"serial": "X"} or {"size": "> 100"}
    #[arg(long, value_name = "JSON")]
    root_device: Option<String>,
    /// Follow it until the machine is active or it failed
    #[arg(long, visible_alias = "wait")]
    watch: bool,
    /// How long to follow it
    #[arg(long, value_name = "SECONDS", default_value_t = 7200)]
    timeout: u64,
}

/// Image formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImageFormat {
    /// A disk, byte for byte
    Raw,
    /// QEMU's format
    Qcow2,
}

impl ImageFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// What to take back.
#[derive(Debug, Args)]
pub struct UndeployArguments {
    /// Name or UUID
    node: String,
    /// Wait until it is available again
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

struct Image {
    url: String,
    checksum: Checksum,
    format: ImageFormat,
}

/// How an image is checked.
#[derive(Debug, PartialEq, Eq)]
enum Checksum {
    /// Algorithm and digest.
    Digest(&'static str, String),
    /// URL of a checksum file.
    Url(String),
}

/// Deploys; `target` is `active` or `rebuild`.
pub async fn deploy(client: &Client, arguments: DeployArguments, target: &str) -> Result<Exit, Failure> {
    let node = &arguments.node;
    let root_device = match &arguments.root_device {
        None => None,
        Some(text) => match serde_json::from_str::<Value>(text) {
            Ok(hints @ Value::Object(_)) => Some(hints),
            Ok(_) | Err(_) => {
                return Err(Failure::usage(format!(
                    "--root-device {text}: it must be a JSON object such as {{\"serial\": \"X\"}}"
                )));
            }
        },
    };
    let drive = match &arguments.config_drive {
        Some(path) => Some(config_drive::load(path).map_err(|e| Failure::usage(chain(&e)))?),
        None => None,
    };
    let signed = signed(&arguments)?;
    check_state(client, node, target).await?;
    let image = image(client, &arguments).await?;
    let set = |key: &str, value: Value| json!({ "op": "add", "path": format!("/instance_info/{key}"), "value": value });
    let mut operations = vec![
        // What an earlier deployment left must not mix with this one.
        json!({ "op": "remove", "path": "/instance_info" }),
        set("image_source", image.url.clone().into()),
        set("image_disk_format", image.format.name().into()),
    ];
    match image.checksum {
        Checksum::Digest(algorithm, value) => {
            operations.push(set("image_os_hash_algo", algorithm.into()));
            operations.push(set("image_os_hash_value", value.into()));
        }
        Checksum::Url(url) => operations.push(set("image_checksum", url.into())),
    }
    operations.extend(signed.into_iter().map(|(key, value)| set(key, value)));
    operations.extend(partitions(&arguments).into_iter().map(|(key, value)| set(key, value)));
    if let Some(hints) = root_device {
        operations.push(set("root_device", hints));
    }
    let _node: Value = client
        .send(Method::PATCH, &format!("/v1/nodes/{}", segment(node)), &Value::Array(operations))
        .await?;
    client.provision(node, &json!({ "target": target, "configdrive": drive })).await?;
    eprintln!("deploying {} onto node {node}", image.url);
    if arguments.watch {
        let arguments = WatchArguments { node: arguments.node, timeout: arguments.timeout };
        return watch::run(client, &arguments).await;
    }
    eprintln!("follow it with: ferric watch {node}");
    Ok(Exit::Success)
}

/// What `instance_info` says about the image's signature, and whether the disk is read back.
fn signed(arguments: &DeployArguments) -> Result<Vec<(&'static str, Value)>, Failure> {
    let read = |path: &str| {
        std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("reading {path}: {error}")))
    };
    let mut fields = Vec::new();
    match &arguments.signature {
        Some(url) if url.contains("://") => fields.push(("image_signature_url", Value::from(url.clone()))),
        Some(path) => fields.push(("image_signature", read(path)?.into())),
        None => {}
    }
    let mut keys = Vec::new();
    for key in &arguments.image_key {
        // minisign's keys begin so; the agent looks at the rest.
        let is_key = key.starts_with("RW") && key.len() == 56;
        keys.push(if is_key { key.clone() } else { read(key)? });
    }
    if !keys.is_empty() {
        fields.push(("image_signature_keys", keys.into()));
    }
    if arguments.verify {
        fields.push(("image_verify", true.into()));
    }
    Ok(fields)
}

/// What makes the image one of a partition.
fn partitions(arguments: &DeployArguments) -> Vec<(&'static str, Value)> {
    let Some(root_gb) = arguments.root_gb else { return Vec::new() };
    vec![
        ("image_type", "partition".into()),
        ("root_gb", root_gb.into()),
        ("swap_mb", arguments.swap_mb.unwrap_or_default().into()),
        ("ephemeral_gb", arguments.ephemeral_gb.unwrap_or_default().into()),
        ("preserve_ephemeral", arguments.preserve_ephemeral.into()),
    ]
}

/// Refuses a node that is not there or not in a state for this, before an upload and before its record is changed.
async fn check_state(client: &Client, node: &str, target: &str) -> Result<(), Failure> {
    let states: Value = client.get(&format!("/v1/nodes/{}/states", segment(node))).await?;
    let state =
        states.get("provision_state").and_then(|state| state.as_str()?.parse::<ProvisionState>().ok());
    let (Some(state), Some(verb)) = (state, Verb::from_target(target)) else { return Ok(()) };
    if machine::next(state, None, verb).is_some() {
        return Ok(());
    }
    let advice = match state {
        ProvisionState::Enroll => {
            format!("run `ferric node manage {node}` and `ferric node provide {node}` first")
        }
        ProvisionState::Manageable => format!("run `ferric node provide {node}` first"),
        ProvisionState::Active => {
            format!("run `ferric rebuild {node} ...`, or take it back with `ferric undeploy {node}`")
        }
        _ => format!("it is possible from: {}", machine::allowed_from(verb).join(", ")),
    };
    Err(Failure::new(Exit::Refused, format!("node {node} is in state \"{state}\": {advice}")))
}

/// Takes a machine back.
pub async fn undeploy(client: &Client, arguments: UndeployArguments) -> Result<Exit, Failure> {
    let node = &arguments.node;
    client.provision(node, &json!({ "target": "deleted" })).await?;
    if arguments.wait {
        client.wait_for(node, &[ProvisionState::Available], Duration::from_secs(arguments.timeout)).await?;
        eprintln!("node {node} is available");
    } else {
        eprintln!("node {node} is being taken back");
    }
    Ok(Exit::Success)
}

async fn image(client: &Client, arguments: &DeployArguments) -> Result<Image, Failure> {
    let given = arguments.checksum.as_deref().map(parse_checksum).transpose()?;
    if is_url(&arguments.image) {
        let url = arguments.image.clone();
        let checksum = given.ok_or_else(|| {
            Failure::usage(format!(
                "--image {url} needs --checksum: without one nobody knows what gets written"
            ))
        })?;
        let format = match arguments.format {
            Some(format) => format,
            None => format_by_name(&url).ok_or_else(|| {
                Failure::usage(format!(
                    "the format of {url} does not show in its name: give --format raw or qcow2"
                ))
            })?,
        };
        return Ok(Image { url, checksum, format });
    }
    let path = Path::new(&arguments.image);
    let path = path.canonicalize().map_err(|e| Failure::usage(format!("--image {}: {e}", path.display())))?;
    let unreadable = |e: std::io::Error| Failure::failed(format!("reading {}: {e}", path.display()));
    let file = path.clone();
    let digest = given.is_none();
    if digest {
        eprintln!("computing the SHA-256 of {}", path.display());
    }
    let looked = tokio::task::spawn_blocking(move || look(&file, digest)).await;
    let (format, sha256) = looked.map_err(|e| Failure::failed(e.to_string()))?.map_err(unreadable)?;
    let checksum = match (given, sha256) {
        (Some(checksum), _) => checksum,
        (None, Some(sha256)) => Checksum::Digest("sha256", sha256),
        (None, None) => return Err(Failure::failed("no digest was computed")),
    };
    let url = publish(client, &path, &checksum).await?;
    Ok(Image { url, checksum, format: arguments.format.unwrap_or(format) })
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn format_by_name(url: &str) -> Option<ImageFormat> {
    let path = url.split(['?', '#']).next()?;
    let name = path.rsplit('/').next()?.to_ascii_lowercase();
    match name.rsplit('.').next()? {
        "qcow2" => Some(ImageFormat::Qcow2),
        "raw" | "img" => Some(ImageFormat::Raw),
        _ => None,
    }
}

fn parse_checksum(text: &str) -> Result<Checksum, Failure> {
    if is_url(text) {
        return Ok(Checksum::Url(text.to_owned()));
    }
    let (name, hex) = match text.split_once(':') {
        Some((name, hex)) => (Some(name.to_ascii_lowercase()), hex),
        None => (None, text),
    };
    let algorithm = match (name.as_deref(), hex.len()) {
        (Some("sha256") | None, 64) => "sha256",
        (Some("sha512") | None, 128) => "sha512",
        _ => {
            return Err(Failure::usage(format!(
                "--checksum {text}: it must be sha256:HEX (64 digits), sha512:HEX (128 digits) or a URL"
            )));
        }
    };
    if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!("--checksum {text}: the digest is not hexadecimal")));
    }
    Ok(Checksum::Digest(algorithm, hex.to_ascii_lowercase()))
}

/// Format by magic, and the digest where wanted.
fn look(path: &Path, digest: bool) -> std::io::Result<(ImageFormat, Option<String>)> {
    let mut file = std::fs::File::open(path)?;
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic)?;
    let format = if magic == b"QFI\xfb" { ImageFormat::Qcow2 } else { ImageFormat::Raw };
    if !digest {
        return Ok((format, None));
    }
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        match buffer.get(..count) {
            Some([]) | None => break,
            Some(bytes) => hasher.update(bytes),
        }
    }
    Ok((format, Some(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())))
}

/// The URL of a local file: the one it has if the controller serves it, else it is uploaded. What was uploaded before is
/// not sent again: the name of an upload begins with the digest.
async fn publish(client: &Client, path: &Path, checksum: &Checksum) -> Result<String, Failure> {
    let text = path.to_str().ok_or_else(|| Failure::usage(format!("{} is no UTF-8", path.display())))?;
    let located: Located = client.get(&format!("/ferric/v1/images?path={}", segment(text))).await?;
    if let Some(url) = located.url {
        return Ok(url);
    }
    let unreadable = |e: std::io::Error| Failure::failed(format!("reading {}: {e}", path.display()));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("image");
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let size = file.metadata().await.map_err(unreadable)?.len();
    let name = upload_name(name, checksum);
    let place = format!("/ferric/v1/images/{}", segment(&name));
    let stored: Stored = client.get(&place).await?;
    let replace = match (stored.url, stored.size) {
        (Some(url), Some(length)) if length == size => {
            eprintln!("the controller has {} already", path.display());
            return Ok(url);
        }
        (there, _) => there.is_some(),
    };
    eprintln!("uploading {} to the controller (it serves no directory that holds it)", path.display());
    let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(file, 1 << 20));
    let query = if replace { "?replace=true" } else { "" };
    let published: Published = client.upload(&format!("{place}{query}"), size, body).await?;
    Ok(published.url)
}

/// Sixteen digits of the digest and the file's name, cut to what a file system takes. Files whose digest lies elsewhere
/// have their name alone.
fn upload_name(name: &str, checksum: &Checksum) -> String {
    let start = match checksum {
        Checksum::Digest(_, hex) => format!("{}-", hex.get(..16).unwrap_or(hex)),
        Checksum::Url(_) => String::new(),
    };
    // The end of a name says what it is.
    let room = 200;
    let cut = name.len().saturating_sub(room);
    let cut = (cut..=name.len()).find(|at| name.is_char_boundary(*at)).unwrap_or(name.len());
    format!("{start}{}", name.get(cut..).unwrap_or_default().trim_start_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_name_their_algorithm_or_show_it_by_length() {
        let (short, long) = ("a".repeat(64), "B".repeat(128));
        assert_eq!(parse_checksum(&short).unwrap(), Checksum::Digest("sha256", short.clone()));
        assert_eq!(
            parse_checksum(&format!("SHA256:{short}")).unwrap(),
            Checksum::Digest("sha256", short.clone())
        );
        assert_eq!(
            parse_checksum(&format!("sha512:{long}")).unwrap(),
            Checksum::Digest("sha512", "b".repeat(128))
        );
        assert_eq!(parse_checksum("http://h/SUMS").unwrap(), Checksum::Url("http://h/SUMS".into()));
        for bad in
            ["", "abc", "md5:d41d8cd98f00b204e9800998ecf8427e", &format!("sha512:{short}"), &"g".repeat(64)]
        {
            assert!(parse_checksum(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn uploads_are_named_by_digest_and_end_of_the_name() {
        let digest = Checksum::Digest("sha256", "0123456789abcdef0123".into());
        assert_eq!(upload_name("a.qcow2", &digest), "0123456789abcdef-a.qcow2");
        assert_eq!(upload_name(".a.raw", &Checksum::Url("http://h/SUMS".into())), "a.raw");
        let long = upload_name(&format!("{}.qcow2", "ü".repeat(300)), &digest);
        assert!(long.len() <= 220 && long.ends_with("ü.qcow2"), "{long}");
    }

    #[test]
    fn formats_show_in_names_and_in_magic() {
        assert_eq!(format_by_name("http://h/a.qcow2?x=.raw"), Some(ImageFormat::Qcow2));
        assert_eq!(format_by_name("http://h/a.img"), Some(ImageFormat::Raw));
        assert_eq!(format_by_name("http://h/a"), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"QFI\xfbrest").unwrap();
        let (format, digest) = look(file.path(), true).unwrap();
        assert_eq!(format, ImageFormat::Qcow2);
        assert_eq!(digest.unwrap().len(), 64);
        std::fs::write(file.path(), b"").unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(look(file.path(), true).unwrap(), (ImageFormat::Raw, Some(empty.into())));
    }
}
