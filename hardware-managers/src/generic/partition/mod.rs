//! The story "this partition image onto that disk": a layout of our own, the image in its root partition.
//!
//! Source: data plane page, 3. The order differs from upstream's where that makes a difference to what a failure leaves: the
//! partition table is written after the image was verified, so that until then the disk has none.

pub(crate) mod boot_mode;
mod ephemeral;
mod sink;
mod uuids;
mod wanted;

use std::time::Instant;

use disk::layout::{Layout, Planned, Role, Wishes};
use disk::table::{Table, write_table};
use disk::{Target, format};
use events::{EventKind, Phase};
use hwm::{Context, Error};
use imaging::{Cancel, ErrorKind, ImageRequest, Transport};

use self::ephemeral::Maker;
use self::sink::RootSink;
use super::deploy::{announce, disk_error, protected, transport, write_error};
use crate::deployment::Deployed;
use crate::settings::{Partitioning, Settings};
pub use uuids::PartitionUuids;
pub use wanted::PartitionImage;

/// Labels of the file systems that are made here.
const ESP_LABEL: &str = "efi-part";
const SWAP_LABEL: &str = "swap1";

const MIB: u64 = 1 << 20;

/// **Partitions a disk anew, or keeps its ephemeral partition, and writes an image to the root partition.**
pub(super) fn write(
    cx: &Context,
    settings: &Settings,
    request: &ImageRequest,
    wanted: &PartitionImage,
    config_drive: Option<&[u8]>,
    target: &Target,
) -> Result<Deployed, Error> {
    let config_drive = config_drive
        .map(|bytes| disk::config_drive::suited(bytes, target.logical_sector_bytes(), settings.rebuild()))
        .transpose()
        .map_err(|error| Error::Deployment { message: hwm::chain(&error) })?;
    let layout = layout(cx, &settings.partitioning, wanted, config_drive.as_deref(), target)?;
    let maker = (wanted.ephemeral_mib > 0 && !wanted.preserve_ephemeral)
        .then(|| Maker::find(&cx.host, wanted.ephemeral_format.as_deref()))
        .transpose()?;

    announce(cx, target, "writing a partition image");
    let written = stream(cx, &transport(cx, settings), request, wanted, &layout, target)?;
    let built_in = matches!(maker, Some(Maker::BuiltIn));
    let table = prepare(cx, wanted, config_drive.as_deref(), built_in, &layout, target)?;
    if let (Some(Maker::Tool(tool)), Some(partition)) = (maker, layout.get(Role::Ephemeral)) {
        disk::show_partitions(&cx.host, &target.disk().name, &table, settings.partitioning.patience())
            .map_err(|error| failed(target, &error))?;
        tool.make(&cx.host, &target.disk().name, partition.number)?;
    } else {
        target.reread_partitions();
    }
    let uuids = PartitionUuids::read(target, &layout, &table).map_err(|error| failed(target, &error))?;
    Ok(Deployed {
        disk: target.disk().clone(),
        root_uuid: uuids.root.clone(),
        partitions: layout.partitions.len(),
        config_drive: config_drive.is_some(),
        partition_uuids: Some(uuids),
        written,
    })
}

/// Where everything goes. Reads the disk only where partitions are to be kept.
fn layout(
    cx: &Context,
    sizes: &Partitioning,
    wanted: &PartitionImage,
    config_drive: Option<&[u8]>,
    target: &Target,
) -> Result<Layout, Error> {
    let (mode, label) = boot_mode::of_node(cx);
    let bytes = config_drive.map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    let wishes = Wishes {
        label,
        is_uefi: mode == boot_mode::BootMode::Uefi,
        is_power: cfg!(target_arch = "powerpc64"),
        esp_mib: sizes.efi_system_mib.into(),
        bios_boot_mib: sizes.bios_boot_mib.into(),
        root_mib: wanted.root_mib,
        swap_mib: wanted.swap_mib,
        ephemeral_mib: wanted.ephemeral_mib,
        config_drive_mib: bytes.div_ceil(MIB),
    };
    let device = &target.disk().name;
    let fail = |what: &str, reason: String| Error::Failed { message: format!("{what} {device}: {reason}") };
    let layout = Layout::plan(&wishes, target.size_bytes(), target.logical_sector_bytes())
        .map_err(|reason| fail("partitioning", reason))?;
    tracing::info!(device, ?mode, ?label, partitions = layout.partitions.len(), "layout planned");
    if !wanted.preserve_ephemeral {
        return Ok(layout);
    }
    let table = target.table().map_err(|error| failed(target, &error))?;
    layout.adopt(&table).map_err(|reason| {
        let advice = "rebuild without preserve_ephemeral, or with the sizes of the first deployment";
        fail("keeping the ephemeral partition of", format!("{reason}; {advice}; nothing was written"))
    })
}

