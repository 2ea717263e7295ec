//! Where the partitions of a partition image go: which there are, in which order, how large. Pure.
//!
//! Source: data plane page, 3.2. The root partition is last, so that the installed system can grow it.

use uuid::{Uuid, uuid};

use crate::table::{BIOS_BOOT_TYPE, ESP_TYPE, LINUX_FILE_SYSTEM_TYPE, PartitionType, Table};

/// Linux swap.
const SWAP_TYPE: Uuid = uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f");
/// Member of a Linux software array.
const ARRAY_MEMBER_TYPE: Uuid = uuid!("a19d880f-05fc-4d3b-a006-743f0f84911e");
/// Where the firmware of POWER machines finds its boot loader.
const PREP_TYPE: Uuid = uuid!("9e1a2d38-c612-4316-aa26-8b49521e5a8b");

const MIB: u64 = 1 << 20;
/// Size of a POWER machine's boot partition: that of Ironic's agent.
const PREP_MIB: u64 = 8;
/// Where the first partition starts.
const START_MIB: u64 = 1;

/// What a partition is for. The order is the order on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// EFI system partition.
    Esp,
    /// Room for grub on a GPT disk that boots with BIOS.
    BiosBoot,
    /// Room for the boot loader of a POWER machine.
    Prep,
    /// Data that outlives a rebuild.
    Ephemeral,
    /// Swap space.
    Swap,
    /// The config drive.
    ConfigDrive,
    /// The image.
    Root,
    /// A member of a software array.
    ArrayMember,
}

impl Role {
    /// The key in the answer of `get_partition_uuids`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Esp => "efi system partition",
            Self::BiosBoot => "BIOS Boot partition",
            Self::Prep => "PReP Boot partition",
            Self::Ephemeral => "ephemeral",
            Self::Swap => "swap",
            Self::ConfigDrive => "configdrive",
            Self::Root => "root",
            Self::ArrayMember => "array member",
        }
    }
}

/// Which kind of partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// GUID partition table.
    Gpt,
    /// Master boot record.
    Mbr,
}

/// What the disk shall hold. Sizes in MiB; 0 for a partition that is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// Kind of partition table.
    pub label: Label,
    /// Whether the machine boots with UEFI.
    pub is_uefi: bool,
    /// Whether it is a POWER machine.
    pub is_power: bool,
    /// EFI system partition, where one is needed.
    pub esp_mib: u64,
    /// BIOS boot partition, where one is needed.
    pub bios_boot_mib: u64,
    /// Root file system.
    pub root_mib: u64,
    /// Swap.
    pub swap_mib: u64,
    /// Ephemeral file system.
    pub ephemeral_mib: u64,
    /// Config drive.
    pub config_drive_mib: u64,
}

/// A partition to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What it is for.
    pub role: Role,
    /// From 1.
    pub number: u32,
    /// Where it starts, in bytes from the start of the disk.
    pub start_byte: u64,
    /// Its size in bytes.
    pub size_byte: u64,
    /// Its type in the table.
    pub kind: PartitionType,
    /// Whether the MBR marks it active.
    pub is_active: bool,
}

impl Planned {
    /// A partition of the type that its role has in this kind of table.
    pub fn new(role: Role, label: Label, number: u32, start_byte: u64, size_byte: u64) -> Self {
        Self { role, number, start_byte, size_byte, kind: kind(role, label), is_active: false }
    }

    /// The first byte after it.
    pub fn end_byte(&self) -> u64 {
        self.start_byte.saturating_add(self.size_byte)
    }
}

/// All partitions to make, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Kind of partition table.
    pub label: Label,
    /// The partitions.
    pub partitions: Vec<Planned>,
}

