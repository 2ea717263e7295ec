//! The step `erase_devices` on disks of a virtual machine: an NVMe disk formats itself, a disk that can not erase itself is
//! written over, a namespace that is to be kept is.
//!
//! The guest is this very program: it is put into the ramdisk beside the agent and started as the first process, where it
//! knows itself by its process id. What it did is read from the disks' files, on the host.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::{Boot, Bus, Disk, Firmware, Scratch, Vm, VmConfig, dist, patient, skip_vm};

const MIB: usize = 1 << 20;
const DISK_BYTES: u64 = 32 << 20;
/// What the host writes to every disk before.
const OLD: u8 = 0xa5;
/// The last line of a guest that did all it was asked.
const DONE: &str = "GUEST done";

#[test]
fn vm_disks_erase_themselves_where_they_can_and_are_written_over_where_not() -> Result<()> {
    if std::process::id() == 1 {
        guest::run();
    }
    if skip_vm()? {
        return Ok(());
    }
    let scratch = Scratch::new("erase")?;
    let mut config = VmConfig::new(Firmware::Bios);
    for (name, bus) in [("nvme", Bus::Nvme), ("scsi", Bus::Scsi), ("kept", Bus::Nvme)] {
        let path = scratch.join(format!("{name}.raw"));
        fs::write(&path, vec![OLD; usize::try_from(DISK_BYTES)?])?;
        config = config.disk(Disk { bus, serial: name.into(), ..Disk::new(path) });
    }
    config.memory_mib = 1024;
    config.no_reboot = true;
    config.boot = Boot::Direct {
        kernel: scratch.join("ramdisk/kernel"),
        initramfs: ramdisk(&scratch)?,
        command_line: "console=ttyS0 rdinit=/guest panic=-1 quiet".into(),
    };
    let mut vm = Vm::start(&config, scratch.path(), "erase")?;
    vm.serial.wait_for(DONE, patient(240))?;
    vm.wait_off(patient(60))?;

    // No pass of zeroes was asked for: zeroes are the disk's own work, noise is ours.
    for (name, offset, expected) in [
        ("nvme", 0, Found::Zeroes),
        ("nvme", 16 << 20, Found::Zeroes),
        ("scsi", 0, Found::Noise),
        ("scsi", DISK_BYTES - MIB as u64, Found::Noise),
        ("kept", 0, Found::Old),
    ] {
        let found = Found::read(&scratch.join(format!("{name}.raw")), offset)?;
        ensure!(found == expected, "{name} at {offset}: {found:?}, not {expected:?}: {}", vm.serial.tail());
    }
    scratch.passed();
    Ok(())
}

/// What a MiB of a disk holds.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Zeroes,
    Noise,
    Old,
}

impl Found {
    fn read(disk: &Path, offset: u64) -> Result<Self> {
        let mut bytes = vec![1; MIB];
        File::open(disk)?.read_exact_at(&mut bytes, offset)?;
        Ok(match bytes.first() {
            Some(first) if bytes.iter().all(|byte| byte == first) => {
                if *first == 0 {
                    Self::Zeroes
                } else {
                    Self::Old
                }
            }
            _ => Self::Noise,
        })
    }
}

/// The ramdisk with this program and the libraries that it is linked to.
fn ramdisk(scratch: &Scratch) -> Result<PathBuf> {
    let output = scratch.join("ramdisk");
    // The tests may start programs.
    #[allow(clippy::disallowed_methods)]
    let mut build = Command::new(dist("ferric-image")?);
    build.arg("build").arg("--agent").arg(dist("ferric-agent")?).arg("--output").arg(&output);
    build.args(["--modules", "vm", "--level", "1"]);
    build.arg("--cache").arg(e2e::root().join(".cache/packages"));
    build.arg("--add").arg(format!("{}:/guest:755", std::env::current_exe()?.display()));
    for library in libraries()? {
        // The file may be reached through links; the loader looks where the program says.
        let source = fs::canonicalize(&library)?;
        build.arg("--add").arg(format!("{}:{}:755", source.display(), library.display()));
    }
    let built = build.output().context("running ferric-image")?;
    ensure!(built.status.success(), "ferric-image: {}", String::from_utf8_lossy(&built.stderr));
    Ok(output.join("initramfs"))
}

