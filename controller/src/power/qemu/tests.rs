use serde_json::{Value, json};
use uuid::Uuid;

use super::settings::{Settings, parse_size};
use super::*;
use crate::power::NetBoot;

fn machine(info: Value) -> Machine {
    Machine {
        uuid: Uuid::from_u128(7),
        label: "vm7".into(),
        driver_info: info.as_object().unwrap().clone(),
        macs: vec!["52:54:00:00:00:07".into()],
        netboot: NetBoot {
            script_url: "http://10.0.2.2:6385/boot/boot.ipxe?mac=52-54-00-00-00-07".into(),
            kernel: Some("/r/kernel".into()),
            initramfs: Some("/r/initramfs".into()),
            command_line: "console=ttyS0 a=b".into(),
        },
    }
}

fn argv(info: Value, device: BootDevice) -> String {
    let machine = machine(info);
    let settings = Settings::parse(&machine.driver_info).unwrap();
    let built = arguments::build(&arguments::Plan {
        settings: &settings,
        machine: &machine,
        device,
        firmware: None,
        socket: Path::new("/s/qmp.sock"),
        pid_file: Path::new("/s/pid"),
        serial: Path::new("/s/serial.log"),
        tftp: Path::new("/s/tftp"),
        agent_port: 21999,
    });
    built.unwrap().join(" ")
}

#[test]
fn the_network_comes_first_only_when_it_is_the_boot_device() {
    let net = argv(json!({"qemu_disk": "/d"}), BootDevice::Pxe);
    assert!(net.contains("mac=52:54:00:00:00:07,bootindex=1"), "{net}");
    assert!(net.contains("hostfwd=tcp:127.0.0.1:21999-:9999"), "{net}");
    assert!(net.contains("drive=disk0,serial=ferric-disk0,bootindex=2"), "{net}");
    let disk = argv(json!({"qemu_disk": "/d"}), BootDevice::Disk);
    assert!(!disk.contains("bootindex=1"), "{disk}");
}

#[test]
fn direct_boot_hands_over_the_ramdisk_and_only_for_the_ramdisk() {
    let info = json!({"qemu_disk": "/d", "qemu_boot": "direct"});
    let net = argv(info.clone(), BootDevice::Pxe);
    assert!(net.contains("-kernel /r/kernel -initrd /r/initramfs -append console=ttyS0 a=b"), "{net}");
    assert!(!net.contains("bootindex=1"), "{net}");
    assert!(!argv(info, BootDevice::Disk).contains("-kernel"));
}

#[test]
fn every_bus_has_its_device() {
    for (bus, device) in [
        ("virtio", "virtio-blk-pci"),
        ("nvme", "nvme,"),
        ("scsi", "scsi-hd,bus=scsi0.0"),
        ("sata", "ide-hd,bus=ide.0"),
    ] {
        let line = argv(json!({"qemu_disk": ["/d"], "qemu_disk_bus": bus}), BootDevice::Disk);
        assert!(line.contains(&format!("-device {device}")), "{line}");
    }
}

#[test]
fn settings_that_can_not_work_are_refused_in_words() {
    for (info, word) in [
        (json!({}), "qemu_disk is missing"),
        (json!({"qemu_disk": "relative.raw"}), "absolute"),
        (json!({"qemu_disk": "/a,b"}), "comma"),
        (json!({"qemu_disk": "/d", "qemu_disk_bus": "floppy"}), "virtio, nvme, scsi or sata"),
        (json!({"qemu_disk": "/d", "qemu_memory_mb": -1}), "whole number"),
        (json!({"qemu_disk": "/d", "qemu_mempry_mb": 512}), "is no setting"),
        (json!({"qemu_disk": "/d", "qemu_firmware": "openfirmware"}), "one of uefi, bios"),
        (json!({"qemu_disk": {"path": "/d", "format": "vmdk"}}), "raw or qcow2"),
    ] {
        let error = Settings::parse(info.as_object().unwrap()).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn sizes_have_units() {
    for (text, bytes) in
        [(json!("4G"), 4 << 30), (json!("2048 MiB"), 2 << 30), (json!(512), 512), (json!("7"), 7)]
    {
        assert_eq!(parse_size(&text).unwrap(), bytes);
    }
    for bad in [json!("G"), json!("-1"), json!("4X"), json!(""), json!("99999999999T"), json!(true)] {
        assert!(parse_size(&bad).is_err(), "{bad}");
    }
}

#[test]
fn a_disk_that_is_there_is_never_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    fs::write(&path, "data").unwrap();
    assert!(create_sparse(&path, 1 << 20).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"data");
}

/// A real QEMU with its processor stopped (`-S`): start, find again, reset, stop. Skips, and says so, without QEMU.
#[test]
fn a_real_qemu_is_started_found_again_and_stopped() {
    if process::find_qemu().is_none() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: qemu-system-x86_64 is not installed\n"),
        ); // past cargo's capture: it counts
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.raw");
    let machine = machine(json!({
        "qemu_disk": disk, "qemu_create_disk": "1M", "qemu_firmware": "bios", "qemu_memory_mb": 64,
        "qemu_extra_args": ["-S"],
    }));
    let driver = QemuDriver::new(dir.path().join("vms"));
    driver.validate(&machine).unwrap();
    assert_eq!(driver.power_state(&machine).unwrap(), PowerState::Off);
    driver.set_boot_device(&machine, BootDevice::Pxe).unwrap();
    driver.power_on(&machine).unwrap();
    assert_eq!(fs::metadata(&disk).unwrap().len(), 1 << 20);
    // A controller that starts anew knows nothing but the directory.
    let again = QemuDriver::new(dir.path().join("vms"));
    assert_eq!(again.power_state(&machine).unwrap(), PowerState::On);
    let port = again.kernel_parameters(&machine).unwrap();
    assert_eq!(port, driver.kernel_parameters(&machine).unwrap());
    again.reset(&machine).unwrap();
    again.power_off(&machine).unwrap();
    again.power_off(&machine).unwrap();
    assert_eq!(again.power_state(&machine).unwrap(), PowerState::Off);
    again.forget(&machine).unwrap();
    assert!(!dir.path().join("vms").join(machine.uuid.to_string()).exists());
    assert!(disk.exists());
}

#[test]
fn a_machine_that_ends_while_it_is_asked_is_off() {
    let folder = tempfile::tempdir().unwrap();
    let driver = QemuDriver::new(folder.path().to_owned());
    let machine = machine(json!({"qemu_disk": "/d"}));
    let socket = driver.files(&machine).socket();
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let ending = std::thread::spawn(move || {
        for _ in 0..3 {
            drop(listener.accept().unwrap()); // as QEMU's end cuts what is under way
        }
    });
    assert_eq!(driver.power_state(&machine).unwrap(), PowerState::Off);
    ending.join().unwrap();
}