impl Layout {
    /// The layout for a disk of this size.
    ///
    /// # Errors
    /// What does not fit, as a clause.
    pub fn plan(wishes: &Wishes, size_bytes: u64, sector_bytes: u32) -> Result<Self, String> {
        let gpt = wishes.label == Label::Gpt;
        let power = wishes.is_power && !wishes.is_uefi;
        let when = |condition: bool, mib: u64| if condition { mib } else { 0 };
        let sizes = [
            (Role::Esp, when(wishes.is_uefi, wishes.esp_mib)),
            (Role::BiosBoot, when(gpt && !wishes.is_uefi && !wishes.is_power, wishes.bios_boot_mib)),
            (Role::Prep, when(power, PREP_MIB)),
            (Role::Ephemeral, wishes.ephemeral_mib),
            (Role::Swap, wishes.swap_mib),
            (Role::ConfigDrive, wishes.config_drive_mib),
            (Role::Root, wishes.root_mib),
        ];
        if wishes.root_mib == 0 {
            return Err("the root partition has no size: set root_gb of the node's instance".into());
        }
        let mut partitions = Vec::new();
        let mut at = START_MIB;
        for ((role, mib), number) in sizes.into_iter().filter(|(_, mib)| *mib > 0).zip(1u32..) {
            let end = at.checked_add(mib).filter(|end| end.checked_mul(MIB).is_some());
            let end = end.ok_or_else(|| format!("the {} partition is absurdly large", role.key()))?;
            partitions.push(Planned {
                role,
                number,
                start_byte: at * MIB,
                size_byte: mib * MIB,
                kind: kind(role, wishes.label),
                is_active: !gpt
                    && match role {
                        Role::Root => !wishes.is_power,
                        Role::Prep => true,
                        _ => false,
                    },
            });
            at = end;
        }
        let layout = Self { label: wishes.label, partitions };
        layout.check(size_bytes, sector_bytes)?;
        Ok(layout)
    }

    fn check(&self, size_bytes: u64, sector_bytes: u32) -> Result<(), String> {
        let sector = u64::from(sector_bytes);
        let end = self.partitions.iter().map(Planned::end_byte).max().unwrap_or_default();
        let usable = match self.label {
            // The backup of the table: 16 KiB of entries and a sector of header.
            Label::Gpt => size_bytes.saturating_sub((16 << 10) + sector),
            Label::Mbr => size_bytes,
        };
        if end > usable {
            return Err(format!(
                "the partitions need {} MiB, the disk has {} MiB: ask for smaller ones (root_gb, ephemeral_gb, swap_mb) or \
                 use a larger disk",
                end.div_ceil(MIB),
                usable / MIB
            ));
        }
        if self.label == Label::Mbr {
            if self.partitions.len() > 4 {
                return Err(format!(
                    "{} partitions do not fit into an MBR, which has room for 4: set the capability disk_label to gpt",
                    self.partitions.len()
                ));
            }
            if end / sector > u64::from(u32::MAX) {
                return Err("the partitions reach beyond what an MBR can address: set the capability \
                            disk_label to gpt"
                    .into());
            }
        }
        Ok(())
    }

    /// The partition for something.
    pub fn get(&self, role: Role) -> Option<&Planned> {
        self.partitions.iter().find(|partition| partition.role == role)
    }

    /// The same partitions where they lie on a disk that has them already: what a rebuild that preserves the ephemeral
    /// partition needs. Its place must be exactly this; the others must be there with the same types, and large enough, for
    /// the installed system may have grown its own.
    ///
    /// # Errors
    /// What differs, as a clause.
    pub fn adopt(&self, table: &Table) -> Result<Self, String> {
        let expected = match self.label {
            Label::Gpt => "gpt",
            Label::Mbr => "dos",
        };
        if table.kind() != expected {
            return Err(format!("its kind is {}, expected is {expected}", table.kind()));
        }
        if table.partitions().len() != self.partitions.len() {
            return Err(format!(
                "it has {} partitions, expected are {}",
                table.partitions().len(),
                self.partitions.len()
            ));
        }
        let mut adopted = self.clone();
        for planned in &mut adopted.partitions {
            let found = table.partitions().iter().find(|found| found.number == planned.number);
            let differs = |what: &str| {
                Err(format!(
                    "partition {} ({}) {what} than a deployment with these sizes would make it",
                    planned.number,
                    planned.role.key()
                ))
            };
            match found {
                None => {
                    return Err(format!("partition {} ({}) is missing", planned.number, planned.role.key()));
                }
                Some(found) if found.kind != planned.kind => return differs("has another type"),
                Some(found)
                    if planned.role == Role::Ephemeral
                        && (found.start_byte, found.size_byte) != (planned.start_byte, planned.size_byte) =>
                {
                    return differs("lies elsewhere or has another size");
                }
                Some(found) if found.size_byte < planned.size_byte => return differs("is smaller"),
                Some(found) => {
                    (planned.start_byte, planned.size_byte) = (found.start_byte, found.size_byte);
                }
            }
        }
        Ok(adopted)
    }
}

