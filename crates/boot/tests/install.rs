//! From an image with an EFI system partition to boot entries, with a directory standing for efivarfs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod support;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boot::loaders::Loader;
use boot::{
    Made, MadeEntry, Outcome, Place, current_entries, delete_entry, device_path, efivars,
    install_efi_entries, make_entries,
};
use disk::table::Table;
use hadris_fat::FatDir;
use hadris_fat::format::FatTypeSelection;
use support::{Volume, fat, put_file};
use sys::Host;
use sys::fake::{Call, FakeRunner, RecordingKernel};

const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const SECTOR: u64 = 512;
const ESP_FIRST: u64 = 2048;

/// A machine with UEFI: an efivarfs with one foreign variable.
struct Machine {
    root: tempfile::TempDir,
    kernel: Arc<RecordingKernel>,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let machine = Self { root, kernel: Arc::default() };
        std::fs::create_dir_all(machine.variables()).unwrap();
        std::fs::write(machine.variables().join("SecureBoot-x"), [6, 0, 0, 0, 0]).unwrap();
        machine
    }

    fn host(&self) -> Host {
        Host::new(self.root.path(), Arc::new(FakeRunner::default()), self.kernel.clone())
    }

    fn variables(&self) -> PathBuf {
        self.root.path().join("sys/firmware/efi/efivars")
    }

    fn put(&self, name: &str, data: &[u8]) {
        let bytes = [&[7, 0, 0, 0], data].concat();
        std::fs::write(self.variables().join(format!("{name}-{GLOBAL}")), bytes).unwrap();
    }

    fn get(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.variables().join(format!("{name}-{GLOBAL}"))).unwrap()
    }
}

/// What Debian's images hold: the removable path and the distribution's directory with its CSV.
fn debian(volume: &Volume, root: &FatDir<'_, Cursor<Vec<u8>>>) {
    let efi = volume.create_dir(root, "EFI").unwrap();
    let removable = volume.create_dir(&efi, "BOOT").unwrap();
    put_file(volume, &removable, "BOOTX64.EFI", &vec![1; 100_000]);
    put_file(volume, &removable, "grubx64.efi", b"grub");
    let debian = volume.create_dir(&efi, "debian").unwrap();
    put_file(volume, &debian, "shimx64.efi", b"shim");
    let csv = "\u{feff}shimx64.efi,debian,,This is the boot entry for debian\n";
    let csv: Vec<u8> = csv.encode_utf16().flat_map(u16::to_le_bytes).collect();
    put_file(volume, &debian, "BOOTX64.CSV", &csv);
}

fn bare(volume: &Volume, root: &FatDir<'_, Cursor<Vec<u8>>>) {
    let efi = volume.create_dir(root, "EFI").unwrap();
    let removable = volume.create_dir(&efi, "boot").unwrap();
    put_file(volume, &removable, "bootx64.efi", b"x");
    put_file(volume, &removable, "winload.efi", b"y");
    put_file(volume, &removable, "bootaa64.efi", b"another architecture's");
}

fn gpt_disk(directory: &Path, esp: &[u8]) -> PathBuf {
    let path = directory.join("disk");
    let mut disk = Cursor::new(vec![0u8; esp.len() + (4 << 20)]);
    gpt::mbr::ProtectiveMBR::with_lb_size(0xffff_ffff).overwrite_lba0(&mut disk).unwrap();
    let mut table = gpt::GptConfig::new().writable(true).create_from_device(disk, None).unwrap();
    let sectors = u64::try_from(esp.len()).unwrap() / SECTOR;
    table.add_partition_at("esp", 3, ESP_FIRST, sectors, gpt::partition_types::EFI, 0).unwrap();
    let mut disk = table.write().unwrap().into_inner();
    disk[usize::try_from(ESP_FIRST * SECTOR).unwrap()..][..esp.len()].copy_from_slice(esp);
    std::fs::write(&path, disk).unwrap();
    path
}

