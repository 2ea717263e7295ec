//! What is done with an outsider's bytes when Ferric is fuzzed: one function a target, which panics when something is wrong.
//!
//! The fuzzing programs (`fuzz/`) and the replay of everything they found (`tests/replay.rs`, part of `make test`) call the same
//! functions, so they can not drift apart. Nothing here writes to a disk: images go to a disk in memory, and all connections end on
//! this machine.

mod disks;
mod firmware;
mod images;
#[cfg(feature = "agent")]
mod machine;
mod server;
mod structured;
mod words;

pub mod qcow2_image;

pub use images::written_disk;

/// Something that takes bytes from outside.
pub struct Target {
    /// Name of the program, of its folder of inputs and of those in `make fuzz TARGETS=`.
    pub name: &'static str,
    /// What reads the bytes.
    pub about: &'static str,
    /// The longest input that is worth trying, in bytes.
    pub longest: usize,
    run: fn(&[u8]),
}

macro_rules! targets {
    ($($(#[$gate:meta])* $name:literal, $longest:literal KiB, $run:path, $about:literal;)*) => {
        /// Every target.
        pub const TARGETS: &[Target] = &[
            $($(#[$gate])* Target { name: $name, about: $about, longest: $longest << 10, run: $run },)*
        ];
    };
}

targets! {
    "qcow2", 64 KiB, images::qcow2, "a whole qcow2 file, with and without Range requests";
    "qcow2_layout", 4 KiB, structured::qcow2_layout, "a sound qcow2 file of any layout, then changes to its tables";
    "undeclared", 36 KiB, images::undeclared, "an image of which no format is declared";
    "compressed", 16 KiB, images::compressed, "a raw image inside gzip, zstd, xz or bzip2";
    "http_answers", 4 KiB, images::http_answers, "what an image server answers, byte for byte";
    "oci_registry", 8 KiB, images::oci_registry, "what an OCI registry answers, byte for byte";
    "gpt", 64 KiB, structured::gpt, "GUID partition tables, their checksums made right";
    "mbr", 16 KiB, disks::partition_table, "master boot records and their logical partitions";
    "probe", 4 KiB, structured::probe, "recognising file systems and partition tables";
    "fat", 32 KiB, disks::fat, "files of a FAT file system";
    "iso9660", 32 KiB, structured::iso9660, "files of an ISO 9660 file system";
    "config_drive", 64 KiB, disks::config_drive, "config drives in every form, and making them anew";
    "root_device_hints", 2 KiB, words::root_device_hints, "root device hints, skip lists and allow-lists";
    "efi_variables", 2 KiB, firmware::variables, "boot entries and boot order of the firmware";
    "efi_loaders", 4 KiB, firmware::loaders, "CSV files of an EFI system partition";
    "signature", 1 KiB, words::signature, "minisign signatures";
    #[cfg(feature = "agent")]
    "checksum_file", 2 KiB, machine::checksum_file, "checksum files";
    #[cfg(feature = "agent")]
    "packets", 2 KiB, machine::packets, "DHCP, DHCPv6, router advertisements, mDNS, LLDP";
    #[cfg(feature = "agent")]
    "smbios", 4 KiB, machine::smbios, "the firmware's table of the machine's parts";
    #[cfg(feature = "agent")]
    "network_wishes", 4 KiB, machine::network_wishes, "kernel command lines and network_data.json";
    #[cfg(feature = "agent")]
    "commands", 8 KiB, machine::commands, "the conductor's commands";
    "words", 1 KiB, words::words, "digests, references, formats, keys";
}

/// Runs the target of this name. Says whether the input was looked at: one that is longer than the target's longest is not.
///
/// # Panics
/// Where the target finds something wrong, which is what it is for; and where no target has this name.
pub fn run(name: &str, data: &[u8]) -> bool {
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        panic!("there is no fuzz target {name}");
    };
    let taken = data.len() <= target.longest;
    if taken {
        (target.run)(data);
    }
    taken
}