fn kind(role: Role, label: Label) -> PartitionType {
    let (guid, id) = match role {
        Role::Esp => (ESP_TYPE, crate::table::ESP_MBR_TYPE),
        Role::BiosBoot => (BIOS_BOOT_TYPE, 0x83),
        Role::Prep => (PREP_TYPE, 0x41),
        Role::Swap => (SWAP_TYPE, 0x82),
        Role::ArrayMember => (ARRAY_MEMBER_TYPE, 0xfd),
        Role::Ephemeral | Role::ConfigDrive | Role::Root => (LINUX_FILE_SYSTEM_TYPE, 0x83),
    };
    match label {
        Label::Gpt => PartitionType::Guid(guid),
        Label::Mbr => PartitionType::Id(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Partition;
    use proptest::prelude::*;

    const PLAIN: Wishes = Wishes {
        label: Label::Mbr,
        is_uefi: false,
        is_power: false,
        esp_mib: 550,
        bios_boot_mib: 1,
        root_mib: 1024,
        swap_mib: 0,
        ephemeral_mib: 0,
        config_drive_mib: 0,
    };

    /// Role, start and end in MiB.
    fn places(wishes: &Wishes) -> Vec<(Role, u64, u64)> {
        let layout = Layout::plan(wishes, 100 << 30, 512).unwrap();
        layout.partitions.iter().map(|p| (p.role, p.start_byte / MIB, p.end_byte() / MIB)).collect()
    }

    #[test]
    fn order_and_sizes_are_those_of_ironics_agent() {
        use Role::*;
        assert_eq!(places(&PLAIN), [(Root, 1, 1025)]);
        let full = Wishes { swap_mib: 64, ephemeral_mib: 2048, config_drive_mib: 2, ..PLAIN };
        assert_eq!(
            places(&full),
            [(Ephemeral, 1, 2049), (Swap, 2049, 2113), (ConfigDrive, 2113, 2115), (Root, 2115, 3139)]
        );
        let uefi = Wishes { label: Label::Gpt, is_uefi: true, ..full };
        assert_eq!(
            places(&uefi),
            [
                (Esp, 1, 551),
                (Ephemeral, 551, 2599),
                (Swap, 2599, 2663),
                (ConfigDrive, 2663, 2665),
                (Root, 2665, 3689)
            ]
        );
        let bios_gpt = Wishes { label: Label::Gpt, swap_mib: 64, ..PLAIN };
        assert_eq!(places(&bios_gpt), [(BiosBoot, 1, 2), (Swap, 2, 66), (Root, 66, 1090)]);
        let power = Wishes { is_power: true, ..PLAIN };
        assert_eq!(places(&power), [(Prep, 1, 9), (Root, 9, 1033)]);
        let power_gpt = Wishes { label: Label::Gpt, ..power };
        assert_eq!(places(&power_gpt), [(Prep, 1, 9), (Root, 9, 1033)]);
    }

    /// Every combination, in words: size in MiB and type of each partition, `*` for the active one. The letters of a row are e:
    /// ephemeral, s: swap, d: config drive.
    #[test]
    fn every_combination_has_exactly_its_partitions() {
        const ESP: &str = "550 c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
        const DATA: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
        const SWAP: &str = "64 0657fd6d-a4ab-43c4-84e5-0933c84b4f4f";
        const BIOS: &str = "1 21686148-6449-6e6f-744e-656564454649";
        const PREP: &str = "8 9e1a2d38-c612-4316-aa26-8b49521e5a8b";
        let on_gpt = |first: Option<&str>, extra: &str| -> Vec<String> {
            let first = first.map(str::to_owned).into_iter();
            let extra = extra.chars().map(|letter| match letter {
                'e' => format!("2048 {DATA}"),
                's' => SWAP.to_owned(),
                _ => format!("2 {DATA}"),
            });
            first.chain(extra).chain([format!("1024 {DATA}")]).collect()
        };
        let on_mbr = |first: Option<&str>, extra: &str, active: &str| -> Vec<String> {
            let first = first.map(str::to_owned).into_iter();
            let extra = extra.chars().map(|letter| match letter {
                'e' => "2048 83",
                's' => "64 82",
                _ => "2 83",
            });
            first.chain(extra.map(Into::into)).chain([format!("1024 83{active}")]).collect()
        };
        for extra in ["", "e", "s", "d", "es", "ed", "sd", "esd"] {
            let has = |letter: char, mib: u64| if extra.contains(letter) { mib } else { 0 };
            let wishes = |label, is_uefi, is_power| Wishes {
                label,
                is_uefi,
                is_power,
                ephemeral_mib: has('e', 2048),
                swap_mib: has('s', 64),
                config_drive_mib: has('d', 2),
                ..PLAIN
            };
            for (what, wishes, expected) in [
                ("uefi", wishes(Label::Gpt, true, false), on_gpt(Some(ESP), extra)),
                ("uefi on power", wishes(Label::Gpt, true, true), on_gpt(Some(ESP), extra)),
                ("bios with gpt", wishes(Label::Gpt, false, false), on_gpt(Some(BIOS), extra)),
                ("bios", wishes(Label::Mbr, false, false), on_mbr(None, extra, "*")),
                ("power with gpt", wishes(Label::Gpt, false, true), on_gpt(Some(PREP), extra)),
                ("power", wishes(Label::Mbr, false, true), on_mbr(Some("8 41*"), extra, "")),
            ] {
                let planned = Layout::plan(&wishes, 100 << 30, 512);
                if expected.len() > 4 && wishes.label == Label::Mbr {
                    assert!(planned.unwrap_err().contains("room for 4"), "{what} {extra}");
                    continue;
                }
                let found: Vec<String> = planned
                    .unwrap()
                    .partitions
                    .iter()
                    .map(|p| {
                        let kind = match p.kind {
                            PartitionType::Guid(guid) => guid.to_string(),
                            PartitionType::Id(id) => format!("{id:x}"),
                        };
                        format!("{} {kind}{}", p.size_byte / MIB, if p.is_active { "*" } else { "" })
                    })
                    .collect();
                assert_eq!(found, expected, "{what} {extra}");
            }
        }
    }

    #[test]
    fn the_active_partition_of_an_mbr_is_the_one_that_boots() {
        let active = |wishes: &Wishes| -> Vec<Role> {
            let layout = Layout::plan(wishes, 100 << 30, 512).unwrap();
            layout.partitions.iter().filter(|p| p.is_active).map(|p| p.role).collect()
        };
        assert_eq!(active(&PLAIN), [Role::Root]);
        assert_eq!(active(&Wishes { is_power: true, ..PLAIN }), [Role::Prep]);
        assert_eq!(active(&Wishes { label: Label::Gpt, ..PLAIN }), []);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_to_do() {
        let refused = |wishes: Wishes, size| Layout::plan(&wishes, size, 512).unwrap_err();
        assert!(refused(PLAIN, 1024 * MIB).contains("need 1025 MiB, the disk has 1024 MiB"));
        assert!(Layout::plan(&PLAIN, 1025 * MIB, 512).is_ok());
        let gpt = Wishes { label: Label::Gpt, ..PLAIN };
        assert!(refused(gpt, 1026 * MIB).contains("larger disk"), "the backup table needs room too");
        assert!(refused(Wishes { root_mib: 0, ..PLAIN }, 1 << 40).contains("root_gb"));
        assert!(refused(Wishes { root_mib: 3 << 20, ..PLAIN }, 8 << 40).contains("disk_label"));
        let large = Wishes { root_mib: (2 << 20) - 2, ..PLAIN };
        assert!(Layout::plan(&large, 8 << 40, 512).is_ok(), "up to what an MBR can name");
        assert!(refused(Wishes { root_mib: 2 << 20, ..PLAIN }, 8 << 40).contains("disk_label"));
        assert!(
            Layout::plan(&Wishes { root_mib: 8 << 20, ..PLAIN }, 16 << 40, 4096).is_ok(),
            "larger sectors"
        );
        assert!(
            Layout::plan(&Wishes { root_mib: 8 << 20, label: Label::Gpt, ..PLAIN }, 16 << 40, 512).is_ok()
        );
        let five = Wishes { is_power: true, swap_mib: 1, ephemeral_mib: 1, config_drive_mib: 1, ..PLAIN };
        assert!(refused(five, 1 << 40).contains("room for 4"));
        assert!(refused(Wishes { swap_mib: u64::MAX, ..PLAIN }, 1 << 40).contains("absurdly"));
    }

    fn table(layout: &Layout) -> Table {
        let partitions = layout
            .partitions
            .iter()
            .map(|planned| Partition {
                number: planned.number,
                start_byte: planned.start_byte,
                size_byte: planned.size_byte,
                kind: planned.kind,
                name: String::new(),
                uuid: String::new(),
                bootable: planned.is_active,
            })
            .collect();
        Table::Mbr(crate::table::Mbr { signature: 1, sector_bytes: 512, partitions, is_protective: false })
    }

    #[test]
    fn a_rebuild_finds_its_partitions_again_or_refuses() {
        let wishes = Wishes { ephemeral_mib: 100, swap_mib: 64, ..PLAIN };
        let plan = Layout::plan(&wishes, 1 << 40, 512).unwrap();
        assert_eq!(plan.adopt(&table(&plan)), Ok(plan.clone()));
        let mut grown = plan.clone();
        grown.partitions[2].size_byte += 1 << 30;
        assert_eq!(plan.adopt(&table(&grown)), Ok(grown), "the installed system may grow its root");
        for (change, reason) in [
            (&(|p: &mut Planned| p.size_byte += MIB) as &dyn Fn(&mut Planned), "lies elsewhere"),
            (&|p| p.start_byte += MIB, "lies elsewhere"),
            (&|p| p.kind = PartitionType::Id(0x07), "another type"),
            (&|p| p.number = 4, "missing"),
        ] {
            let mut other = plan.clone();
            change(&mut other.partitions[0]);
            let error = plan.adopt(&table(&other)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let smaller = Wishes { root_mib: 512, ..wishes };
        let error = plan.adopt(&table(&Layout::plan(&smaller, 1 << 40, 512).unwrap())).unwrap_err();
        assert!(error.contains("smaller"), "{error}");
        let fewer = Wishes { swap_mib: 0, ..wishes };
        assert!(plan.adopt(&table(&Layout::plan(&fewer, 1 << 40, 512).unwrap())).is_err());
        assert!(plan.adopt(&Table::None).unwrap_err().contains("none"));
    }

    proptest! {
        #[test]
        fn partitions_never_overlap_and_stay_on_the_disk(
            uefi: bool, power: bool, gpt: bool, root in 0..5000u64, swap in 0..5000u64, ephemeral in 0..5000u64,
            drive in 0..65u64, size in 0..20_000 * MIB, large: bool,
        ) {
            let wishes = Wishes {
                label: if gpt { Label::Gpt } else { Label::Mbr }, is_uefi: uefi, is_power: power, esp_mib: 550, bios_boot_mib: 1,
                root_mib: root, swap_mib: swap, ephemeral_mib: ephemeral, config_drive_mib: drive,
            };
            if let Ok(layout) = Layout::plan(&wishes, size, if large { 4096 } else { 512 }) {
                let mut at = MIB;
                for (partition, number) in layout.partitions.iter().zip(1u32..) {
                    prop_assert_eq!((partition.start_byte, partition.number), (at, number));
                    at = partition.end_byte();
                }
                prop_assert!(at <= size);
                prop_assert_eq!(layout.partitions.last().map(|p| p.role), Some(Role::Root));
            }
        }
    }
}
