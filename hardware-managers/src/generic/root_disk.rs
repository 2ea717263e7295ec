//! Which disk an image goes to: the node's root device hints, its skip list, and patience for disks that come late.
//! Source: data plane page, 2.2 to 2.4. Reads only.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use disk::{Hints, Rules, Selection, Situation, SkipList};
use events::EventKind;
use hwm::{Context, Error};
use serde_json::{Value, json};
use wire::Disk;

use super::raid::root::root_volumes;
use super::raid::start_arrays;
use crate::settings::Settings;

/// Judges every disk by the node's hints, its skip list, and what RAID configuration said in this boot. Reads only.
pub(crate) fn select(cx: &Context, settings: &Settings) -> Result<Selection, Error> {
    let not_found = |error: disk::Error| Error::DeviceNotFound {
        message: format!("the root device hints can not be used: {}", shortened(&hwm::chain(&error))),
    };
    let hints = hints(cx).map(Hints::parse).transpose().map_err(not_found)?;
    let skip = skip_list(cx)?;
    let disks = list(cx, settings)?;
    // What a step of this boot made is newer than what the node says.
    let volumes = match settings.root_volumes.is_empty() {
        true => root_volumes(cx, cx.node_field("/raid_config"))?,
        false => settings.root_volumes.clone(),
    };
    let situation = Situation::look(&cx.host, &disks, &skip, &volumes);
    let root_volume = volumes.iter().find(|(_, is_root)| **is_root);
    let root_volume = root_volume.map(|(volume, _)| volume.as_str());
    if let (Some(volume), true) = (root_volume, hints.is_some()) {
        tracing::warn!(volume, "the root volume of the RAID configuration goes before the root device hints");
    }
    let rules = Rules {
        hints: hints.as_ref(),
        allow: settings.allow.as_ref(),
        situation: Some(&situation),
        root_volume,
    };
    Ok(disk::select(&disks, &rules))
}

/// Every disk there is now, with the arrays among them: those that do not run yet are started first.
pub(crate) fn list(cx: &Context, settings: &Settings) -> Result<Vec<Disk>, Error> {
    let list = || {
        disk::list(&cx.host, settings.allow.as_ref()).map_err(|error| Error::other("listing disks", error))
    };
    let disks = list()?;
    if start_arrays(cx, settings, &disks) { list() } else { Ok(disks) }
}

/// Every disk there is, as soon as there is one: controllers may still be finding theirs. Empty when patience ends.
pub(crate) fn list_patiently(cx: &Context, settings: &Settings) -> Result<Vec<Disk>, Error> {
    for attempt in 1..settings.disk_wait_attempts {
        let disks = list(cx, settings)?;
        if !disks.is_empty() || cx.is_cancelled() {
            return Ok(disks);
        }
        tracing::info!(attempt, attempts = settings.disk_wait_attempts, "waiting for a disk");
        pause(cx, settings.disk_wait_delay);
    }
    list(cx, settings)
}

/// `instance_info.root_device` beats `properties.root_device`; an empty one counts as none.
fn hints(cx: &Context) -> Option<&Value> {
    let given = |pointer| cx.node_field(pointer).filter(|value| !is_empty(value));
    given("/instance_info/root_device").or_else(|| given("/properties/root_device"))
}

/// Whether the node names its root disk.
pub(crate) fn has_hints(cx: &Context) -> bool {
    hints(cx).is_some()
}

/// The same context with the root device hints of another description of the node; what else it says is not taken: lookup
/// masks secrets.
pub(crate) fn with_hints_of(cx: &Context, fresh: &Value) -> Context {
    let mut node = Value::clone(&cx.node);
    for part in ["instance_info", "properties"] {
        let hints = fresh.get(part).and_then(|part| part.get("root_device")).filter(|hints| !hints.is_null());
        let (Some(hints), Some(node)) = (hints, node.as_object_mut()) else { continue };
        let part = node.entry(part).or_insert_with(|| json!({}));
        if let Some(part) = part.as_object_mut() {
            part.insert("root_device".into(), hints.clone());
        }
    }
    cx.with_node(node)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.trim().is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => false,
    }
}

/// `properties.skip_block_devices`: disks that nobody may choose or erase.
pub(crate) fn skip_list(cx: &Context) -> Result<SkipList, Error> {
    let value = cx.node_field("/properties/skip_block_devices").unwrap_or(&Value::Null);
    SkipList::parse(value).map_err(|error| Error::InvalidParameters {
        message: format!("properties.skip_block_devices: {}", shortened(&hwm::chain(&error))),
    })
}

