//! A machine with drives made of files: real FAT and ISO images, made by the tools that Ironic calls.

use super::*;
use crate::config::{Config, Origin, Overrides};
use std::path::Path;
use std::process::Command;

/// A machine in a folder.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(machine.0.path().join("dev")).unwrap();
        std::fs::create_dir_all(machine.0.path().join("sys/class/block")).unwrap();
        machine
    }

    fn host(&self) -> Host {
        sys::fake::host(self.0.path())
    }

    fn path(&self, relative: &str) -> std::path::PathBuf {
        self.0.path().join(relative)
    }

    /// A drive: its place in the device tree decides its transport, as in sysfs.
    fn drive(&self, name: &str, kind: &str, bus: &str, model: &str, megabytes: u64) -> std::path::PathBuf {
        let device =
            self.path(&format!("sys/devices/pci0000:00/0000:00:1d.0/{bus}/host1/target1:0:0/1:0:0:0"));
        let block = device.join("block").join(name);
        std::fs::create_dir_all(&block).unwrap();
        std::fs::write(device.join("type"), kind).unwrap();
        std::fs::write(device.join("model"), model).unwrap();
        std::fs::write(block.join("size"), (megabytes * 2048).to_string()).unwrap();
        std::os::unix::fs::symlink(&device, block.join("device")).unwrap();
        if bus == USB {
            let interface = self.path(&format!("sys/devices/pci0000:00/0000:00:1d.0/{bus}/subsystem"));
            let subsystem = self.path("sys/bus/usb");
            std::fs::create_dir_all(&subsystem).unwrap();
            let _ = std::os::unix::fs::symlink(subsystem, interface); // a second drive has it already
        }
        for class in ["sys/class/block", "sys/block"] {
            std::fs::create_dir_all(self.path(class)).unwrap();
            std::os::unix::fs::symlink(&block, self.path(class).join(name)).unwrap();
        }
        self.path("dev").join(name)
    }
}

