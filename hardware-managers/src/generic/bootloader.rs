//! `image.install_bootloader`: firmware boot entries on UEFI; the image's own grub for partition images, and inside arrays on BIOS.
//!
//! Source: data plane page, 5.1. Running the image's grub is refused unless the conductor enables it, as upstream does.

use std::time::Instant;

use boot::{Firmware, Outcome, Place};
use disk::table::Table;
use disk::{Device, Patience, md};
use events::{EventKind, Phase};
use hwm::{Context, Error};

use super::{grub, raid, root_disk};
use crate::deployment::{Deployed, InstallBootloader};
use crate::settings::Settings;

/// **Changes firmware boot entries** so that the written disk boots next.
pub(crate) fn install(
    cx: &Context,
    settings: &Settings,
    deployed: Option<&Deployed>,
    request: &InstallBootloader,
) -> Result<(), Error> {
    let ignore = request.ignore_bootloader_failure.unwrap_or(settings.ignore_bootloader_failure);
    let booted = if cx.host.is_uefi() { "uefi" } else { "bios" };
    if let Some(wanted) = request.target_boot_mode.as_deref()
        && wanted != booted
    {
        tracing::warn!(wanted, booted, "the boot mode asked for is not the one this ramdisk was started in");
    }
    match attempt(cx, settings, deployed, request) {
        Err(error) if ignore => {
            tracing::warn!(error = hwm::chain(&error), "no boot entry was made; failures are to be ignored");
            Ok(())
        }
        result => result,
    }
}

fn attempt(
    cx: &Context,
    settings: &Settings,
    deployed: Option<&Deployed>,
    request: &InstallBootloader,
) -> Result<(), Error> {
    let root_uuid = request.root_uuid.as_deref().filter(|uuid| !matches!(*uuid, "" | "0x00000000"));
    let is_uefi = cx.host.is_uefi();
    // The disk signature of a whole-disk image looks like a root's UUID to the conductor.
    let brings_loader =
        root_uuid.is_none() || deployed.is_some_and(|deployed| deployed.partition_uuids.is_none());
    let array = if is_uefi { None } else { array_on_bios(cx, settings, deployed)? };
    if !is_uefi && brings_loader && array.is_none() {
        tracing::info!("a whole-disk image brings its own boot loader for BIOS: nothing to do");
        return Ok(());
    }
    let may_run_grub = settings.enable_bios_bootloader_install && (!brings_loader || array.is_some());
    if !is_uefi && !may_run_grub {
        return Err(array.map_or_else(grub_is_disabled, |array| grub_in_arrays_is_disabled(&array.device)));
    }
    let disk = match deployed {
        Some(deployed) => deployed.disk.clone(),
        None => root_disk::wait(cx, settings)?,
    };
    let started = Instant::now();
    cx.events.emit(EventKind::PhaseStarted { phase: Phase::BootEntry, subject: disk.name.clone() });
    tracing::info!(device = disk.name, "making the disk bootable");
    let patience = settings.partitioning.patience();
    let may_run_grub = may_run_grub.then_some(patience);
    let result = match (array, may_run_grub) {
        (Some(array), Some(patience)) => grub_below(cx, settings, &array, request, patience),
        (_, may_run_grub) => make_bootable(cx, settings, &disk, request, root_uuid.is_none(), may_run_grub),
    };
    cx.events.emit(match &result {
        Ok(()) => EventKind::PhaseFinished {
            phase: Phase::BootEntry,
            seconds: started.elapsed().as_secs_f64(),
            bytes: None,
        },
        Err(error) => EventKind::Failed { phase: Phase::BootEntry, message: hwm::chain(error) },
    });
    result
}

fn make_bootable(
    cx: &Context,
    settings: &Settings,
    disk: &wire::Disk,
    request: &InstallBootloader,
    is_whole_disk: bool,
    may_run_grub: Option<Patience>,
) -> Result<(), Error> {
    let missing = match boot_entries(cx, settings, disk, request)? {
        Entries::Made => return Ok(()),
        Entries::NotUefi => None,
        Entries::NoLoader(reasons) => Some(reasons),
    };
    if is_whole_disk {
        return missing.map_or(Ok(()), |reasons| Err(nothing_boots(&disk.name, &reasons)));
    }
    let entries = || Ok(boot_entries(cx, settings, disk, request)? == Entries::Made);
    let Some(patience) = may_run_grub else { return Err(grub_is_disabled()) };
    grub::Job { cx, device: &disk.name, request, patience, boot_entries: &entries, below: None }.run()
}

