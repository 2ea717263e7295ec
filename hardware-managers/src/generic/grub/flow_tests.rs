//! What happens to an image and to its EFI system partition, step by step: file systems are folders, programs are played.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sys::fake::{Call, RecordingKernel};
use sys::{CommandLine, Host, Output, RunError, Runner};

use super::*;

const ROOT: &str = "11111111-1111-1111-1111-111111111111";
const ESP: &str = "AAAA-BBBB";
const BOOT: &str = "chroot ROOT ";

/// Plays the programs of the image: writes down what is run, does what `act` does in the image's root.
struct Programs {
    ran: Mutex<Vec<String>>,
    act: fn(&Path, &[String]) -> Result<(), String>,
}

impl Runner for Programs {
    fn run(&self, command: &CommandLine) -> Result<Output, RunError> {
        let root = command.root.clone().unwrap();
        let shown = command.to_string().replace(root.to_str().unwrap(), "ROOT");
        let variables: Vec<_> =
            command.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.ran.lock().unwrap().push(format!(
            "{} [{}]",
            shown.trim_start_matches(BOOT),
            variables[1..].join(" ")
        ));
        match (self.act)(&root, &command.argv) {
            Ok(()) => Ok(Output::default()),
            Err(stderr) => Err(RunError::Failed { command: shown, status: "exit status: 1".into(), stderr }),
        }
    }
}

/// A machine with a GPT or MBR disk, a root and an ESP; what the job did to it.
struct Bench {
    folder: tempfile::TempDir,
    kernel: Arc<RecordingKernel>,
    programs: Arc<Programs>,
}

fn nothing(_: &Path, _: &[String]) -> Result<(), String> {
    Ok(())
}

/// As a real grub: leaves a loader on the ESP, a menu in its own folder.
fn grub(root: &Path, argv: &[String]) -> Result<(), String> {
    match argv.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "-o", menu] => {
            let menu = root.join(menu.trim_start_matches('/'));
            fs::create_dir_all(menu.parent().unwrap()).unwrap();
            fs::write(menu, "made menu").unwrap();
        }
        [_] => put(&root.join("boot/efi"), "EFI/debian/grubx64.efi", "grub"),
        _ => {}
    }
    Ok(())
}

fn put(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

impl Bench {
    /// `image`: files of the root file system with their text.
    fn new(image: &[(&str, &str)], act: fn(&Path, &[String]) -> Result<(), String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(&tree).unwrap();
        for (name, text) in image {
            put(&tree, name, text);
        }
        fs::create_dir_all(folder.path().join("machine/dev")).unwrap();
        fs::write(folder.path().join("machine/dev/sda"), disk()).unwrap();
        let esp = folder.path().join("esp");
        fs::create_dir_all(&esp).unwrap();
        let mut kernel = RecordingKernel::default();
        kernel.fill = Some(Box::new(move |request| match request.filesystem.as_str() {
            "ext4" => {
                let _ = fs::remove_dir(&request.target);
                std::os::unix::fs::symlink(&tree, &request.target).unwrap();
            }
            "vfat" => {
                let _ = fs::remove_dir(&request.target);
                std::os::unix::fs::symlink(&esp, &request.target).unwrap();
            }
            _ => {}
        }));
        let programs = Arc::new(Programs { ran: Mutex::default(), act });
        Self { folder, kernel: Arc::new(kernel), programs }
    }

    /// Runs the job; `has_loader` says whether entries could be made of what is on the ESP.
    fn run(&self, esp: Option<&str>, prep: Option<&str>) -> Result<(), Error> {
        let machine = self.folder.path().join("machine");
        let host = Host::new(&machine, Arc::clone(&self.programs) as _, Arc::clone(&self.kernel) as _);
        let cx = Context::new(host, events::Events::default());
        let request = InstallBootloader {
            root_uuid: Some(ROOT.into()),
            efi_system_part_uuid: esp.map(Into::into),
            prep_boot_part_uuid: prep.map(Into::into),
            ..InstallBootloader::default()
        };
        let esp = self.esp("EFI");
        let patience = disk::Patience { limit: std::time::Duration::ZERO, reread_attempts: 1 };
        let has_loader = || Ok(fs::read_dir(&esp).is_ok_and(|mut found| found.next().is_some()));
        let job = Job {
            cx: &cx,
            device: "/dev/sda",
            request: &request,
            patience,
            boot_entries: &has_loader,
            below: None,
        };
        // Not `run`: it waits for device nodes, which no test without a device can have.
        let result = job.install(&job.parts()?.unwrap());
        self.assert_unmounted();
        result
    }

    /// The same with the disk as an array on `sdx` and `sdy`; second, how often the disks below were changed.
    fn run_in_array(&self, root: Option<&str>) -> (Result<(), Error>, usize) {
        let machine = self.folder.path().join("machine");
        for node in NODES {
            fs::write(machine.join(node.trim_start_matches('/')), "").unwrap();
        }
        let host = Host::new(&machine, Arc::clone(&self.programs) as _, Arc::clone(&self.kernel) as _);
        let cx = Context::new(host, events::Events::default());
        let request = InstallBootloader { root_uuid: root.map(Into::into), ..InstallBootloader::default() };
        let patience = disk::Patience { limit: std::time::Duration::ZERO, reread_attempts: 1 };
        let changes = std::cell::Cell::new(0);
        let below = || {
            changes.set(changes.get() + 1);
            let [disks, nodes] = [["/dev/sdx", "/dev/sdy"], ["/dev/sdx1", "/dev/sdy1"]];
            let [disks, nodes] = [disks, nodes].map(|names| names.map(str::to_owned).to_vec());
            Ok(Below { disks, nodes, arrays: vec![ROOT.into()] })
        };
        let job = Job {
            cx: &cx,
            device: "/dev/sda",
            request: &request,
            patience,
            boot_entries: &|| Ok(false),
            below: Some(&below),
        };
        let result = job.parts().and_then(|parts| job.install(&parts.unwrap()));
        self.assert_unmounted();
        (result, changes.get())
    }

    /// What was shown to the image's programs, by the nodes' names.
    fn shown(&self) -> Vec<String> {
        let bound = |call: &Call| match call {
            Call::Mount(request) if request.is_bind => Some(request.source.file_name()?.to_str()?.to_owned()),
            _ => None,
        };
        self.kernel.calls().iter().filter_map(bound).collect()
    }

    fn esp(&self, name: &str) -> PathBuf {
        self.folder.path().join("esp").join(name)
    }

    fn image(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join("tree").join(name)).unwrap_or_default()
    }

    fn ran(&self) -> Vec<String> {
        self.programs.ran.lock().unwrap().clone()
    }

    fn assert_unmounted(&self) {
        let mut mounted = Vec::new();
        for call in self.kernel.calls() {
            match call {
                Call::Mount(request) => mounted.push(request.target),
                Call::Unmount(target) => assert_eq!(mounted.pop(), Some(target), "not the last one mounted"),
                _ => {}
            }
        }
        assert_eq!(mounted, Vec::<PathBuf>::new());
    }
}