fn mbr_disk(directory: &Path, esp: &[u8], id: u8) -> PathBuf {
    let path = directory.join("disk");
    let mut disk = vec![0u8; usize::try_from(ESP_FIRST * SECTOR).unwrap()];
    disk[440..444].copy_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
    disk[446 + 4] = id;
    disk[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&u32::try_from(esp.len() / 512).unwrap().to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&disk).unwrap();
    file.write_all(esp).unwrap();
    path
}

#[test]
fn the_csv_of_the_distribution_decides_on_every_width_of_fat() {
    for (kind, mebibytes) in
        [(FatTypeSelection::Fat12, 4), (FatTypeSelection::Fat16, 32), (FatTypeSelection::Fat32, 64)]
    {
        let machine = Machine::new();
        machine.put("BootOrder", &[5, 0]);
        let disk = gpt_disk(machine.root.path(), &fat(kind, mebibytes, debian));
        let table = Table::read_device(&disk).unwrap();
        let outcome = install_efi_entries(&machine.host(), &disk, &table, None).unwrap();
        // The gpt crate writes the first partition as number 1 whatever number it was given.
        let made = MadeEntry { number: 0, label: "debian".into(), path: "\\EFI\\debian\\shimx64.efi".into() };
        let made = Made { entries: vec![made], removed: vec![] };
        assert_eq!(outcome, Outcome::Installed { partition: 1, made });
        assert_eq!(machine.get("BootOrder"), [7, 0, 0, 0, 0, 0, 5, 0]);
        let entries = current_entries(&machine.host()).unwrap();
        let esp = &table.partitions()[0];
        let sectors = esp.size_byte / SECTOR;
        assert_eq!(
            entries[0].path_text,
            format!("HD(1,GPT,{},0x800,0x{sectors:x})/File(\\EFI\\debian\\shimx64.efi)", esp.uuid)
        );
        assert_eq!(machine.get("Boot0000")[..4], [7, 0, 0, 0]);
    }
}

#[test]
fn without_a_csv_every_loader_gets_an_entry_and_the_last_is_first() {
    let machine = Machine::new();
    let disk = mbr_disk(machine.root.path(), &fat(FatTypeSelection::Fat16, 32, bare), 0xef);
    let table = Table::read_device(&disk).unwrap();
    let outcome = install_efi_entries(&machine.host(), &disk, &table, None).unwrap();
    let Outcome::Installed { made, .. } = outcome else { panic!("{outcome:?}") };
    let made: Vec<_> = made.entries.iter().map(|entry| (entry.label.as_str(), entry.path.as_str())).collect();
    assert_eq!(made, [("ironic1", "\\EFI\\boot\\bootx64.efi"), ("ironic2", "\\EFI\\boot\\winload.efi")]);
    assert_eq!(efivars::boot_order(&machine.host()).unwrap(), [1, 0]);
    let entries = current_entries(&machine.host()).unwrap();
    assert!(entries[0].path_text.starts_with("HD(1,MBR,0x1a2b3c4d,0x800,0x10000)/"), "{entries:?}");
}

