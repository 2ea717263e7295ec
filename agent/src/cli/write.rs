//! `ferric-agent write`: an image onto a disk by hand, on exactly the path that a conductor's command takes.
//!
//! stdout is data (a summary, and the events with `--progress json`), stderr is talk. Must not run inside an async runtime.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use events::Events;
use hardware_managers::{
    Checksum, Choice, ConfigDrive, Deployed, Deployment, Image, ImageSignature, Settings, Signatures,
};
use hwm::Context;
use imaging::{
    DecoderMemory, ExpectedDigest, Format, OciReference, Proxies, PublicKey, Transport, TrustedKeys,
};
use serde_json::{Value, json};
use sys::Host;

use super::credentials;
use super::exit::Exit;
use super::offline::{Failed, allow_list, finish, log_warnings, print_json, talk};
use super::progress::ProgressMode;
use crate::cmdline::Cmdline;
use crate::config::{Config, Overrides};

/// Whoever writes by hand may write whatever can be written.
const PERMITTED: [&str; 4] = ["raw", "gpt", "qcow2", "iso"];

/// Write a disk image to a disk, verified: EVERYTHING ON THE DISK IS DESTROYED.
///
/// The image is streamed, its digest is computed on the way, and the disk's first MiB is written last, once the digest
/// matches. Exit codes: 0 written, 2 usage, 3 refused or no such disk (nothing touched), 4 download failed, 5 wrong digest
/// or signature, 6 disk error, 7 not a valid image, 130 interrupted.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("digest").args(["sha256", "sha512", "checksum"])))]
pub struct WriteArgs {
    /// Where the image is: http, https or file URL, or a registry: oci://registry/repository:tag or ...@sha256:HEX. Give it
    /// again for other places of the same image, which are tried in turn.
    #[arg(long, required = true)]
    pub url: Vec<String>,
    /// SHA-256 of the published image, in hex.
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// SHA-512 of the published image, in hex.
    #[arg(long, value_name = "HEX")]
    pub sha512: Option<String>,
    /// Digest of the published image: algorithm (sha256, sha512, sha3_256, blake2b and so on), a colon, and hex; or the URL
    /// of a checksum file such as SHA256SUMS. A digest is needed, but for images in registries, whose manifests name one.
    #[arg(long, value_name = "ALGORITHM:HEX|URL")]
    pub checksum: Option<String>,
    /// File with credentials for the image's server or registry: user:password, a complete header value (Bearer TOKEN), or
    /// the auth.json of podman or docker.
    #[arg(long, value_name = "FILE")]
    pub auth: Option<PathBuf>,
    /// Format of the image (raw, qcow2, iso); found out by looking when not given.
    #[arg(long)]
    pub format: Option<Format>,
    /// Config drive: a file system image (ISO 9660 or vfat, label config-2), its gzip, or base64 of that.
    #[arg(long, value_name = "FILE")]
    pub config_drive: Option<PathBuf>,
    /// The only disks that may be written, comma-separated: sda, serial:ABC*, wwn:0x5*, by-path:pci-*. Needed unless
    /// running from a ramdisk.
    #[arg(long, value_name = "ALLOWED")]
    pub disks: Option<String>,
    /// PEM file with the certificate authorities to trust.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Accept any server certificate.
    #[arg(long)]
    pub insecure: bool,
    /// Rewrite a GPT that was made for sectors of another size than the disk's.
    #[arg(long)]
    pub translate_sector_size: bool,
    /// Accept a whole-disk image that has no partition table, or an empty one: a file system or volume over the whole disk. Such a
    /// disk does not boot.
    #[arg(long, conflicts_with = "config_drive")]
    pub allow_no_partition_table: bool,
    /// MiB of memory that unpacking the image may take (the window of zstd, the dictionary of xz). [default: a quarter of what is
    /// available, and at least 24]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<NonZeroU32>,
    /// Read the disk back and compare, before it is made bootable.
    #[arg(long)]
    pub verify: bool,
    /// Signature of the published image: a file that `minisign -S` wrote, or its URL. [default where one is needed: the
    /// image's URL and .minisig]
    #[arg(long, value_name = "FILE|URL")]
    pub signature: Option<String>,
    /// Public key whose signature counts: a file of minisign, or the word in it. Repeatable. Keys in
    /// /etc/ferric/image-keys.d, and after them the option image_keys, come first and count alone.
    #[arg(long, value_name = "FILE|KEY")]
    pub image_key: Vec<String>,
    /// Write only if the image is signed by a trusted key. Keys in /etc/ferric/image-keys.d mean the same.
    #[arg(long)]
    pub require_signature: bool,
    /// How to show progress; a bar by default when stderr is a terminal.
    #[arg(long, value_enum)]
    pub progress: Option<ProgressMode>,
    /// The disk to write to, for example /dev/sdb.
    pub device: PathBuf,
}

