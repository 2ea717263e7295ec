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

fn options(root: &Path) -> QemuOptions {
    QemuOptions {
        directory: root.join("vms"),
        binary: None,
        more: vec![],
        places: Places { folders: vec![root.canonicalize().unwrap()], ..Places::default() },
        outgoing: Outgoing::Never,
        advertise: "http://10.0.2.2:6385".into(),
        program: "/usr/bin/ferric".into(),
        socket: root.join("machines.sock"),
    }
}

fn argv(info: Value, device: BootDevice) -> String {
    let reach = QemuDriver::new(options(Path::new("/"))).reach(device).unwrap();
    argv_reaching(info, device, &reach)
}

fn argv_reaching(info: Value, device: BootDevice, reach: &Reach) -> String {
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
        reach,
        more: &["-more".to_owned()],
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
fn a_machine_reaches_the_open_routes_and_a_deployed_one_nothing() {
    let net = argv(json!({"qemu_disk": "/d"}), BootDevice::Pxe);
    assert!(
        net.contains(
            "user,id=net0,restrict=on,net=10.0.2.0/24,host=10.0.2.254,dns=10.0.2.253,dhcpstart=10.0.2.15,\
             guestfwd=tcp:10.0.2.2:6385-cmd:/usr/bin/ferric forward /machines.sock,tftp="
        ),
        "{net}"
    );
    let disk = argv(json!({"qemu_disk": "/d"}), BootDevice::Disk);
    assert!(disk.contains("-netdev user,id=net0,restrict=on -device"), "{disk}");
    assert!(!disk.contains("guestfwd") && !disk.contains("hostfwd") && !disk.contains("tftp"), "{disk}");
    let open = argv_reaching(json!({"qemu_disk": "/d"}), BootDevice::Pxe, &Reach::Everything);
    assert!(!open.contains("restrict"), "{open}");

    let with = |outgoing, advertise: &str| {
        QemuDriver::new(QemuOptions { outgoing, advertise: advertise.into(), ..options(Path::new("/")) })
    };
    let name = "http://controller.example:6385";
    assert!(
        with(Outgoing::Never, name).reach(BootDevice::Pxe).unwrap_err().contains("--qemu-outgoing ramdisk")
    );
    assert_eq!(with(Outgoing::Ramdisk, name).reach(BootDevice::Pxe), Ok(Reach::Everything));
    assert_eq!(with(Outgoing::Ramdisk, name).reach(BootDevice::Disk), Ok(Reach::Nothing));
    assert_eq!(with(Outgoing::Always, name).reach(BootDevice::Disk), Ok(Reach::Everything));
    let lan = "http://192.0.2.254:80";
    let Ok(Reach::Controller(way)) = with(Outgoing::Never, lan).reach(BootDevice::Pxe) else {
        panic!("no way")
    };
    let net = argv_reaching(json!({"qemu_disk": "/d"}), BootDevice::Pxe, &Reach::Controller(way));
    assert!(net.contains("net=192.0.2.0/24,host=192.0.2.253,dns=192.0.2.252,"), "{net}");
    let driver = with(Outgoing::Never, lan);
    assert_eq!(driver.unreachable("http://192.0.2.254:80/images/a", lan), None);
    assert!(driver.unreachable("http://192.0.2.254:8080/a", lan).is_some());
    assert_eq!(with(Outgoing::Ramdisk, lan).unreachable("http://x/a", lan), None);
}

#[test]
fn programs_and_raw_arguments_come_from_the_command_line_alone() {
    let root = tempfile::tempdir().unwrap();
    let driver = QemuDriver::new(options(root.path()));
    let check = |info: Value| driver.check(info.as_object().unwrap());
    for (info, word) in [
        (json!({"qemu_binary": "/bin/sh"}), "--qemu-binary"),
        (json!({"qemu_extra_args": ["-incoming", "exec:id"]}), "--qemu-arg"),
        (json!({"qemu_extra_args": []}), "--qemu-arg"),
        (json!({"qemu_disk": "/etc/passwd"}), "--disks"),
        (json!({"qemu_disk": ["/dev/null"]}), "regular file"),
        (json!({"qemu_serial_log": "/etc/cron.d/x"}), "--disks"),
        (json!({"qemu_ovmf_code": "/etc/shadow"}), "--disks"),
        (
            json!({"qemu_disk": root.path().join("d"), "qemu_nic_model": "e1000,romfile=/etc/shadow"}),
            "letters",
        ),
        (json!({"qemu_disk": [{"path": root.path().join("d"), "serial": "a,x=y"}]}), "letters"),
        (json!({"qemu_disk": root.path().join("d"), "qemu_sector_size": 1000}), "512 or 4096"),
    ] {
        let error = check(info.clone()).unwrap_err();
        assert!(error.contains(word), "{info}: {error}");
    }
    check(json!({})).unwrap();
    check(json!({"qemu_disk": root.path().join("d"), "qemu_sector_size": 4096})).unwrap();
    // Of a node that an earlier version stored: without effect.
    let line = argv(
        json!({"qemu_disk": "/d", "qemu_binary": "/bin/sh", "qemu_extra_args": ["-x"]}),
        BootDevice::Disk,
    );
    assert!(line.ends_with(" -more") && !line.contains("-x"), "{line}");
}

/// Says past cargo's capture that a test was left out: it counts.
fn skipped(why: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {why}\n")); // best effort
}

#[test]
fn a_mounted_block_device_is_refused_though_it_is_named() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut sources = mounts.lines().filter_map(|line| line.split(' ').next()).map(Path::new);
    let is_device = |path: &&Path| {
        use std::os::unix::fs::FileTypeExt;
        fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device())
    };
    let Some(device) = sources.find(is_device) else { return skipped("no block device is mounted") };
    let device = device.canonicalize().unwrap();
    let places = Places { devices: vec![device.clone()], ..Places::default() };
    assert_eq!(places.disk(&device), Ok(()));
    assert!(places.is_free(&device).unwrap_err().contains("in use"));
}

#[test]
fn a_block_device_that_is_not_named_is_refused() {
    let places = Places { folders: vec!["/dev".into()], ..Places::default() };
    let mut devices =
        fs::read_dir("/sys/block").unwrap().flatten().map(|d| Path::new("/dev").join(d.file_name()));
    let Some(path) = devices.find(|path| path.exists()) else { return skipped("there is no block device") };
    assert!(places.disk(&path).unwrap_err().contains("block device"));
    let named = Places { devices: vec![path.clone()], ..Places::default() };
    assert_eq!(named.disk(&path), Ok(()));
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
        return skipped("qemu-system-x86_64 is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.raw");
    let machine = machine(json!({
        "qemu_disk": disk, "qemu_create_disk": "1M", "qemu_firmware": "bios", "qemu_memory_mb": 64,
    }));
    let options = QemuOptions { more: vec!["-S".into()], ..options(dir.path()) };
    let driver = QemuDriver::new(options.clone());
    driver.validate(&machine).unwrap();
    assert_eq!(driver.power_state(&machine).unwrap(), PowerState::Off);
    driver.set_boot_device(&machine, BootDevice::Pxe).unwrap();
    driver.power_on(&machine).unwrap();
    assert_eq!(fs::metadata(&disk).unwrap().len(), 1 << 20);
    // A controller that starts anew knows nothing but the directory.
    let again = QemuDriver::new(options);
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
    let driver = QemuDriver::new(options(folder.path()));
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
