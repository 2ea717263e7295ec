//! The erase steps on loop devices that this test made. Needs root.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod support;

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use disk::AllowList;
use events::{EventKind, Events, Phase};
use hardware_managers::{Deployment, Settings, builtin};
use hwm::{Context, Error, Registry, StepCall};
use serde_json::{Value, json};
use support::{DISK_BYTES, Loop, MIB};
use sys::{Host, MountRequest};
use wire::StepKind;

struct Machine {
    registry: Registry,
    cx: Context,
}

/// A machine that may erase these disks, with what its conductor says about erasing.
fn machine(allowed: &[&Loop], info: Value) -> Machine {
    machine_with(allowed, info, Settings::default())
}

fn machine_with(allowed: &[&Loop], mut info: Value, settings: Settings) -> Machine {
    // Loop devices know no ATA commands, so this only shortens the log of most tests.
    if info.get("agent_enable_ata_secure_erase").is_none() {
        info["agent_enable_ata_secure_erase"] = json!(false);
    }
    let names: Vec<&str> = allowed.iter().map(|disk| disk.name()).collect();
    let deployment = Deployment::new(Settings {
        allow: Some(AllowList::parse(&names.join(",")).unwrap()),
        disk_wait_attempts: 1,
        ..settings
    });
    let host = Host::real();
    let registry = Registry::probe(&host, builtin(&deployment));
    let cx =
        Context::new(host, Events::default()).with_node(json!({"uuid": "u", "driver_internal_info": info}));
    Machine { registry, cx }
}

impl Machine {
    fn run(&self, step: &str) -> Result<Value, Error> {
        let call = StepCall {
            kind: StepKind::Clean,
            step: step.into(),
            arguments: Default::default(),
            ports: json!([]),
        };
        self.registry.run_step(&call, &self.cx)
    }

    fn events(&self) -> Vec<EventKind> {
        self.cx.events.after(0, 1000).events.into_iter().map(|event| event.kind).collect()
    }
}

fn write(disk: &Loop, offset: u64, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).open(&disk.path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// The first, a middle and the last MiB.
fn samples(disk: &Loop) -> [Vec<u8>; 3] {
    [0, DISK_BYTES / 2, DISK_BYTES - MIB as u64].map(|offset| disk.read(offset, MIB))
}

#[test]
fn loop_random_passes_leave_noise_on_every_part_of_every_disk() {
    let (Some(one), Some(two)) = (Loop::new(), Loop::new()) else { return };
    let info = json!({"agent_erase_devices_zeroize": false, "agent_erase_devices_iterations": 1,
                      "agent_enable_ata_secure_erase": true, "disk_erasure_concurrency": 2});
    let machine = machine(&[&one, &two], info);
    let result = machine.run("erase_devices").unwrap();
    assert_eq!(result, json!({(one.name()): null, (two.name()): null}));
    let (first, second) = (samples(&one), samples(&two));
    assert_ne!(first, second, "no two disks get the same noise");
    for sample in first.iter().chain(&second) {
        let ones: u32 = sample.iter().map(|byte| byte.count_ones()).sum();
        let share = f64::from(ones) / (8.0 * sample.len() as f64);
        assert!((0.49..0.51).contains(&share), "noise has as many ones as zeroes: {share}");
        assert_ne!(sample[..4096], sample[4096..8192], "it does not repeat");
    }
    let progress: Vec<(u64, Option<u64>)> = machine
        .events()
        .into_iter()
        .filter_map(|kind| match kind {
            EventKind::Progress { phase: Phase::Erase, done, total, .. } => Some((done, total)),
            _ => None,
        })
        .collect();
    assert_eq!(*progress.last().unwrap(), (2 * DISK_BYTES, Some(2 * DISK_BYTES)), "{progress:?}");
    assert!(progress.is_sorted(), "{progress:?}");
}

#[test]
fn loop_a_pass_of_zeroes_ends_in_zeroes_that_are_read_back() {
    let Some(disk) = Loop::new() else { return };
    let info = json!({"agent_erase_devices_iterations": 1, "agent_erase_devices_verify": true});
    let machine = machine(&[&disk], info);
    assert_eq!(machine.run("erase_devices").unwrap(), json!({(disk.name()): null}));
    assert!(disk.read(0, usize::try_from(DISK_BYTES).unwrap()).iter().all(|byte| *byte == 0));
    let last = machine.events().into_iter().rev().find_map(|kind| match kind {
        EventKind::Progress { done, .. } => Some(done),
        _ => None,
    });
    assert_eq!(last, Some(3 * DISK_BYTES), "noise, zeroes, and reading them back");
}

#[test]
fn loop_members_of_arrays_and_disks_outside_the_list_are_left_alone() {
    let (Some(disk), Some(member), Some(stranger)) = (Loop::new(), Loop::new(), Loop::new()) else { return };
    write(&member, 4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
    let before = member.read(0, MIB);
    let machine = machine(&[&disk, &member], json!({"agent_erase_devices_iterations": 0}));
    let result = machine.run("erase_devices").unwrap();
    assert_eq!(result, json!({(disk.name()): null, (member.name()): null}));
    assert!(disk.has_zeroed_head());
    assert_eq!(member.read(0, MIB), before);
    assert!(stranger.is_untouched());
    for step in ["erase_devices_metadata", "erase_devices_express"] {
        machine.run(step).unwrap();
        assert_eq!(member.read(0, MIB), before, "{step}");
    }
}

#[test]
fn loop_express_erases_the_metadata_of_what_is_no_nvme_disk() {
    let Some(disk) = Loop::new() else { return };
    write(&disk, DISK_BYTES / 2, &[0x77; 512]);
    let machine = machine(&[&disk], json!({}));
    assert_eq!(machine.run("erase_devices_express").unwrap(), Value::Null);
    let [head, middle, tail] = samples(&disk);
    assert!(head.iter().chain(&tail).all(|byte| *byte == 0));
    assert_eq!(middle[..512], [0x77; 512], "what lies between stays: this is the quick way");
}

#[test]
fn loop_a_disk_that_can_only_be_read_fails_the_step_before_another_is_touched() {
    let (Some(disk), Some(locked)) = (Loop::new(), Loop::new()) else { return };
    support::tool("/usr/sbin/blockdev", &["--setro", locked.name()]);
    let strict = machine(&[&disk, &locked], json!({"agent_erase_devices_iterations": 0}));
    let error = strict.run("erase_devices").unwrap_err();
    assert!(
        matches!(&error, Error::BlockDeviceErase { message } if message.contains(locked.name())),
        "{error:?}"
    );
    assert!(disk.is_untouched());
    let info = json!({"agent_erase_devices_iterations": 0, "agent_erase_skip_read_only": true});
    machine(&[&disk, &locked], info).run("erase_devices").unwrap();
    assert!(disk.has_zeroed_head() && locked.is_untouched());
    support::tool("/usr/sbin/blockdev", &["--setrw", locked.name()]);
}

#[test]
fn loop_a_cancelled_erase_ends_within_a_moment() {
    let Some(disk) = Loop::new() else { return };
    let machine = machine(&[&disk], json!({"agent_erase_devices_iterations": 1_000_000}));
    let cx = machine.cx.clone();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        cx.cancel();
    });
    let started = std::time::Instant::now();
    let error = machine.run("erase_devices").unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
    canceller.join().unwrap();
}