/// **Destroys what is on the disk.** Blocks until the image is written or failed.
pub fn run(args: WriteArgs) -> ExitCode {
    log_warnings();
    let interrupted = Arc::new(AtomicBool::new(false));
    let mut exit = finish(write(&args, &interrupted));
    if exit != Exit::Success && interrupted.load(Ordering::Relaxed) {
        exit = Exit::Interrupted;
    }
    exit.into()
}

fn write(args: &WriteArgs, interrupted: &Arc<AtomicBool>) -> Result<(), Failed> {
    let host = Host::real();
    let settings = Settings {
        allow: allow_list(&host, args.disks.as_deref())?,
        transport: Transport {
            ca_file: args.ca_file.clone(),
            insecure: args.insecure,
            decoder_memory: args
                .memory
                .map_or(DecoderMemory::default(), |mib| DecoderMemory::Limit(u64::from(mib.get()) << 20)),
            ..Transport::default()
        },
        translate_sector_size: args.translate_sector_size,
        permitted_formats: PERMITTED.map(str::to_owned).into(),
        signatures: signatures(&host, args.require_signature)?,
        disk_wait_attempts: 1,
        ..Settings::default()
    };
    let image = Image {
        label: args.url.first().map_or_else(String::new, |url| label(url)),
        sources: args.url.clone(),
        checksum: checksum(args)?,
        format: args.format.unwrap_or(Format::Detect),
        translate_sector_size: None,
        allow_no_partition_table: args.allow_no_partition_table,
        authorization: args.auth.as_deref().map(|file| credentials::read(file, &args.url)).transpose()?,
        proxies: Proxies::default(),
        signature: signature(args)?,
        verify: args.verify,
        partition: None,
    };
    let config_drive =
        match &args.config_drive {
            None => None,
            Some(path) => Some(ConfigDrive::Bytes(std::fs::read(path).map_err(|error| {
                Failed::usage(format!("reading config drive {}: {error}", path.display()))
            })?)),
        };
    let events = Events::default();
    ProgressMode::or_default(args.progress).follow(&events);
    let cx = Context::new(host, events);
    stop_on_signal(&cx, interrupted)?;

    let deployment = Deployment::new(settings);
    let deployed = deployment.write(&cx, &image, config_drive, &Choice::Device(args.device.clone()))?;
    print_json(&summary(&deployed), false)
}

/// What the image is called in messages: its file name. The rest of a URL may be secret: a password, a signature.
fn label(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or("", |(_, rest)| rest);
    let name = path.split_once('/').and_then(|(_, path)| path.rsplit('/').next()).unwrap_or_default();
    if name.is_empty() { "image".to_owned() } else { name.to_owned() }
}

/// What this machine's own options say about signatures, and the flag. A flag can ask for more, not for less.
fn signatures(host: &Host, require: bool) -> Result<Signatures, Failed> {
    let cmdline = Cmdline::parse(&host.attribute("/proc/cmdline").unwrap_or_default());
    let (config, _) = Config::load(host, &cmdline, &Overrides::default())
        .map_err(|error| Failed::usage(hwm::chain(&error)))?;
    let options = config.signatures();
    Ok(Signatures { require: require || options.require, ..options })
}