/// Partition 1: FAT with the UUID [`ESP`], type PReP; partition 2: ext4 with the UUID [`ROOT`], not active.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 8 << 20];
    for (entry, kind, start) in [(446, 0x41, 2048u32), (462, 0x83, 8192)] {
        disk[entry + 4] = kind;
        disk[entry + 8..entry + 12].copy_from_slice(&start.to_le_bytes());
        disk[entry + 12..entry + 16].copy_from_slice(&4096u32.to_le_bytes());
    }
    disk[440..444].copy_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[(4 << 20) + 1080..][..2].copy_from_slice(&[0x53, 0xef]);
    disk[(4 << 20) + 1120] = 0x40;
    disk[(4 << 20) + 1128..][..16].copy_from_slice(&[0x11; 16]);
    let fat = &mut disk[1 << 20..][..512];
    fat[..3].copy_from_slice(&[0xeb, 0x58, 0x90]);
    fat[11..16].copy_from_slice(&[0, 2, 8, 32, 0]); // sector, cluster, reserved
    fat[16] = 2;
    fat[32..36].copy_from_slice(&4096u32.to_le_bytes());
    fat[36..40].copy_from_slice(&8u32.to_le_bytes());
    fat[44] = 2;
    fat[66] = 0x29;
    fat[67..71].copy_from_slice(&[0xbb, 0xbb, 0xaa, 0xaa]);
    fat[71..82].copy_from_slice(b"efi-part   ");
    fat[82..90].copy_from_slice(b"FAT32   ");
    fat[510..].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// Nodes of the machine with an array: `sdx2` and `sdz` are none of its business.
const NODES: [&str; 7] =
    ["/dev/sda2", "/dev/sdx", "/dev/sdx1", "/dev/sdx2", "/dev/sdy", "/dev/sdy1", "/dev/sdz"];
const DEBIAN: [(&str, &str); 3] =
    [("usr/sbin/grub-install", ""), ("usr/sbin/grub-mkconfig", ""), ("etc/fstab", "# none\n")];