/// The disk that [`select`] chooses, asked again until there is one or patience ends.
pub(crate) fn wait(cx: &Context, settings: &Settings) -> Result<Disk, Error> {
    let mut attempt = 1;
    loop {
        let selection = select(cx, settings)?;
        if let Some(disk) = &selection.chosen {
            warn_of_single_path(cx, &selection, disk);
            return Ok(disk.clone());
        }
        if attempt >= settings.disk_wait_attempts || cx.is_cancelled() {
            let hints = match hints(cx) {
                Some(hints) => {
                    format!("no disk satisfies the root device hints {}", shortened(&hints.to_string()))
                }
                None => "no disk of at least 4 GiB was found, and there are no root device hints".into(),
            };
            return Err(Error::DeviceNotFound { message: format!("{hints}: {}", selection.summary()) });
        }
        tracing::info!(attempt, attempts = settings.disk_wait_attempts, "waiting for a disk to deploy to");
        attempt += 1;
        pause(cx, settings.disk_wait_delay);
    }
}

/// The disk with exactly this device path.
pub(crate) fn by_device(cx: &Context, settings: &Settings, device: &Path) -> Result<Disk, Error> {
    let disks = list(cx, settings)?;
    let names: Vec<String> = disks.iter().map(|disk| disk.name.clone()).collect();
    let wanted = resolve(cx, device);
    disks.into_iter().find(|disk| Path::new(&disk.name) == wanted).ok_or_else(|| Error::DeviceNotFound {
        message: format!(
            "there is no disk {}: there are {} (loop devices count only when the allow-list names them)",
            device.display(),
            if names.is_empty() { "none".into() } else { names.join(", ") }
        ),
    })
}

/// `/dev/disk/by-id/...` and the like lead to a device; what can not be followed stays as it is.
fn resolve(cx: &Context, device: &Path) -> std::path::PathBuf {
    let resolved = std::fs::canonicalize(cx.host.path(device)).ok();
    resolved.filter(|path| path.starts_with("/dev")).unwrap_or_else(|| device.to_owned())
}

/// Says that a disk with several paths is about to be written through one of them.
fn warn_of_single_path(cx: &Context, selection: &Selection, disk: &Disk) {
    let Some(paths) = &selection.paths else { return };
    let message = format!(
        "{} are paths to the same disk ({}), and no multipath device stands for them: only {} is used. If that path fails, \
         so does the deployment; start multipathd in the ramdisk before the agent to use all of them",
        paths.devices.join(", "),
        paths.identity,
        disk.name
    );
    tracing::warn!(
        device = disk.name,
        paths = paths.devices.join(" "),
        "a disk with several paths is used through one"
    );
    cx.events.emit(EventKind::Notice { message });
}