/// The signature and the keys of the command line.
fn signature(args: &WriteArgs) -> Result<ImageSignature, Failed> {
    let read = |what: &str, path: &str| {
        std::fs::read_to_string(path)
            .map_err(|error| Failed::usage(format!("reading {what} {path}: {error}")))
    };
    let (text, url) = match &args.signature {
        Some(url) if url.contains("://") => (None, Some(url.clone())),
        Some(path) => (Some(read("the signature", path)?), None),
        None => (None, None),
    };
    let mut keys = Vec::new();
    for key in &args.image_key {
        let read = || match key.parse() {
            Ok(key) => Ok(key),
            Err(_) => read("the key", key)?
                .parse::<PublicKey>()
                .map_err(|error| Failed::usage(format!("image key {key}: {error}"))),
        };
        keys.push(read()?);
    }
    Ok(ImageSignature { text, url, keys: TrustedKeys(keys) })
}

fn checksum(args: &WriteArgs) -> Result<Checksum, Failed> {
    let digest = match (&args.sha256, &args.sha512, &args.checksum) {
        (Some(hex), ..) => ExpectedDigest::from_parts("sha256", hex),
        (_, Some(hex), _) => ExpectedDigest::from_parts("sha512", hex),
        (.., Some(url)) if url.contains("://") => {
            return Ok(Checksum::File { url: url.clone(), algorithm: None });
        }
        (.., Some(text)) => ExpectedDigest::parse(text),
        (None, None, None) if args.url.iter().any(|url| OciReference::is_reference(url)) => {
            return Ok(Checksum::Registry);
        }
        (None, None, None) => {
            return Err(Failed::usage("a digest is needed: --sha256, --sha512 or --checksum"));
        }
    };
    digest.map(Checksum::Digest).map_err(|error| Failed::usage(error.to_string()))
}

/// What was done, as data.
fn summary(deployed: &Deployed) -> Value {
    let written = &deployed.written;
    json!({
        "event": "written",
        "device": deployed.disk.name,
        "serial": deployed.disk.serial,
        "size_bytes": deployed.disk.size,
        "root_uuid": deployed.root_uuid,
        "partitions": deployed.partitions,
        "config_drive": deployed.config_drive,
        "digest": written.digest,
        "source": written.source,
        "published_bytes": written.published_bytes,
        "virtual_size": written.virtual_size,
        "data_bytes": written.data_bytes,
        "zeroed_bytes": written.zeroed_bytes,
        "resumed": written.resumed,
        "restarted": written.restarted,
        "seconds": written.seconds,
    })
}

/// SIGINT and SIGTERM cancel the write; a second one ends the process at once.
fn stop_on_signal(cx: &Context, interrupted: &Arc<AtomicBool>) -> Result<(), Failed> {
    use tokio::signal::unix::{SignalKind, signal};

    let fail = |error: std::io::Error| Failed {
        exit: Exit::Failure,
        message: format!("listening for signals: {error}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(fail)?;
    let (mut int, mut term) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(fail)?, signal(SignalKind::terminate()).map_err(fail)?)
    };
    let (cx, interrupted) = (cx.clone(), Arc::clone(interrupted));
    // The thread lives as long as the process: there is nothing to join for.
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            interrupted.store(true, Ordering::Relaxed);
            talk("interrupted: stopping at the next safe point; once more to stop at once");
            cx.cancel();
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            talk("stopped: unless the write had not begun, the disk does not boot; write it again");
            std::process::exit(i32::from(Exit::Interrupted.code()));
        });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_the_file_name_and_holds_no_secret() {
        for (url, expected) in [
            ("https://h/images/debian.raw", "debian.raw"),
            ("file:///tmp/x.qcow2", "x.qcow2"),
            ("https://user:pw@h/a/b.raw?X-Signature=abc/def", "b.raw"),
            ("https://h/b.raw#abc/def", "b.raw"),
            ("https://user:pw@h", "image"),
            ("https://user:pw@h/?token=x", "image"),
            ("user:pw@h", "image"),
        ] {
            assert_eq!(label(url), expected, "{url}");
        }
    }
}
