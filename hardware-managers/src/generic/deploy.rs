//! The story "this image onto that disk", in order.
//!
//! Everything that can fail without touching the disk comes first: the digest is known, the config drive decoded, the disk
//! chosen and claimed. Then a whole-disk image is streamed and verified, the partition table is mended for this disk's size
//! and looked at, and the config drive is written. Partition images have a story of their own.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use disk::config_drive::Rebuild;
use disk::table::Table;
use disk::{Policy, Target};
use events::{EventKind, Phase};
use hwm::{Context, Error};
use imaging::{
    Cancel, Checks, DecoderMemory, DeviceSink, ErrorKind, ImageRequest, Proxies, SmallFile, TableCheck,
    Translate, Transport,
};

use super::config_drive_room::ForConfigDrive;
use super::image::Image;
use super::published::published;
use super::sectors::ForSectors;
use super::{partition, root_disk, signature};
use crate::deployment::{Choice, ConfigDrive, Deployed};
use crate::settings::Settings;

/// The largest config drive that is fetched, before decoding. Source: data plane page, 4.3: 64 MiB decoded.
const CONFIG_DRIVE_LIMIT: u64 = 96 * 1024 * 1024;
/// Memory that writing an image takes, in bytes.
const IMAGE_MEMORY: u64 = 48 * 1024 * 1024;

/// **Writes an image, and a config drive if there is one, to a disk.**
pub(crate) fn run(
    cx: &Context,
    settings: &Settings,
    image: &Image,
    config_drive: Option<ConfigDrive<'_>>,
    choice: &Choice,
) -> Result<Deployed, Error> {
    let (digest, sources) = published(cx, image, settings)?;
    let signature = signature::expected(cx, settings, image)?;
    let config_drive = config_drive.map(|drive| decode(cx, drive, settings)).transpose()?;
    let disk = match choice {
        Choice::Hints => root_disk::wait(cx, settings)?,
        Choice::Device(device) => root_disk::by_device(cx, settings, device)?,
    };
    let policy = Policy::detect(&cx.host, settings.allow.clone());
    let target = Target::claim(&cx.host, &disk, &policy).map_err(|refusal| protected(&refusal))?;
    let translates = image.translate_sector_size.unwrap_or(settings.translate_sector_size);
    let config_drive = match config_drive {
        Some(drive) if image.partition.is_none() => Some(suited(drive, settings, &target)?),
        drive => drive,
    };
    let preflight = config_drive.as_ref().filter(|_| image.partition.is_none());

    let (whole_disk, may_lack_table) = (image.partition.is_none(), image.allow_no_partition_table);
    let request = ImageRequest {
        label: image.label.clone(),
        sources,
        digest,
        signature,
        format: image.format,
        checks: Checks {
            permitted: settings.permitted_formats.clone(),
            inspect: !settings.disable_deep_image_inspection,
            whole_disk,
            table: match (whole_disk && may_lack_table, &config_drive) {
                (false, _) => TableCheck::Rules,
                (true, None) => TableCheck::Optional,
                // A config drive becomes a partition of it.
                (true, Some(_)) => TableCheck::Required,
            },
        },
        translate: translates
            .then(|| -> Arc<dyn Translate> { Arc::new(ForSectors(target.logical_sector_bytes())) }),
        preflight: preflight.map(|drive| ForConfigDrive::arc(drive, &target, translates)),
        authorization: image.authorization.clone(),
        proxies: image.proxies.clone(),
        read_back: settings.verify_writes || image.verify,
    };
    if let Some(wanted) = &image.partition {
        return partition::write(cx, settings, &request, wanted, config_drive.as_deref(), &target);
    }
    announce(cx, &target, "writing an image");
    let written = write(cx, settings, &request, &target)?;
    fitted(disk::fix_gpt(&target))?;
    reread(cx, &target);
    let table = table(&target, may_lack_table)?;
    if let Some(bytes) = &config_drive {
        place_config_drive(cx, Rebuild::WhenNeeded, &target, bytes)?;
    }
    Ok(Deployed {
        root_uuid: table.disk_signature(),
        disk: target.disk().clone(),
        partitions: table.partitions().len(),
        config_drive: config_drive.is_some(),
        partition_uuids: None,
        written,
    })
}