/// What others wrote, at a length that fits an error.
fn shortened(text: &str) -> String {
    const LIMIT: usize = 600;
    match text.char_indices().nth(LIMIT) {
        Some((at, _)) => format!("{} [...]", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Sleeps in short naps, so that a cancelled command ends soon.
fn pause(cx: &Context, total: Duration) {
    let end = Instant::now() + total;
    while !cx.is_cancelled() && Instant::now() < end {
        sleep(end.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;

    fn machine() -> Fixture {
        Fixture::new().disk("sda", 20 << 30).disk("sdb", 10 << 30).disk("sdc", 1 << 30)
    }

    fn quick() -> Settings {
        Settings { disk_wait_attempts: 2, disk_wait_delay: Duration::ZERO, ..Settings::default() }
    }

    fn chosen(node: Value) -> Result<String, Error> {
        let fixture = machine();
        let cx = Context::new(fixture.host(), events::Events::default()).with_node(node);
        wait(&cx, &quick()).map(|disk| disk.name)
    }

    #[test]
    fn instance_hints_beat_properties_beat_size() {
        let properties = json!({"root_device": {"name": "/dev/sda"}});
        assert_eq!(chosen(json!({})).unwrap(), "/dev/sdb");
        assert_eq!(chosen(json!({"properties": properties})).unwrap(), "/dev/sda");
        let both = json!({"properties": properties, "instance_info": {"root_device": {"name": "/dev/sdc"}}});
        assert_eq!(chosen(both).unwrap(), "/dev/sdc");
        let empty = json!({"properties": properties, "instance_info": {"root_device": {}}});
        assert_eq!(chosen(empty).unwrap(), "/dev/sda");
    }

    #[test]
    fn fresh_hints_are_taken_over_and_nothing_else() {
        let cx = Context::new(sys::fake::host("/nonexistent"), events::Events::default());
        let cx = cx
            .with_node(json!({"uuid": "u", "instance_info": {"image_url": "http://i"}, "properties": null}));
        assert!(!has_hints(&cx));
        let masked =
            json!({"uuid": "u", "instance_info": {"image_url": "******"}, "properties": {"cpu_arch": "x"}});
        assert_eq!(with_hints_of(&cx, &masked).node, cx.node);
        let fresh = json!({"instance_info": {"image_url": "******", "root_device": {"name": "/dev/sda"}}});
        let fresh = with_hints_of(&cx, &fresh);
        assert!(has_hints(&fresh));
        assert_eq!(fresh.node["instance_info"]["image_url"], "http://i");
    }

    #[test]
    fn skipped_disks_are_not_chosen() {
        let node = json!({"properties": {"skip_block_devices": [{"name": "/dev/sdb"}]}});
        assert_eq!(chosen(node).unwrap(), "/dev/sda");
        let nonsense = json!({"properties": {"skip_block_devices": "sdb"}});
        assert!(matches!(chosen(nonsense), Err(Error::InvalidParameters { .. })));
    }

    #[test]
    fn no_match_is_not_found_and_names_every_disk() {
        let error = chosen(json!({"properties": {"root_device": {"serial": "nobody"}}})).unwrap_err();
        assert!(matches!(error, Error::DeviceNotFound { .. }), "{error:?}");
        for name in ["/dev/sda", "/dev/sdb", "/dev/sdc", "nobody"] {
            assert!(error.to_string().contains(name), "{error}");
        }
        let wrong = chosen(json!({"properties": {"root_device": {"colour": "red"}}})).unwrap_err();
        assert!(matches!(wrong, Error::DeviceNotFound { .. }));
        let long = json!({"properties": {"root_device": {"serial": "x".repeat(100_000)}}});
        let length = chosen(long).unwrap_err().to_string().len();
        assert!(length < 5000, "{length}");
    }

    #[test]
    fn no_disk_of_four_gib_without_hints_is_not_found() {
        let fixture = Fixture::new().disk("sda", (4 << 30) - 512);
        let cx = Context::new(fixture.host(), events::Events::default());
        let error = wait(&cx, &quick()).unwrap_err();
        assert!(matches!(error, Error::DeviceNotFound { .. }), "{error:?}");
        assert!(error.to_string().contains("is less than 4 GiB"), "{error}");
    }

    #[test]
    fn the_root_volume_of_the_raid_configuration_beats_hints_and_others_are_left_out() {
        let fixture = Fixture::new().disk("sda", 20 << 30).disk("sdb", 30 << 30).disk("md0", 10 << 30);
        let fixture =
            fixture.file("/sys/block/md0/md/level", "raid1\n").directory("/sys/block/md0/slaves/sda");
        let node = json!({"properties": {"root_device": {"name": "/dev/sdb"}}});
        let cx = Context::new(fixture.host(), events::Events::default());
        let with = |is_root| Settings { root_volumes: [("/dev/md0".to_owned(), is_root)].into(), ..quick() };
        assert_eq!(wait(&cx.with_node(node), &with(true)).unwrap().name, "/dev/md0");
        assert_eq!(wait(&cx, &quick()).unwrap().name, "/dev/md0", "the smallest");
        assert_eq!(
            wait(&cx, &with(false)).unwrap().name,
            "/dev/sdb",
            "neither the array nor what it lies on"
        );
    }

    #[test]
    fn several_paths_to_the_chosen_disk_are_told() {
        let fixture = Fixture::new().disk("sda", 20 << 30).disk("sdb", 20 << 30);
        let fixture = fixture
            .file("/sys/block/sda/device/wwid", "naa.5000c50011223344\n")
            .file("/sys/block/sda/device/serial", "ZC1A7X\n")
            .file("/sys/block/sdb/device/wwid", "naa.5000c50011223344\n")
            .file("/sys/block/sdb/device/serial", "ZC1A7X\n");
        let cx = Context::new(fixture.host(), events::Events::default());
        assert_eq!(wait(&cx, &quick()).unwrap().name, "/dev/sda");
        let told = cx.events.after(0, 10).events.into_iter().find_map(|event| match event.kind {
            EventKind::Notice { message } => Some(message),
            _ => None,
        });
        let told = told.unwrap();
        for part in ["/dev/sda, /dev/sdb are paths", "WWN 0x5000c50011223344", "multipathd"] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_disk_that_comes_late_is_waited_for() {
        let fixture = Fixture::new().disk("sda", 1 << 30);
        let cx = Context::new(fixture.host(), events::Events::default());
        let size = fixture.host().path("/sys/block/sda/size");
        let writer = std::thread::spawn(move || {
            sleep(Duration::from_millis(300));
            std::fs::write(size, "20971520\n").unwrap();
        });
        let patient = Settings {
            disk_wait_attempts: 300,
            disk_wait_delay: Duration::from_millis(100),
            ..Settings::default()
        };
        assert_eq!(wait(&cx, &patient).unwrap().name, "/dev/sda");
        writer.join().unwrap();
    }

    #[test]
    fn a_device_is_found_by_its_exact_path_only() {
        let fixture = machine();
        let cx = Context::new(fixture.host(), events::Events::default());
        assert_eq!(by_device(&cx, &quick(), Path::new("/dev/sda")).unwrap().size, 20 << 30);
        let error = by_device(&cx, &quick(), Path::new("/dev/sd")).unwrap_err();
        assert!(error.to_string().contains("/dev/sda, /dev/sdb"), "{error}");
    }
}