/// Streams the image into the root partition, and verifies it.
fn stream(
    cx: &Context,
    transport: &Transport,
    request: &ImageRequest,
    wanted: &PartitionImage,
    layout: &Layout,
    target: &Target,
) -> Result<imaging::Written, Error> {
    let sink = RootSink::open(target, layout, wanted).map_err(|error| write_error(&error))?;
    // Between claim and opening the disk may have been pulled, and its name given to another.
    target.confirm().map_err(|refusal| protected(&refusal))?;
    let cancel = Cancel::from(cx.cancel_flag());
    imaging::write_image(request, transport, Box::new(sink), &cx.events, &cancel).map_err(|error| {
        match error.kind() {
            ErrorKind::OutOfSpace => Error::InvalidParameters {
                message: format!(
                    "image {} does not fit into the root partition of {} MiB: set root_gb higher, or use a smaller \
                     image: {}",
                    request.label,
                    wanted.root_mib,
                    error.report()
                ),
            },
            _ => {
                let start = layout.get(Role::Root).map_or(0, |root| root.start_byte);
                let name = &target.disk().name;
                disk_error(&format!("root partition of {name}, from its byte {start}"), &error)
            }
        }
    })
}

/// Writes what lies around the root partition, and the partition table last.
fn prepare(
    cx: &Context,
    wanted: &PartitionImage,
    config_drive: Option<&[u8]>,
    make_ephemeral: bool,
    layout: &Layout,
    target: &Target,
) -> Result<Table, Error> {
    let wrong = |error: disk::Error| failed(target, &error);
    if let Some(esp) = layout.get(Role::Esp) {
        format::make_esp(target, esp, ESP_LABEL).map_err(wrong)?;
    }
    if let (Some(partition), Some(bytes)) = (layout.get(Role::ConfigDrive), config_drive) {
        write_config_drive(cx, target, partition, bytes)?;
    }
    if let Some(swap) = layout.get(Role::Swap) {
        format::make_swap(target, swap, SWAP_LABEL).map_err(wrong)?;
    }
    if let Some(ephemeral) = layout.get(Role::Ephemeral).filter(|_| make_ephemeral) {
        tracing::info!(
            device = target.disk().name,
            partition = ephemeral.number,
            "making an ext4 file system"
        );
        format::make_ext4(target, ephemeral, ephemeral::LABEL).map_err(wrong)?;
    }
    if wanted.preserve_ephemeral {
        return target.table().map_err(wrong);
    }
    write_table(target, layout).map_err(wrong)
}

fn write_config_drive(cx: &Context, target: &Target, partition: &Planned, bytes: &[u8]) -> Result<(), Error> {
    let started = Instant::now();
    let device = target.disk().name.clone();
    cx.events.emit(EventKind::PhaseStarted { phase: Phase::ConfigDrive, subject: device.clone() });
    tracing::info!(
        device,
        partition = partition.number,
        size_bytes = bytes.len(),
        "writing the config drive"
    );
    format::write_partition(target, partition, bytes).map_err(|error| {
        let message = format!("writing the config drive to {device}: {}", hwm::chain(&error));
        cx.events.emit(EventKind::Failed { phase: Phase::ConfigDrive, message: message.clone() });
        Error::Deployment { message }
    })?;
    cx.events.emit(EventKind::PhaseFinished {
        phase: Phase::ConfigDrive,
        seconds: started.elapsed().as_secs_f64(),
        bytes: u64::try_from(bytes.len()).ok(),
    });
    Ok(())
}

fn failed(target: &Target, error: &disk::Error) -> Error {
    Error::Failed { message: format!("partitioning {}: {}", target.disk().name, hwm::chain(error)) }
}