/// The array that the image lies in, on a machine whose firmware can not read it.
fn array_on_bios(
    cx: &Context,
    settings: &Settings,
    deployed: Option<&Deployed>,
) -> Result<Option<md::Array>, Error> {
    let listing = |error| Error::other("listing arrays", error);
    if md::arrays(&cx.host).map_err(listing)?.is_empty() {
        return Ok(None);
    }
    match deployed {
        Some(deployed) => raid::array_of(cx, &deployed.disk.name),
        None => raid::array_of(cx, &root_disk::wait(cx, settings)?.name),
    }
}

/// **Installs the image's grub on each disk below an array.**
fn grub_below(
    cx: &Context,
    settings: &Settings,
    array: &md::Array,
    request: &InstallBootloader,
    patience: Patience,
) -> Result<(), Error> {
    let make_room = || raid::below::make_room(cx, settings, array);
    let device = &array.device;
    grub::Job { cx, device, request, patience, boot_entries: &|| Ok(false), below: Some(&make_room) }.run()
}

/// What came of making firmware boot entries.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entries {
    /// There is at least one.
    Made,
    /// The ramdisk was not started by UEFI.
    NotUefi,
    /// No EFI system partition holds a boot loader for this firmware; the reason for each partition.
    NoLoader(String),
}

/// Makes firmware boot entries.
fn boot_entries(
    cx: &Context,
    settings: &Settings,
    disk: &wire::Disk,
    request: &InstallBootloader,
) -> Result<Entries, Error> {
    let device = cx.host.path(&disk.name);
    let table = Table::read_device(&device)
        .map_err(|error| Error::other(format!("reading the partition table of {}", disk.name), error))?;
    if let Some(array) = raid::array_of(cx, &disk.name)?
        && cx.host.is_uefi()
        && let Some(source) = table.esp()
    {
        return mirrored_entries(cx, settings, disk, &array, source);
    }
    let esp_uuid = request.efi_system_part_uuid.as_deref();
    let outcome = boot::install_efi_entries(&cx.host, &device, &table, esp_uuid)
        .map_err(|error| Error::other(format!("making boot entries for {}", disk.name), error))?;
    match outcome {
        Outcome::Installed { partition, made } => {
            let names: Vec<String> =
                made.entries.iter().map(|entry| format!("{} ({})", entry.label, entry.path)).collect();
            let (names, removed) = (names.join(", "), made.removed.len());
            tracing::info!(device = disk.name, partition, made = names, removed, "boot entries made");
            Ok(Entries::Made)
        }
        Outcome::NotUefi => Ok(Entries::NotUefi),
        Outcome::NoEsp => Err(Error::DeviceNotFound {
            message: format!(
                "{} has no EFI system partition: deploy an image that boots with UEFI, or boot the node in BIOS mode",
                disk.name
            ),
        }),
        Outcome::NoLoader { reasons } => {
            let reasons = reasons.join("; ");
            tracing::warn!(device = disk.name, reasons, "no boot loader was found: no boot entry is made");
            Ok(Entries::NoLoader(reasons))
        }
    }
}

/// **Puts an EFI system partition on each disk of an array**, and makes a boot entry for each of them: the firmware does not know
/// arrays, and any of the disks may fail.
fn mirrored_entries(
    cx: &Context,
    settings: &Settings,
    disk: &wire::Disk,
    array: &disk::md::Array,
    source: &disk::table::Partition,
) -> Result<Entries, Error> {
    let esp = raid::esp::mirror(cx, settings, array, source)?;
    let region = Device::open(&cx.host.path(&esp.device))
        .map_err(|error| Error::other(format!("reading {}", esp.device), error))?;
    let loaders = boot::loaders::find(&region, Firmware::detect(&cx.host))
        .map_err(|error| Error::other(format!("looking for boot loaders on {}", esp.device), error))?
        .into_loaders();
    if loaders.is_empty() {
        return Ok(Entries::NoLoader(format!("{}: it holds no known boot loader", esp.device)));
    }
    let members = esp.members.iter().enumerate();
    let places: Vec<Place> =
        members.map(|(index, (table, part))| Place::mirror(table, part, index)).collect();
    let made = boot::make_entries(&cx.host, &loaders, &places)
        .map_err(|error| Error::other(format!("making boot entries for {}", disk.name), error))?;
    let names: Vec<String> =
        made.entries.iter().map(|entry| format!("{} ({})", entry.label, entry.path)).collect();
    tracing::info!(
        device = disk.name,
        made = names.join(", "),
        removed = made.removed.len(),
        "boot entries made"
    );
    Ok(Entries::Made)
}