/// A disk on a file system that can be made to stop: every write to it hangs until it goes on.
struct Stopping {
    disk: Option<Loop>,
    below: Loop,
    mount_point: tempfile::TempDir,
}

impl Stopping {
    fn new() -> Option<Self> {
        let below = Loop::of(64 * MIB as u64, 512)?;
        support::tool("/usr/sbin/mkfs.ext4", &["-q", "-F", below.name()]);
        let mount_point = tempfile::tempdir().unwrap();
        Host::real().kernel().mount(&MountRequest::new(&below.path, mount_point.path(), "ext4")).unwrap();
        let file = mount_point.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len(16 * MIB as u64).unwrap();
        Some(Self { disk: Some(Loop::over(&file)), below, mount_point })
    }

    fn disk(&self) -> &Loop {
        self.disk.as_ref().unwrap()
    }

    fn freeze(&self, option: &str) {
        support::tool("/usr/sbin/fsfreeze", &[option, self.mount_point.path().to_str().unwrap()]);
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.disk = None;
        let _ = Host::real().kernel().detach(self.mount_point.path());
        let _ = &self.below;
    }
}

#[test]
fn loop_a_disk_that_hangs_fails_by_name_while_others_are_erased_and_the_step_ends() {
    let (Some(disk), Some(stopping)) = (Loop::new(), Stopping::new()) else { return };
    let settings = Settings { erase_stall_limit: Duration::from_secs(2), ..Settings::default() };
    let machine =
        machine_with(&[&disk, stopping.disk()], json!({"agent_erase_devices_iterations": 0}), settings);
    for step in ["erase_devices", "erase_devices_metadata"] {
        write(&disk, 0, &[0xa5; 512]);
        stopping.freeze("--freeze");
        let started = std::time::Instant::now();
        let result = machine.run(step);
        let elapsed = started.elapsed();
        stopping.freeze("--unfreeze");
        let error = result.unwrap_err();
        assert!(elapsed < Duration::from_secs(30), "{step} took {elapsed:?}");
        let Error::BlockDeviceErase { message } = &error else { panic!("{error:?}") };
        let name = stopping.disk().name();
        assert!(message.contains(&format!("{name} does not answer: no request ended for 2 s")), "{message}");
        assert!(!message.contains(disk.name()), "{message}");
        assert!(disk.has_zeroed_head(), "{step}");
        // The thread that was left behind lets the disk go when its write ended.
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(100));
            if sys::device::open_exclusive(&stopping.disk().path).is_ok() {
                break;
            }
        }
    }
}