const REDHAT: [(&str, &str); 7] = [
    ("usr/sbin/grub2-install", ""),
    ("usr/sbin/grub2-mkconfig", ""),
    ("boot/efi/EFI/BOOT/BOOTX64.EFI", "shim"),
    ("boot/efi/EFI/redhat/shimx64.efi", "shim"),
    ("boot/efi/EFI/redhat/BOOTX64.CSV", "csv"),
    ("boot/grub2/grubenv", "environment"),
    ("etc/fstab", "UUID=x / xfs defaults 0 0\n"),
];
const MENU: &str = "[GRUB_DISABLE_OS_PROBER=true GRUB_SAVEDEFAULT=true]";
const FSTAB: &str = "UUID=AAAA-BBBB\t/boot/efi\tvfat\tumask=0077\t0\t1\n";

#[test]
fn on_uefi_grub_installs_itself_twice_and_makes_its_menu_with_the_esp_in_place() {
    let bench = Bench::new(&DEBIAN, grub);
    bench.run(Some(ESP), None).unwrap();
    let menu = format!("/usr/sbin/grub-mkconfig -o /boot/grub/grub.cfg {MENU}");
    assert_eq!(
        bench.ran(),
        ["/usr/sbin/grub-install []", "/usr/sbin/grub-install --removable []", menu.as_str()]
    );
    assert!(bench.esp("EFI/debian/grubx64.efi").exists());
    assert_eq!(bench.image("boot/grub/grub.cfg"), "made menu");
    assert_eq!(bench.image("etc/fstab"), format!("# none\n{FSTAB}"));
}

#[test]
fn loaders_that_the_image_carries_are_copied_and_its_grub_does_not_install_itself() {
    let bench = Bench::new(&REDHAT, grub);
    bench.run(Some(ESP), None).unwrap();
    assert_eq!(bench.ran(), [format!("/usr/sbin/grub2-mkconfig -o /boot/grub2/grub.cfg {MENU}")]);
    for (name, text) in [
        ("EFI/BOOT/BOOTX64.EFI", "shim"),
        ("EFI/redhat/shimx64.efi", "shim"),
        ("EFI/redhat/BOOTX64.CSV", "csv"),
        ("EFI/redhat/grub.cfg", "made menu"),
        ("EFI/redhat/grubenv", "environment"),
    ] {
        assert_eq!(fs::read_to_string(bench.esp(name)).unwrap(), text, "{name}");
    }
    assert_eq!(bench.image("etc/fstab"), format!("UUID=x / xfs defaults 0 0\n{FSTAB}"));
    assert_eq!(bench.image("boot/efi/EFI/redhat/shimx64.efi"), "shim", "the image keeps its own");
}

#[test]
fn an_image_that_carries_loaders_needs_no_grub() {
    let bench = Bench::new(&[("boot/efi/EFI/BOOT/BOOTX64.EFI", "systemd-boot")], nothing);
    bench.run(Some(ESP), None).unwrap();
    assert_eq!(bench.ran(), Vec::<String>::new());
    assert!(bench.esp("EFI/BOOT/BOOTX64.EFI").exists());
}