/// The config drive in the form in which it will be written to this disk.
fn suited(drive: Vec<u8>, settings: &Settings, target: &Target) -> Result<Vec<u8>, Error> {
    let sector_bytes = target.logical_sector_bytes();
    let made = disk::config_drive::suited(&drive, sector_bytes, settings.rebuild())
        .map_err(|error| Error::Deployment { message: hwm::chain(&error) })?;
    match made {
        Cow::Owned(made) => Ok(made),
        Cow::Borrowed(_) => Ok(drive),
    }
}

/// Says, at info and to whoever listens, what is about to be destroyed.
pub(crate) fn announce(cx: &Context, target: &Target, action: &'static str) {
    let disk = target.disk();
    let contents = target.contents().to_string().replace('\n', "; ");
    let serial = disk.serial.as_deref().unwrap_or("unknown");
    let model = disk.model.as_deref().unwrap_or("unknown");
    tracing::info!(
        device = disk.name,
        size_bytes = target.size_bytes(),
        serial,
        model,
        contents,
        action,
        "destroying the contents of a disk"
    );
    let message = format!(
        "{action} destroys the contents of {} ({} bytes, model {model}, serial {serial}): {contents}",
        disk.name,
        target.size_bytes()
    );
    cx.events.emit(EventKind::Notice { message });
}

/// A refusal, with its causes, as the wire knows it.
pub(crate) fn protected(refusal: &disk::Refusal) -> Error {
    Error::ProtectedDevice { message: hwm::chain(refusal) }
}

/// A config drive as the bytes of a file system image. A cancelled context ends its fetch within a second.
///
/// # Errors
/// Also where it would not fit into the memory that is free, beside what writing an image takes.
pub(crate) fn decode(cx: &Context, drive: ConfigDrive<'_>, settings: &Settings) -> Result<Vec<u8>, Error> {
    let unpack = |bytes: Cow<'_, [u8]>| {
        disk::config_drive::decode_within(bytes, spare_memory(cx))
            .map_err(|error| Error::Deployment { message: hwm::chain(&error) })
    };
    let text = match drive {
        ConfigDrive::Bytes(bytes) => return unpack(bytes.into()),
        ConfigDrive::Text(text) => text.trim(),
    };
    let scheme = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    if !scheme.starts_with("http://") && !scheme.starts_with("https://") {
        return unpack(text.as_bytes().into());
    }
    let proxies = Proxies::default();
    let file = SmallFile {
        url: text,
        authorization: None,
        proxies: &proxies,
        limit_bytes: CONFIG_DRIVE_LIMIT.min(spare_memory(cx)),
    };
    let bytes = imaging::fetch_small(&file, &settings.transport, &Cancel::from(cx.cancel_flag()))
        .map_err(|error| Error::Deployment { message: format!("config drive: {}", error.report()) })?;
    unpack(bytes.into())
}