/// The shared libraries of this process, under the names that the loader looks for.
fn libraries() -> Result<Vec<PathBuf>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut libraries: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.contains(".so"))
        .map(PathBuf::from)
        .collect();
    libraries.sort();
    libraries.dedup();
    // The loader itself is named by an absolute path of its own.
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
    if !libraries.is_empty() && loader.exists() {
        libraries.push(loader.to_owned());
    }
    Ok(libraries)
}

/// What happens inside the machine.
mod guest {
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    use hardware_managers::{Deployment, Settings, builtin};
    use hwm::{Context, Registry, StepCall};
    use serde_json::json;
    use sys::{Host, MountRequest, Power};
    use wire::StepKind;

    /// Drivers of the disks, in whatever order they depend on each other.
    const DRIVERS: [&str; 4] = ["nvme", "virtio_pci", "virtio_scsi", "sd_mod"];

    /// Erases all disks but the one with the serial number `kept`, and switches the machine off.
    pub fn run() -> ! {
        let host = Host::real();
        for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
            let _ = fs::create_dir_all(place);
            let _ = host.kernel().mount(&MountRequest::new(kind, place, kind)); // said below, by what is missing
        }
        load_drivers(&host);
        wait_for_disks(&host);
        let node = json!({"uuid": "u", "properties": {"skip_block_devices": [{"serial": "kept"}]},
                          "driver_internal_info": {"agent_erase_devices_zeroize": false, "disk_erasure_concurrency": 4}});
        let deployment = Deployment::new(Settings::default());
        let registry = Registry::probe(&host, builtin(&deployment));
        let cx = Context::new(host.clone(), events::Events::default()).with_node(node);
        let call = StepCall {
            kind: StepKind::Clean,
            step: "erase_devices".into(),
            arguments: Default::default(),
            ports: json!([]),
        };
        let result = registry.run_step(&call, &cx);
        say(&format!("GUEST {result:?}"));
        if result.is_ok() {
            say(super::DONE);
        }
        host.kernel().sync();
        std::thread::sleep(Duration::from_secs(1)); // the console
        let _ = host.kernel().power(Power::Off);
        std::process::exit(1) // the kernel panics, and the machine ends
    }

    fn say(text: &str) {
        if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
            let _ = writeln!(console, "{text}");
        }
    }

    /// Loads what the drivers need, round after round, until nothing new goes in.
    fn load_drivers(host: &Host) {
        let mut files = Vec::new();
        find(Path::new("/lib/modules"), &mut files);
        let stem =
            |file: &PathBuf| file.file_stem().and_then(|name| name.to_str()).unwrap_or("").replace('-', "_");
        let is_wanted = |file: &PathBuf| {
            let name = stem(file);
            DRIVERS.contains(&name.as_str())
                || ["nvme", "virtio", "scsi", "crc", "t10"].iter().any(|part| name.starts_with(part))
        };
        files.retain(is_wanted);
        for _ in 0..8 {
            files.retain(|file| host.kernel().load_module(file, "").is_err());
        }
    }

    fn find(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.extension().and_then(|name| name.to_str()) {
                Some("ko") => files.push(path),
                _ if path.is_dir() && !path.is_symlink() => find(&path, files),
                _ => {}
            }
        }
    }

    fn wait_for_disks(host: &Host) {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            let count = disk::list(host, None).map_or(0, |disks| disks.len());
            if count >= 3 {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        say(&format!("GUEST sees {:?}", host.names("/sys/block")));
    }
}
