//! Which disk an image goes to: the node's root device hints, its skip list, and patience for disks that come late.
//! Source: data plane page, 2.2 to 2.4. Reads only.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use disk::{Hints, Selection};
use hwm::{Context, Error};
use serde_json::{Value, json};
use wire::Disk;

use crate::settings::Settings;

/// Judges every disk by the node's hints.
pub(crate) fn select(cx: &Context, settings: &Settings) -> Result<Selection, Error> {
    let not_found = |error: disk::Error| Error::DeviceNotFound { message: hwm::chain(&error) };
    let hints = hints(cx).map(Hints::parse).transpose().map_err(not_found)?;
    let disks =
        disk::list(&cx.host, settings.allow.as_ref()).map_err(|e| Error::other("listing disks", e))?;
    Ok(disk::select(&disks, hints.as_ref(), settings.allow.as_ref(), &skip_list(cx)?))
}

/// Every disk there is now.
pub(crate) fn list(cx: &Context, settings: &Settings) -> Result<Vec<Disk>, Error> {
    disk::list(&cx.host, settings.allow.as_ref()).map_err(|error| Error::other("listing disks", error))
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
pub(crate) fn skip_list(cx: &Context) -> Result<Vec<Hints>, Error> {
    match cx.node_field("/properties/skip_block_devices") {
        None => Ok(Vec::new()),
        Some(value) => Hints::parse_skip_list(value).map_err(|error| Error::InvalidParameters {
            message: format!("properties.skip_block_devices: {}", hwm::chain(&error)),
        }),
    }
}

/// The disk that [`select`] chooses, asked again until there is one or patience ends.
pub(crate) fn wait(cx: &Context, settings: &Settings) -> Result<Disk, Error> {
    let mut attempt = 1;
    loop {
        let selection = select(cx, settings)?;
        let reasons = selection.to_string();
        if let Some(disk) = selection.chosen {
            return Ok(disk);
        }
        if attempt >= settings.disk_wait_attempts || cx.is_cancelled() {
            let hints = match hints(cx) {
                Some(hints) => format!("no disk satisfies the root device hints {hints}"),
                None => "no disk of at least 4 GiB was found, and there are no root device hints".into(),
            };
            return Err(Error::DeviceNotFound { message: format!("{hints}: {}", one_line(&reasons)) });
        }
        tracing::info!(attempt, attempts = settings.disk_wait_attempts, "waiting for a disk to deploy to");
        attempt += 1;
        pause(cx, settings.disk_wait_delay);
    }
}

/// The disk with exactly this device path.
pub(crate) fn by_device(cx: &Context, settings: &Settings, device: &Path) -> Result<Disk, Error> {
    let disks =
        disk::list(&cx.host, settings.allow.as_ref()).map_err(|e| Error::other("listing disks", e))?;
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

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("; ")
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