#[test]
fn what_grub_complained_of_is_told_when_no_loader_came_of_it() {
    let bench = Bench::new(&DEBIAN, |root, argv| match argv {
        [_, option, _] if option == "-o" => grub(root, argv),
        _ => Err("No space left on device.".into()),
    });
    let error = bench.run(Some(ESP), None).unwrap_err();
    assert!(matches!(error, Error::InvalidImage { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("No space left") && text.contains("--removable"), "{text}");
    let silent = Bench::new(&DEBIAN, |_, _| Ok(()));
    let error = silent.run(Some(ESP), None).unwrap_err().to_string();
    assert!(error.contains("does the image hold grub for UEFI"), "{error}");
}

#[test]
fn on_bios_grub_goes_to_the_disk_and_on_power_to_its_partition() {
    for (prep, target) in [(None, "/dev/sda"), (Some(ESP), "/dev/sda1")] {
        let bench = Bench::new(&DEBIAN, grub);
        bench.run(None, prep).unwrap();
        let menu = format!("/usr/sbin/grub-mkconfig -o /boot/grub/grub.cfg {MENU}");
        assert_eq!(bench.ran(), [format!("/usr/sbin/grub-install {target} []"), menu]);
        assert_eq!(bench.image("etc/fstab"), "# none\n", "there is no partition to mount");
    }
}

#[test]
fn a_failure_of_any_program_is_told_with_its_words_and_leaves_nothing_mounted() {
    let refuses: fn(&Path, &[String]) -> Result<(), String> =
        |_, _| Err("will not proceed with blocklists".into());
    for (image, esp) in [(&DEBIAN[..], None), (&DEBIAN, Some(ESP)), (&REDHAT, Some(ESP))] {
        let bench = Bench::new(image, refuses);
        let error = hwm::chain(&bench.run(esp, None).unwrap_err());
        assert!(error.contains("will not proceed with blocklists"), "{error}");
        assert_eq!(bench.image("etc/fstab"), image.iter().find(|(name, _)| *name == "etc/fstab").unwrap().1);
    }
}

#[test]
fn in_an_array_grub_goes_to_each_disk_below_and_sees_no_other() {
    // Whether the root was named, by its UUID, or not: by nothing, or by the signature of its disk.
    for root in [Some(ROOT), None, Some("0x1a2b3c4d")] {
        let bench = Bench::new(&DEBIAN, grub);
        assert!(matches!(bench.run_in_array(root), (Ok(()), 1)), "{root:?}");
        let menu = MENU.replace("SAVEDEFAULT=true", "SAVEDEFAULT=false");
        let menu = format!("/usr/sbin/grub-mkconfig -o /boot/grub/grub.cfg {menu}");
        assert_eq!(
            bench.ran(),
            ["/usr/sbin/grub-install /dev/sdx []", "/usr/sbin/grub-install /dev/sdy []", menu.as_str()]
        );
        assert_eq!(bench.shown(), ["sda", "sda2", "sdx", "sdy", "sdx1", "sdy1"], "{root:?}");
        assert_eq!(bench.image("etc/default/grub"), "", "this image has no dracut");
    }
    let bench = Bench::new(&DEBIAN, grub);
    let (result, changes) = bench.run_in_array(Some("elsewhere"));
    assert!(matches!(result, Err(Error::DeviceNotFound { .. })), "{result:?}");
    assert_eq!((changes, bench.ran().len()), (0, 0));
}

#[test]
fn in_an_array_an_image_without_grub_leaves_the_disks_as_they_are() {
    for root in [Some(ROOT), None] {
        let bench = Bench::new(&[("etc/fstab", "")], grub);
        let (result, changes) = bench.run_in_array(root);
        let Err(Error::InvalidImage { message }) = result else { panic!("{result:?}") };
        assert!(message.contains("/dev/sda2") && message.contains("grub-install"), "{message}");
        assert_eq!(changes, 0);
    }
}

#[test]
fn in_an_array_a_failure_names_the_disk_and_the_reason() {
    let bench = Bench::new(&DEBIAN, |root, argv| match argv {
        [_, disk] if disk == "/dev/sdy" => Err("will not proceed with blocklists".into()),
        _ => grub(root, argv),
    });
    let error = hwm::chain(&bench.run_in_array(None).0.unwrap_err());
    assert!(error.contains("grub on /dev/sdy") && error.contains("blocklists"), "{error}");
}

#[test]
fn of_several_systems_in_an_array_the_root_must_be_named() {
    let bench = Bench::new(&DEBIAN, grub);
    let mut disk = disk();
    disk[(1 << 20)..][..512].fill(0);
    disk.copy_within((4 << 20) + 1024..(4 << 20) + 2048, (1 << 20) + 1024);
    disk[(1 << 20) + 1128..][..16].copy_from_slice(&[0x22; 16]);
    fs::write(bench.folder.path().join("machine/dev/sda"), disk).unwrap();
    let (result, changes) = bench.run_in_array(None);
    let Err(Error::InvalidImage { message }) = result else { panic!("{result:?}") };
    assert!(message.contains("/dev/sda1, /dev/sda2") && message.contains("rootfs_uuid"), "{message}");
    assert_eq!(changes, 0);
    assert!(bench.run_in_array(Some(ROOT)).0.is_ok());
}

#[test]
fn in_an_array_kernels_on_a_partition_of_their_own_are_found_and_dracut_is_told_of_the_array() {
    let image = [
        ("usr/sbin/grub2-install", ""),
        ("usr/sbin/grub2-mkconfig", ""),
        ("usr/bin/dracut", ""),
        ("etc/default/grub", "GRUB_CMDLINE_LINUX=\"quiet\"\n"),
        ("etc/fstab", "UUID=AAAA-BBBB /boot vfat defaults 0 2\n"),
    ];
    let bench = Bench::new(&image, grub);
    bench.run_in_array(None).0.unwrap();
    assert_eq!(fs::read_to_string(bench.esp("grub2/grub.cfg")).unwrap(), "made menu", "on that partition");
    let parameter = "rd.md.uuid=11111111:11111111:11111111:11111111";
    assert_eq!(bench.image("etc/default/grub"), format!("GRUB_CMDLINE_LINUX=\"quiet {parameter}\"\n"));
    for source in ["/dev/vda2", "LABEL=nowhere"] {
        let fstab = format!("{source} /boot ext4 defaults 0 2\n");
        let bench = Bench::new(&[DEBIAN[0], DEBIAN[1], ("etc/fstab", &fstab)], grub);
        let error = bench.run_in_array(None).0.unwrap_err().to_string();
        assert!(error.contains(source.trim_start_matches("LABEL=")), "{error}");
        assert_eq!(bench.ran().len(), 0);
    }
}