#[test]
fn older_entries_of_the_same_name_are_replaced_and_others_stay() {
    let machine = Machine::new();
    let disk = gpt_disk(machine.root.path(), &fat(FatTypeSelection::Fat16, 32, debian));
    let table = Table::read_device(&disk).unwrap();
    install_efi_entries(&machine.host(), &disk, &table, None).unwrap();
    let first = machine.get("Boot0000");
    machine.put("Boot0001", &first[4..]);
    // The same name, but the firmware's own in-memory application: not to be touched.
    let path = [1, 3, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 4, 0];
    machine.put("Boot0002", &boot::LoadOption::new("debian", path.to_vec()).encode().unwrap());
    machine.put(
        "Boot0003",
        &boot::LoadOption::new("Debian", first[first.len() - 60..].to_vec()).encode().unwrap(),
    );
    machine.put("BootFFFF", b"damaged");
    machine.put("BootOrder", &[3, 0, 1, 0, 2, 0, 0, 0]);
    let outcome = install_efi_entries(&machine.host(), &disk, &table, None).unwrap();
    let Outcome::Installed { made, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(made.removed, [0, 1]);
    assert_eq!(made.entries[0].number, 0);
    assert_eq!(efivars::boot_order(&machine.host()).unwrap(), [0, 3, 2]);
    let numbers: Vec<_> = current_entries(&machine.host()).unwrap().iter().map(|e| e.number).collect();
    assert_eq!(numbers, [0, 2, 3]);
    let cleared = |name: &str| {
        let file = machine.variables().join(format!("{name}-{GLOBAL}"));
        machine.kernel.calls().contains(&Call::SetImmutable(file, false))
    };
    assert!(cleared("Boot0000") && cleared("BootOrder") && !cleared("Boot0003"));

    delete_entry(&machine.host(), 3).unwrap();
    assert_eq!(efivars::boot_order(&machine.host()).unwrap(), [0, 2]);
}

#[test]
fn what_stands_in_the_way_is_told_apart() {
    let machine = Machine::new();
    let esp = fat(FatTypeSelection::Fat16, 32, |_, _| {});
    let disk = gpt_disk(machine.root.path(), &esp);
    let table = Table::read_device(&disk).unwrap();
    let install = |host: &Host, disk: &Path, table: &Table, uuid: Option<&str>| {
        install_efi_entries(host, disk, table, uuid)
    };
    let reasons = vec!["partition 1: it holds no known boot loader".to_owned()];
    assert_eq!(install(&machine.host(), &disk, &table, None).unwrap(), Outcome::NoLoader { reasons });

    let bios = tempfile::tempdir().unwrap();
    let outcome = install(&sys::fake::host(bios.path()), &disk, &table, None).unwrap();
    assert_eq!(outcome, Outcome::NotUefi);

    let disk = mbr_disk(machine.root.path(), &fat(FatTypeSelection::Fat16, 32, debian), 0x0c);
    let table = Table::read_device(&disk).unwrap();
    assert_eq!(install(&machine.host(), &disk, &table, None).unwrap(), Outcome::NoEsp);
    let by_uuid = install(&machine.host(), &disk, &table, Some("1A2B3C4D-01")).unwrap();
    assert!(matches!(by_uuid, Outcome::Installed { partition: 1, .. }), "{by_uuid:?}");

    std::fs::remove_dir_all(machine.variables()).unwrap();
    let error = install(&machine.host(), &disk, &table, Some("1a2b3c4d-01")).unwrap_err().to_string();
    assert!(error.contains("is efivarfs mounted there?"), "{error}");

    // A partition that is marked as ESP and holds no FAT.
    let machine = Machine::new();
    let disk = mbr_disk(machine.root.path(), &vec![0u8; 1 << 20], 0xef);
    let table = Table::read_device(&disk).unwrap();
    let outcome = install(&machine.host(), &disk, &table, None).unwrap();
    let Outcome::NoLoader { reasons } = outcome else { panic!("{outcome:?}") };
    assert!(reasons[0].contains("partition 1: FAT file system: no boot sector"), "{reasons:?}");
}

/// A disk with these EFI system partitions of 16 MiB.
fn disk_of(directory: &Path, partitions: &[Vec<u8>]) -> PathBuf {
    let path = directory.join("disk");
    let mut disk = vec![0u8; usize::try_from(ESP_FIRST * SECTOR).unwrap()];
    for (slot, esp) in partitions.iter().enumerate() {
        let (first, sectors) = (disk.len() / 512, esp.len() / 512);
        let record = &mut disk[446 + slot * 16..462 + slot * 16];
        record[4] = 0xef;
        record[8..12].copy_from_slice(&u32::try_from(first).unwrap().to_le_bytes());
        record[12..16].copy_from_slice(&u32::try_from(sectors).unwrap().to_le_bytes());
        disk.extend(esp);
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&path, disk).unwrap();
    path
}

#[test]
fn next_system_partition_counts_where_the_first_boots_nothing() {
    type Fill<'a> = &'a dyn Fn(&Volume, &FatDir<'_, Cursor<Vec<u8>>>);
    let esp = |fill: Fill<'_>| fat(FatTypeSelection::Fat16, 16, |volume, root| fill(volume, root));
    let vendor = |files: &'static [(&str, &str)]| {
        esp(&move |volume, root| {
            let efi = volume.create_dir(root, "EFI").unwrap();
            let vendor = volume.create_dir(&efi, "vendor").unwrap();
            for (name, text) in files {
                let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
                put_file(volume, &vendor, name, &bytes);
            }
        })
    };
    let blank = vec![0u8; 16 << 20];
    let empty = esp(&|_, _| {});
    let no_loader = esp(&|volume, root| {
        volume.create_dir(root, "EFI").unwrap();
    });
    let dead = vendor(&[("BOOTX64.CSV", "gone.efi,dead"), ("bootx64.efi", "l")]);
    let good = vendor(&[("BOOTX64.CSV", "shimx64.efi,good"), ("shimx64.efi", "l")]);
    let plain = vendor(&[("bootx64.efi", "l")]);
    let other = vendor(&[("bootaa64.efi", "l")]);
    for (partitions, expected) in [
        (vec![&blank, &good], Some((2, "good"))),
        (vec![&empty, &good], Some((2, "good"))),
        (vec![&no_loader, &plain], Some((2, "ironic1"))),
        (vec![&other, &plain], Some((2, "ironic1"))),
        (vec![&dead, &good], Some((2, "good"))),
        (vec![&dead, &blank], Some((1, "ironic1"))),
        (vec![&dead, &plain], Some((2, "ironic1"))),
        (vec![&plain, &good], Some((1, "ironic1"))),
        (vec![&good, &plain], Some((1, "good"))),
        (vec![&blank, &empty, &other], None),
    ] {
        let machine = Machine::new();
        let partitions: Vec<Vec<u8>> = partitions.into_iter().cloned().collect();
        let disk = disk_of(machine.root.path(), &partitions);
        let table = Table::read_device(&disk).unwrap();
        match (install_efi_entries(&machine.host(), &disk, &table, None).unwrap(), expected) {
            (Outcome::Installed { partition, made }, Some((number, label))) => {
                assert_eq!((partition, made.entries[0].label.as_str()), (number, label));
                assert_eq!(made.entries.len(), 1);
            }
            (Outcome::NoLoader { reasons }, None) => assert_eq!(reasons.len(), 3, "{reasons:?}"),
            (outcome, expected) => panic!("{outcome:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn firmware_of_32_bits_gets_its_own_loader() {
    let machine = Machine::new();
    std::fs::write(machine.root.path().join("sys/firmware/efi/fw_platform_size"), "32\n").unwrap();
    let esp = fat(FatTypeSelection::Fat16, 16, |volume, root| {
        put_file(volume, root, "bootx64.efi", b"l");
        put_file(volume, root, "bootia32.efi", b"l");
    });
    let disk = disk_of(machine.root.path(), &[esp]);
    let table = Table::read_device(&disk).unwrap();
    let outcome = install_efi_entries(&machine.host(), &disk, &table, None).unwrap();
    let Outcome::Installed { made, .. } = outcome else { panic!("{outcome:?}") };
    let paths: Vec<_> = made.entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["\\bootia32.efi"]);
}

#[test]
fn a_mirrored_partition_gets_an_entry_on_every_disk_that_says_which() {
    let machine = Machine::new();
    let host = machine.host();
    let disk = gpt_disk(machine.root.path(), &fat(FatTypeSelection::Fat16, 32, debian));
    let first = Table::read_device(&disk).unwrap();
    let disk = mbr_disk(machine.root.path(), &fat(FatTypeSelection::Fat16, 32, debian), 0xef);
    let second = Table::read_device(&disk).unwrap();
    let places = [
        Place::mirror(&first, &first.partitions()[0], 0),
        Place::mirror(&second, &second.partitions()[0], 1),
    ];
    let loader = |label: Option<&str>, path: &str| Loader { label: label.map(Into::into), path: path.into() };
    let loaders = [loader(Some("debian"), "\\shimx64.efi"), loader(None, "\\bootx64.efi")];
    for _ in 0..2 {
        make_entries(&host, &loaders, &places).unwrap();
        let entries = current_entries(&host).unwrap();
        let labels: Vec<&str> = entries.iter().map(|entry| entry.option.description.as_str()).collect();
        let expected = [
            "debian (RAID, part0)",
            "ironic2 (RAID, part0)",
            "debian (RAID, part1)",
            "ironic2 (RAID, part1)",
        ];
        assert_eq!(labels, expected, "made again, they replace their namesakes");
        assert!(
            entries[0].path_text.starts_with("HD(1,GPT,") && entries[2].path_text.starts_with("HD(1,MBR,")
        );
    }
    assert_eq!(efivars::boot_order(&host).unwrap(), [3, 2, 1, 0]);
}

/// A file system of its own in the place of the variables; unmounted when dropped.
struct Store(PathBuf);

impl Store {
    /// `None`, with a word about it, where this may not mount.
    fn mount(machine: &Machine, options: &str) -> Option<Self> {
        let store = Self(machine.variables());
        if Self::run("/bin/mount", &["-t", "tmpfs", "-o", options, "store"], &store.0) {
            machine.put("Timeout", &[1, 0]);
            return Some(store);
        }
        std::mem::forget(store);
        let _ = std::io::stderr().write_all(b"SKIPPED: mounting needs root\n"); // past cargo's capture: it counts
        None
    }

    fn make_read_only(&self) {
        assert!(Self::run("/bin/mount", &["-o", "remount,ro"], &self.0));
    }

    fn names(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.0).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn run(program: &str, arguments: &[&str], place: &Path) -> bool {
        // The test itself stands for the one who mounts.
        #[allow(clippy::disallowed_methods)]
        let output = std::process::Command::new(program).args(arguments).arg(place).output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        assert!(Self::run("/bin/umount", &[], &self.0));
    }
}

#[test]
fn loop_a_store_that_is_full_or_read_only_is_told_with_what_to_do() {
    let machine = Machine::new();
    let disk = gpt_disk(machine.root.path(), &fat(FatTypeSelection::Fat16, 32, debian));
    let table = Table::read_device(&disk).unwrap();
    let fails = || install_efi_entries(&machine.host(), &disk, &table, None).unwrap_err().to_string();
    let only = [format!("Timeout-{GLOBAL}")];
    // Each variable takes a page. There is room for one; for an entry, but not for the order.
    for (room, variable) in [("size=4k", "Boot0000"), ("size=8k", "BootOrder")] {
        let Some(store) = Store::mount(&machine, room) else { return };
        let error = fails();
        assert!(error.contains(variable) && error.contains("store is full"), "{error}");
        assert!(error.contains("clean_uefi_nvram"), "{error}");
        assert_eq!(store.names(), only, "{room}: no entry without a place in the order is left");
    }
    let Some(store) = Store::mount(&machine, "size=1m") else { return };
    store.make_read_only();
    let error = fails();
    assert!(error.contains("mount it read-write"), "{error}");
    assert_eq!(store.names(), only);
}

#[test]
fn paths_of_other_makers_are_shown() {
    let nvme = [3, 23, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 4, 0];
    assert_eq!(device_path::text(&nvme), "NVMe(0x1)");
}