#[allow(clippy::disallowed_methods)] // the tools whose images the reader must understand
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed (`make setup` installs it): {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn floppy(image: &Path, label: &str, parameters: Option<&str>) {
    let path = image.to_str().unwrap();
    run("/usr/bin/truncate", &["-s", "1440K", path]);
    run("/usr/sbin/mkfs.vfat", &["-n", label, path]);
    if let Some(text) = parameters {
        let file = image.with_extension("txt");
        std::fs::write(&file, text).unwrap();
        run("/usr/bin/mcopy", &["-i", path, file.to_str().unwrap(), "::parameters.txt"]);
    }
}

fn disc(image: &Path, label: &str, publisher: &str, files: &[(&str, &str)]) {
    let tree = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = tree.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let (image, tree) = (image.to_str().unwrap(), tree.path().to_str().unwrap());
    run(
        "/usr/bin/genisoimage",
        &["-quiet", "-o", image, "-publisher", publisher, "-V", label, "-R", "-J", tree],
    );
}

fn taken(machine: &Machine, cmdline: &str) -> (Cmdline, Result<Media, Error>) {
    let mut cmdline = Cmdline::parse(cmdline);
    let media = take(&machine.host(), &mut cmdline, Duration::ZERO);
    (cmdline, media)
}

const USB: &str = "usb1/1-1/1-1:1.0";
const SATA: &str = "ata1";

#[test]
fn parameters_of_the_floppy_beat_the_command_line_and_files_of_the_disc_beat_both() {
    let machine = Machine::new();
    floppy(
        &machine.drive("sdb", "0", USB, "Virtual Floppy", 2),
        "IR-VFD-DEV",
        Some(
            "ipa-api-url=http://192.0.2.1\nipa-agent-token=0123456789012345678901234567890123456789012\nipa-listen-port=77\n",
        ),
    );
    let files = [
        ("etc/ironic-python-agent/ironic.crt", "PEM"),
        (
            "etc/ironic-python-agent.d/ironic-tls.conf",
            "[DEFAULT]\ncafile = /etc/ironic-python-agent/ironic.crt\nlisten_port = 78\n",
        ),
        ("etc/ironic-python-agent.d/deeper/not.conf", "listen_port = 79\n"),
        ("etc/shadow", "root::"),
        ("openstack/latest/network_data.json", "{}"),
    ];
    disc(&machine.drive("sr0", "5", SATA, "Virtual CD", 1), "VMEDIA_BOOT_ISO", "the-node", &files);
    let (cmdline, media) =
        taken(&machine, "ipa-api-url=http://old ipa-listen-port=1 boot_method=vmedia ir_pub_id=THE-NODE");
    let media = media.unwrap();
    let (config, warnings) = Config::load(&machine.host(), &cmdline, &Overrides::default()).unwrap();
    assert_eq!(*config.api_url, vec!["http://192.0.2.1".to_owned()]);
    assert_eq!(config.api_url.origin, Origin::VirtualMedia("ipa-api-url"));
    assert!(config.agent_token.is_some());
    assert_eq!(*config.listen_port, 78, "the file beats both");
    assert_eq!(config.cafile.as_deref(), Some("/etc/ironic-python-agent/ironic.crt".as_ref()));
    assert_eq!(std::fs::read_to_string(machine.path("etc/ironic-python-agent/ironic.crt")).unwrap(), "PEM");
    assert!(
        !machine.path("etc/shadow").exists() && !machine.path("etc/ironic-python-agent.d/deeper").exists()
    );
    assert_eq!(media.network_data.as_deref(), Some(b"{}".as_slice()));
    assert_eq!(media.notices.len(), 2, "{:?}", media.notices);
    assert!(!media.notices.concat().contains("0123456789"), "the token is a secret");
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn without_boot_method_nothing_is_looked_at() {
    let machine = Machine::new();
    floppy(&machine.drive("sdb", "0", USB, "x", 2), "ir-vfd-dev", Some("ipa-api-url=http://evil"));
    let (cmdline, media) = taken(&machine, "ipa-api-url=http://good");
    assert_eq!(cmdline.get("ipa-api-url"), Some("http://good"));
    assert!(media.unwrap().notices.is_empty());
}

#[test]
fn disks_of_the_machine_are_never_virtual_media_whatever_their_label() {
    for (kind, bus, megabytes) in [("0", SATA, 2), ("0", USB, 4096)] {
        let machine = Machine::new();
        floppy(
            &machine.drive("sda", kind, bus, "Virtual Media", megabytes),
            "ir-vfd-dev",
            Some("ipa-api-url=http://evil"),
        );
        let (cmdline, media) = taken(&machine, "boot_method=vmedia");
        assert_eq!(cmdline.get("ipa-api-url"), None, "{bus} {megabytes}");
        assert!(media.unwrap().notices[0].contains("no virtual media was found"));
    }
    let machine = Machine::new();
    floppy(&machine.drive("sda1", "0", USB, "x", 2), "ir-vfd-dev", Some("ipa-api-url=http://evil"));
    std::fs::write(machine.path("sys/class/block/sda1/partition"), "1").unwrap();
    assert_eq!(taken(&machine, "boot_method=vmedia").0.get("ipa-api-url"), None, "a partition");
}

#[test]
fn a_floppy_is_also_known_by_its_model_and_one_without_parameters_is_an_error() {
    let machine = Machine::new();
    floppy(&machine.drive("sdb", "0", USB, "HP Virtual Media", 2), "NONAME", Some("a=1"));
    assert_eq!(taken(&machine, "boot_method=vmedia").0.get("a"), Some("1"));

    let machine = Machine::new();
    floppy(&machine.drive("sdb", "0", USB, "x", 2), "ir-vfd-dev", None);
    let error = taken(&machine, "boot_method=vmedia").1.unwrap_err().to_string();
    assert!(error.contains("/dev/sdb") && error.contains("parameters.txt"), "{error}");
}

#[test]
fn network_data_of_another_publisher_is_not_believed() {
    let machine = Machine::new();
    let files = [("openstack/latest/network_data.json", "{}")];
    disc(&machine.drive("sr0", "5", SATA, "CD", 1), "config-2", "somebody", &files);
    assert!(
        taken(&machine, "boot_method=vmedia").1.unwrap().network_data.is_some(),
        "nobody in particular is expected"
    );
    assert!(taken(&machine, "boot_method=vmedia ir_pub_id=else").1.unwrap().network_data.is_none());
}

#[test]
fn a_damaged_disc_is_an_error_and_no_panic() {
    let machine = Machine::new();
    let image = machine.drive("sr0", "5", SATA, "CD", 1);
    disc(&image, "config-2", "x", &[("etc/ironic-python-agent.d/a.conf", "debug = true\n")]);
    let bytes = std::fs::read(&image).unwrap();
    std::fs::write(&image, &bytes[..20 * 2048]).unwrap();
    assert!(taken(&machine, "boot_method=vmedia").1.is_err());
}
