//! What is to be run: the step list of a deployment, the image as the agent wants it described. Source: Ironic
//! `drivers/modules/agent.py`, `conductor/steps.py` (agent protocol page, 8.5).

use serde_json::{Map, Value, json};
use wire::{ImageInfo, Node, Secret, StepKind};

/// Ironic's priority of `write_image`: what an agent advertises above runs before it, what it advertises below after it.
const WRITE_IMAGE_PRIORITY: u64 = 80;
/// Steps of the agent at or above this would run before there is an agent.
const IN_BAND_LIMIT: u64 = 100;

/// Why a node can not be deployed as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(String);

/// The image of a node's `instance_info`, as it goes to the agent.
pub fn image_info(node: &Node) -> Result<ImageInfo, PlanError> {
    let info = &node.instance_info;
    let text = |key: &str| match info.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
        Some(_) => Err(PlanError(format!("instance_info/{key} must be a text"))),
    };
    let source = text("image_source")?
        .ok_or_else(|| PlanError("instance_info/image_source is missing: give the image's URL".into()))?;
    if !source.starts_with("http://") && !source.starts_with("https://") {
        return Err(PlanError(format!(
            "instance_info/image_source is \"{source}\": it must be an http or https URL"
        )));
    }
    if text("image_type")?.is_some_and(|kind| kind == "partition") {
        return Err(PlanError(
            "instance_info/image_type is partition: only whole-disk images can be deployed".into(),
        ));
    }
    let checksum = text("image_checksum")?;
    let (algorithm, value) = (text("image_os_hash_algo")?, text("image_os_hash_value")?);
    match (&checksum, &algorithm, &value) {
        (_, Some(_), None) | (_, None, Some(_)) => {
            let both = "instance_info/image_os_hash_algo and image_os_hash_value go together";
            return Err(PlanError(both.into()));
        }
        (None, None, None) => {
            return Err(PlanError(
                "the image has no checksum: set instance_info/image_os_hash_algo and image_os_hash_value, or image_checksum".into(),
            ));
        }
        _ => {}
    }
    // A label for messages: what stands behind the last slash, without a query.
    let path = source.split(['?', '#']).next().unwrap_or(&source);
    let id = path.trim_end_matches('/').rsplit('/').next().filter(|id| !id.is_empty()).unwrap_or("image");
    Ok(ImageInfo {
        id: id.to_owned(),
        urls: vec![source.clone()],
        checksum,
        os_hash_algo: algorithm,
        os_hash_value: value,
        disk_format: text("image_disk_format")?,
        stream_raw_images: true,
        node_uuid: Some(node.uuid.to_string()),
        image_server_auth_strategy: text("image_server_auth_strategy")?,
        image_server_user: text("image_server_user")?,
        image_server_password: text("image_server_password")?.map(Secret::new),
        signature: text("image_signature")?,
        signature_url: text("image_signature_url")?,
        signature_keys: keys(info.get("image_signature_keys"))?,
        verify: truth(info.get("image_verify"))?,
        ..ImageInfo::default()
    })
}

/// The public keys that the image may be signed with: one, or a list.
fn keys(value: Option<&Value>) -> Result<Option<Vec<String>>, PlanError> {
    let wrong = || PlanError("instance_info/image_signature_keys must be a list of texts".into());
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(key)) => Ok(Some(vec![key.clone()])),
        Some(Value::Array(keys)) => keys
            .iter()
            .map(|key| key.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Some)
            .ok_or_else(wrong),
        Some(_) => Err(wrong()),
    }
}

fn truth(value: Option<&Value>) -> Result<Option<bool>, PlanError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(truth)) => Ok(Some(*truth)),
        Some(_) => Err(PlanError("instance_info/image_verify must be true or false".into())),
    }
}

/// Checks that a node can be deployed: a ramdisk to boot, an image to write.
pub fn check(node: &Node, has_ramdisk: bool) -> Result<(), PlanError> {
    if !has_ramdisk {
        let text = "the controller has no ramdisk: start it with `ferric serve --ramdisk DIR`, where DIR holds kernel and initramfs";
        return Err(PlanError(text.into()));
    }
    image_info(node).map(|_| ())
}

/// The steps of a deployment: the agent's own with a priority, and `write_image`, by descending priority; `deploy` before
/// `raid` where they are equal.
pub fn deploy_steps(node: &Node, listed: &Value) -> Result<Vec<Map<String, Value>>, PlanError> {
    let mut steps = in_band(StepKind::Deploy, listed)?;
    steps.retain(|step| priority(step) < IN_BAND_LIMIT);
    let image = serde_json::to_value(image_info(node)?)
        .map_err(|e| PlanError(format!("describing the image: {e}")))?;
    let configdrive = node.instance_info.get("configdrive").cloned().unwrap_or(Value::Null);
    let write = json!({
        "interface": "deploy", "step": "write_image", "priority": WRITE_IMAGE_PRIORITY,
        "args": { "image_info": image, "configdrive": configdrive },
    });
    if let Value::Object(write) = write {
        steps.push(write);
    }
    sort(&mut steps);
    Ok(steps)
}