/// Bytes of memory that a config drive may take: what the kernel says is available, less what writing an image takes. All that
/// there may be where the kernel does not say.
fn spare_memory(cx: &Context) -> u64 {
    let text = cx.host.attribute("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib.saturating_mul(1024).saturating_sub(IMAGE_MEMORY))
}

/// How to fetch an image for this machine: unpacking it may take a share of the memory that is available now, unless a limit is set.
pub(super) fn transport(cx: &Context, settings: &Settings) -> Transport {
    let decoder_memory = match settings.transport.decoder_memory {
        DecoderMemory::Share(_) => DecoderMemory::Share(cx.host.available_memory()),
        limit @ DecoderMemory::Limit(_) => limit,
    };
    Transport { decoder_memory, ..settings.transport.clone() }
}

/// Streams, decodes, verifies. A cancelled context stops it within a second.
fn write(
    cx: &Context,
    settings: &Settings,
    request: &ImageRequest,
    target: &Target,
) -> Result<imaging::Written, Error> {
    let sink = DeviceSink::open(target.device()).map_err(|error| write_error(&error))?;
    // An image that is smaller than the disk leaves old metadata, and with partitions at the same places, a file system or the
    // superblock of an array would be found in them again.
    let sink = sink.clearing(disk::old_metadata(target));
    // Between claim and opening the disk may have been pulled, and its name given to another.
    target.confirm().map_err(|refusal| protected(&refusal))?;
    let cancel = Cancel::from(cx.cancel_flag());
    imaging::write_image(request, &transport(cx, settings), Box::new(sink), &cx.events, &cancel)
        .map_err(|error| disk_error(&format!("disk {}", target.disk().name), &error))
}

/// As [`write_error`], and names the disk where the disk is the trouble: imaging knows none, only offsets.
pub(super) fn disk_error(place: &str, error: &imaging::Error) -> Error {
    match error.kind() {
        ErrorKind::OutOfSpace | ErrorKind::Write => {
            Error::ImageWrite { message: format!("{place}: {}", error.report()) }
        }
        _ => write_error(error),
    }
}

pub(super) fn write_error(error: &imaging::Error) -> Error {
    let message = error.report();
    match error.kind() {
        ErrorKind::Timeout => Error::ImageDownloadTimeout { message },
        ErrorKind::Request | ErrorKind::Download | ErrorKind::DownloadFatal => {
            Error::ImageDownload { message }
        }
        ErrorKind::ChecksumMismatch | ErrorKind::SignatureMismatch => Error::ImageChecksum { message },
        ErrorKind::InvalidImage => Error::InvalidImage { message },
        ErrorKind::OutOfSpace | ErrorKind::Write => Error::ImageWrite { message },
        ErrorKind::Cancelled => Error::Failed { message },
    }
}

/// Makes the kernel see the new partitions. It refuses while something still looks at the old ones, so it is asked a few
/// times; nothing that follows depends on it, for tables and boot files are read from the disk itself.
pub(crate) fn reread(cx: &Context, target: &Target) {
    for _ in 0..10 {
        match cx.host.kernel().reread_partition_table(target.device()) {
            Ok(()) => return,
            // A device without partition support, such as a loop device made without it.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                tracing::debug!(device = target.disk().name, "the kernel shows no partitions of this device");
                return;
            }
            Err(error) => tracing::debug!(%error, "the kernel does not read the partition table yet"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    tracing::warn!(device = target.disk().name, "the kernel did not read the new partition table");
}

/// Reads the partition table that the image brought. One for a larger disk is an error, and so is none or an empty one, unless
/// `may_lack` it: such a disk does not boot.
pub(crate) fn table(target: &Target, may_lack: bool) -> Result<Table, Error> {
    let device = &target.disk().name;
    let check = || {
        let table = target.table()?;
        if may_lack && table.partitions().is_empty() {
            return Ok(table);
        }
        table.validate(device, target.size_bytes())?;
        Ok(table)
    };
    check().map_err(|error: disk::Error| Error::InvalidImage {
        message: not_bootable(&error, target.logical_sector_bytes()),
    })
}

/// A table that does not fit the disk is judged by [`table`]. A disk that fails is not: what is read back then may come from
/// memory.
fn fitted(result: Result<disk::GptFix, disk::Error>) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error @ disk::Error::Io { .. }) => Err(Error::ImageWrite {
            message: format!("moving the backup partition table: {}", hwm::chain(&error)),
        }),
        Err(error) => {
            tracing::warn!(error = hwm::chain(&error), "the GPT could not be fitted to the disk");
            Ok(())
        }
    }
}

/// The one place that asks about the kind of image.
fn not_bootable(error: &disk::Error, sector_bytes: u32) -> String {
    format!(
        "the image was written and verified, but does not make a bootable disk: {}; is it a whole-disk image for \
         disks with sectors of {sector_bytes} bytes? A data disk without a table needs allow_no_partition_table \
         (`ferric-agent write --allow-no-partition-table`)",
        hwm::chain(error)
    )
}