/// An image that the firmware would not start.
fn nothing_boots(device: &str, reasons: &str) -> Error {
    Error::InvalidImage {
        message: format!(
            "no EFI system partition of {device} holds a boot loader that this machine's firmware can start ({reasons}): deploy an \
             image that boots with UEFI on this architecture, or set ignore_bootloader_failure where something else starts it"
        ),
    }
}

/// To say so now is better than a machine that does not come back.
fn grub_in_arrays_is_disabled(array: &str) -> Error {
    Error::InvalidImage {
        message: format!(
            "{array} is a software RAID, and BIOS does not find the boot loader of an image inside one. To have the image's own grub \
             installed on each of its disks is disabled, for it runs programs of the image in the ramdisk: set \
             enable_bios_bootloader_install in the conductor's [agent] section; or start the node in UEFI mode, where each disk gets \
             an EFI system partition of its own; or set ignore_bootloader_failure where something else starts it"
        ),
    }
}

fn grub_is_disabled() -> Error {
    Error::InvalidImage {
        message: "installing a boot loader with the image's own grub is disabled, for it runs programs of the image in the \
                  ramdisk: deploy a whole-disk image, or set enable_bios_bootloader_install in the conductor's [agent] section"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;

    /// A machine with one disk of 8 GiB, of which the first 8 MiB are there: its contents, or nothing but zeroes.
    fn machine(is_uefi: bool, image: &[u8]) -> Fixture {
        let mut image = image.to_vec();
        image.resize(8 << 20, 0);
        let machine = Fixture::new().disk("sda", 8 << 30).bytes("/dev/sda", &image);
        if is_uefi { machine.directory("/sys/firmware/efi/efivars") } else { machine }
    }

    fn run(
        machine: &Fixture,
        request: &InstallBootloader,
        is_deployed: bool,
    ) -> (Result<(), Error>, Context) {
        run_with(machine, request, is_deployed, &Settings::default())
    }

    fn run_with(
        machine: &Fixture,
        request: &InstallBootloader,
        is_deployed: bool,
        settings: &Settings,
    ) -> (Result<(), Error>, Context) {
        let cx = Context::new(machine.host(), events::Events::default());
        let deployed = is_deployed.then(|| Deployed {
            disk: wire::Disk { name: "/dev/sda".into(), size: 8 << 20, ..wire::Disk::default() },
            root_uuid: "0x1a2b3c4d".into(),
            partitions: 1,
            partition_uuids: None,
            config_drive: false,
            written: imaging::Written {
                published_bytes: 0,
                virtual_size: 0,
                digest: String::new(),
                source: String::new(),
                resumed: 0,
                restarted: 0,
                data_bytes: 0,
                zeroed_bytes: 0,
                seconds: 0.0,
            },
        });
        (install(&cx, settings, deployed.as_ref(), request), cx)
    }

    fn request(root_uuid: Option<&str>, ignore: Option<bool>) -> InstallBootloader {
        InstallBootloader {
            root_uuid: root_uuid.map(str::to_owned),
            ignore_bootloader_failure: ignore,
            ..InstallBootloader::default()
        }
    }

    #[test]
    fn on_bios_a_whole_disk_image_needs_nothing_and_grub_is_refused() {
        let bios = machine(false, &[]);
        for whole in [None, Some("0x00000000")] {
            assert!(run(&bios, &request(whole, None), false).0.is_ok());
        }
        assert!(run(&bios, &request(Some("0x1a2b3c4d"), None), true).0.is_ok());
        let refused = run(&bios, &request(Some("0x1a2b3c4d"), None), false).0;
        assert!(matches!(refused, Err(Error::InvalidImage { .. })), "{refused:?}");
        assert!(run(&bios, &request(Some("0x1a2b3c4d"), Some(true)), false).0.is_ok());
    }

    #[test]
    fn on_bios_a_whole_disk_image_in_an_array_is_told_not_to_boot() {
        let member = Fixture::new().disk("sda", 8 << 30).bytes("/dev/sda", &[0; 4096]);
        let bios = member.directory("/sys/block/sda/md").directory("/sys/block/sda/slaves/sdb1");
        let (result, _) = run(&bios, &request(None, None), true);
        let Err(Error::InvalidImage { message }) = result else { panic!("{result:?}") };
        for words in ["/dev/sda is a software RAID", "enable_bios_bootloader_install", "UEFI"] {
            assert!(message.contains(words), "{message}");
        }
        assert!(run(&bios, &request(None, Some(true)), true).0.is_ok());
    }

    #[test]
    fn on_uefi_a_disk_without_esp_is_not_found_unless_failures_are_ignored() {
        let mut image = vec![0; 512];
        image[510..].copy_from_slice(&[0x55, 0xaa]);
        image[450] = 0x83;
        image[454] = 8; // start
        image[458] = 8; // sectors
        let uefi = machine(true, &image);
        let (result, cx) = run(&uefi, &request(None, None), true);
        assert!(matches!(result, Err(Error::DeviceNotFound { .. })), "{result:?}");
        let kinds: Vec<_> = cx.events.after(0, 9).events.into_iter().map(|event| event.kind).collect();
        assert!(matches!(kinds.last(), Some(EventKind::Failed { phase: Phase::BootEntry, .. })), "{kinds:?}");
        assert!(run(&uefi, &request(None, Some(true)), true).0.is_ok());
    }

    #[test]
    fn what_the_conductor_says_about_failures_beats_the_configuration() {
        let bios = machine(false, &[]);
        for (argument, configured, is_ignored) in
            [(None, false, false), (None, true, true), (Some(false), true, false), (Some(true), false, true)]
        {
            let settings = Settings { ignore_bootloader_failure: configured, ..Settings::default() };
            let (result, _) = run_with(&bios, &request(Some("0x1a2b3c4d"), argument), false, &settings);
            assert_eq!(result.is_ok(), is_ignored, "{argument:?} {configured}");
        }
    }

    #[test]
    fn another_boot_mode_than_the_ramdisks_is_no_reason_to_fail() {
        for (is_uefi, wanted) in [(false, "uefi"), (false, "bios"), (false, "other")] {
            let request = InstallBootloader { target_boot_mode: Some(wanted.into()), ..request(None, None) };
            assert!(run(&machine(is_uefi, &[]), &request, true).0.is_ok(), "{wanted}");
        }
    }

    /// A FAT without a known loader: nothing would start a whole-disk image, a partition image needs its grub.
    #[test]
    fn on_uefi_an_esp_without_a_loader_fails_the_deployment_unless_failures_are_ignored() {
        let mut image = vec![0; 512];
        image[510..].copy_from_slice(&[0x55, 0xaa]);
        image[450] = 0xef;
        image[454..458].copy_from_slice(&2048u32.to_le_bytes());
        image[458..462].copy_from_slice(&8192u32.to_le_bytes());
        image.resize(1 << 20, 0);
        let mut boot = vec![0; 512];
        boot[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        boot[11..17].copy_from_slice(&[0, 2, 4, 1, 0, 2]); // sector, cluster, reserved, tables
        boot[17..19].copy_from_slice(&512u16.to_le_bytes());
        boot[19..21].copy_from_slice(&8192u16.to_le_bytes());
        boot[21] = 0xf8;
        boot[22..24].copy_from_slice(&8u16.to_le_bytes());
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        image.extend(boot);
        let uefi = machine(true, &image);
        for whole in [None, Some("0x00000000")] {
            let (result, _) = run(&uefi, &request(whole, None), false);
            let Err(Error::InvalidImage { message }) = result else { panic!("{result:?}") };
            assert!(message.contains("partition 1: it holds no known boot loader"), "{message}");
            assert!(message.contains("ignore_bootloader_failure"), "{message}");
            assert!(run(&uefi, &request(whole, Some(true)), false).0.is_ok());
        }
        let refused = run(&uefi, &request(Some("5f0e9c1e-1ab0-4a11-9d37-fe221c000001"), None), false).0;
        let Err(Error::InvalidImage { message }) = refused else { panic!("{refused:?}") };
        assert!(message.contains("enable_bios_bootloader_install"), "{message}");
    }
}