/// The steps of an automated cleaning: those with a priority, descending.
pub fn clean_steps(listed: &Value) -> Result<Vec<Map<String, Value>>, PlanError> {
    let mut steps = in_band(StepKind::Clean, listed)?;
    sort(&mut steps);
    Ok(steps)
}

/// The agent's steps with a priority above 0.
fn in_band(kind: StepKind, listed: &Value) -> Result<Vec<Map<String, Value>>, PlanError> {
    let key = format!("{}_steps", kind.name());
    let managers = listed
        .get(&key)
        .and_then(Value::as_object)
        .ok_or_else(|| PlanError(format!("the agent's answer has no {key}")))?;
    let mut steps = Vec::new();
    for step in managers.values().filter_map(Value::as_array).flatten() {
        let object =
            step.as_object().ok_or_else(|| PlanError(format!("the agent lists {step}, which is no step")))?;
        for needed in ["step", "interface", "priority"] {
            if object.get(needed).is_none() {
                return Err(PlanError(format!("the agent lists a step without {needed}: {step}")));
            }
        }
        if priority(object) > 0 {
            steps.push(object.clone());
        }
    }
    Ok(steps)
}

fn priority(step: &Map<String, Value>) -> u64 {
    step.get("priority").and_then(Value::as_u64).unwrap_or(0)
}

fn sort(steps: &mut [Map<String, Value>]) {
    let interface = |step: &Map<String, Value>| {
        step.get("interface").and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    steps.sort_by(|a, b| priority(b).cmp(&priority(a)).then_with(|| interface(a).cmp(&interface(b))));
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn node(info: Value) -> Node {
        let mut node = Node::new(Uuid::from_u128(3), "qemu");
        node.instance_info = info.as_object().unwrap().clone();
        node
    }

    fn image() -> Value {
        json!({
            "image_source": "http://h/images/debian.qcow2?x=1", "image_os_hash_algo": "sha256",
            "image_os_hash_value": "aa", "image_disk_format": "qcow2", "configdrive": "H4sI",
        })
    }

    #[test]
    fn the_image_is_written_between_the_agents_own_steps() {
        let listed = json!({"deploy_steps": {
            "A": [
                {"step": "before", "priority": 90, "interface": "deploy", "reboot_requested": false},
                {"step": "after", "priority": 70, "interface": "deploy", "reboot_requested": false},
                {"step": "on_request", "priority": 0, "interface": "deploy", "reboot_requested": false},
                {"step": "raid_first", "priority": 90, "interface": "raid", "reboot_requested": false},
                {"step": "too_early", "priority": 100, "interface": "deploy", "reboot_requested": false},
            ],
        }, "hardware_manager_version": {}});
        let steps = deploy_steps(&node(image()), &listed).unwrap();
        let names: Vec<_> = steps.iter().map(|s| s.get("step").unwrap().as_str().unwrap()).collect();
        assert_eq!(names, ["before", "raid_first", "write_image", "after"]);
        let args = steps.get(2).unwrap().get("args").unwrap();
        assert_eq!(args.get("configdrive"), Some(&json!("H4sI")));
        assert_eq!(args.pointer("/image_info/id"), Some(&json!("debian.qcow2")));
        assert_eq!(args.pointer("/image_info/urls/0"), Some(&json!("http://h/images/debian.qcow2?x=1")));
        assert_eq!(args.pointer("/image_info/stream_raw_images"), Some(&json!(true)));
    }

    #[test]
    fn what_can_not_be_deployed_is_said_before_the_machine_is_touched() {
        for (change, word) in [
            (json!({"image_source": null}), "image_source is missing"),
            (json!({"image_source": "file:///etc/passwd"}), "http or https"),
            (json!({"image_os_hash_value": null}), "go together"),
            (json!({"image_os_hash_value": null, "image_os_hash_algo": null}), "no checksum"),
            (json!({"image_type": "partition"}), "whole-disk"),
        ] {
            let mut info = image();
            info.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let error = check(&node(info), true).unwrap_err();
            assert!(error.0.contains(word), "{error}");
        }
        assert!(check(&node(image()), false).unwrap_err().0.contains("--ramdisk"));
        assert_eq!(check(&node(image()), true), Ok(()));
    }

    #[test]
    fn a_step_without_its_mandatory_keys_is_refused() {
        let listed = json!({"clean_steps": {"A": [{"step": "x", "priority": 1}]}});
        assert!(clean_steps(&listed).unwrap_err().0.contains("without interface"));
        assert!(clean_steps(&json!({})).is_err());
    }
}