pub(crate) fn place_config_drive(
    cx: &Context,
    rebuild: Rebuild,
    target: &Target,
    bytes: &[u8],
) -> Result<(), Error> {
    let started = Instant::now();
    let device = target.disk().name.clone();
    cx.events.emit(EventKind::PhaseStarted { phase: Phase::ConfigDrive, subject: device.clone() });
    tracing::info!(device, size_bytes = bytes.len(), "writing the config drive");
    disk::config_drive::place(target, bytes, rebuild).map_err(|error| {
        let message = format!("writing the config drive to {device}: {}", hwm::chain(&error));
        cx.events.emit(EventKind::Failed { phase: Phase::ConfigDrive, message: message.clone() });
        Error::Deployment { message }
    })?;
    reread(cx, target);
    let bytes = u64::try_from(bytes.len()).ok();
    cx.events.emit(EventKind::PhaseFinished {
        phase: Phase::ConfigDrive,
        seconds: started.elapsed().as_secs_f64(),
        bytes,
    });
    Ok(())
}

/// Writes out everything, drops the kernel's caches, and flushes every disk. Source: data plane page, 0.5.
pub(crate) fn sync(cx: &Context, settings: &Settings) -> Result<(), Error> {
    cx.host.kernel().sync();
    if let Err(error) = std::fs::write(cx.host.path("/proc/sys/vm/drop_caches"), "3") {
        tracing::warn!(%error, "the kernel's caches were not dropped");
    }
    let disks =
        disk::list(&cx.host, settings.allow.as_ref()).map_err(|e| Error::other("listing disks", e))?;
    for disk in disks {
        if let Err(error) = cx.host.kernel().flush_buffers(&cx.host.path(&disk.name)) {
            tracing::warn!(device = disk.name, %error, "disk not flushed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fetch_of_a_config_drive_ends_when_it_is_cancelled() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/drive", listener.local_addr().unwrap());
        let cx = Context::new(sys::fake::host("/nonexistent"), events::Events::default());
        let canceller = cx.clone();
        // Takes the connection, and says nothing; the connection must not be closed before the fetch ended.
        let server = std::thread::spawn(move || {
            let connection = listener.accept().unwrap();
            canceller.cancel();
            (connection, Instant::now())
        });
        let error = decode(&cx, ConfigDrive::Text(&url), &Settings::default()).unwrap_err();
        let (_connection, cancelled) = server.join().unwrap();
        assert!(cancelled.elapsed() < Duration::from_secs(3), "{:?}", cancelled.elapsed());
        assert!(matches!(error, Error::Deployment { .. }), "{error:?}");
        assert!(
            error.to_string().contains("config drive: ") && error.to_string().contains("cancelled"),
            "{error}"
        );
    }

    #[test]
    fn drive_that_does_not_fit_the_free_memory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        let mut drive = vec![0; 2 << 20];
        drive[0x8001..0x8006].copy_from_slice(b"CD001");
        let fits = |available_kib: u64| {
            let text = format!("MemTotal: 400000 kB\nMemAvailable: {available_kib} kB\n");
            std::fs::write(root.path().join("proc/meminfo"), text).unwrap();
            let cx = Context::new(sys::fake::host(root.path()), events::Events::default());
            decode(&cx, ConfigDrive::Bytes(drive.clone()), &Settings::default())
        };
        assert_eq!(fits(50 * 1024).unwrap(), drive);
        for available in [50 * 1024 - 1, 48 * 1024, 0] {
            let error = fits(available).unwrap_err().to_string();
            assert!(error.contains("needs more memory") && error.contains("smaller"), "{error}");
        }
    }

    #[test]
    fn a_missing_table_asks_about_the_kind_of_image_once() {
        let error = Table::None.validate("/dev/sdx", 4096).unwrap_err();
        let text = not_bootable(&error, 512);
        assert_eq!(text.matches("whole-disk image").count(), 1, "{text}");
    }

    #[test]
    fn a_disk_that_fails_under_the_table_fails_the_deployment() {
        let source = std::io::Error::other("medium error");
        let failed = disk::Error::Io { action: "flushing /dev/sdx".into(), source };
        assert!(matches!(fitted(Err(failed)), Err(Error::ImageWrite { .. })));
        let unfit = disk::Error::Table { device: "/dev/sdx".into(), reason: "the disk is too small".into() };
        assert!(fitted(Err(unfit)).is_ok());
        assert!(fitted(Ok(disk::GptFix::Correct)).is_ok());
    }
}
