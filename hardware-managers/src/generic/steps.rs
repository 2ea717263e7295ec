//! The steps of the generic manager: what it advertises, and how the arguments of each are read.
//!
//! The lists name only what is implemented. Names, priorities and keys are API (agent protocol page, 2.4): a change here
//! is a change of the manager's version.

use hwm::Error;
use serde_json::{Map, Value};
use wire::{ImageInfo, Secret, Step, StepKind};

/// A step of the generic manager, as a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GenericStep {
    /// Removes partition tables and signatures from every disk.
    EraseDevicesMetadata,
    /// Writes an image to the root disk.
    WriteImage,
}

impl GenericStep {
    /// The step of a name. Any step runs in any kind, as upstream: the advertised lists only say what runs by itself.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "erase_devices_metadata" => Some(Self::EraseDevicesMetadata),
            "write_image" => Some(Self::WriteImage),
            _ => None,
        }
    }
}

/// What is advertised for a kind.
pub(crate) fn advertised(kind: StepKind) -> Vec<Step> {
    let step = |name: &str, priority, abortable| Step {
        step: name.into(),
        priority,
        interface: "deploy".into(),
        reboot_requested: false,
        abortable,
        argsinfo: None,
    };
    match kind {
        StepKind::Clean => vec![step("erase_devices_metadata", 99, Some(true))],
        StepKind::Deploy => vec![step("erase_devices_metadata", 0, None), step("write_image", 0, None)],
        StepKind::Service => vec![step("write_image", 0, None)],
    }
}

/// The arguments of `write_image`.
#[derive(Debug)]
pub(crate) struct WriteImage {
    pub(crate) image_info: ImageInfo,
    pub(crate) configdrive: Option<Secret>,
}

impl WriteImage {
    /// Reads `{"image_info": {...}, "configdrive": text or null}`.
    pub(crate) fn parse(arguments: &Map<String, Value>) -> Result<Self, Error> {
        only(arguments, "write_image", &["image_info", "configdrive"])?;
        let image_info = match arguments.get("image_info") {
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|error| invalid(format!("argument image_info of step write_image: {error}")))?,
            None => return Err(invalid("step write_image needs the argument image_info")),
        };
        let configdrive = match arguments.get("configdrive") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(Secret::new(text.clone())),
            Some(_) => return Err(invalid("argument configdrive of step write_image is not text")),
        };
        Ok(Self { image_info, configdrive })
    }
}

/// Refuses arguments that a step does not have, by name.
pub(crate) fn only(arguments: &Map<String, Value>, step: &str, known: &[&str]) -> Result<(), Error> {
    let unknown: Vec<&str> =
        arguments.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let takes =
        if known.is_empty() { "takes no arguments".into() } else { format!("takes {}", known.join(", ")) };
    Err(invalid(format!("step {step} {takes}, and was given {}", unknown.join(", "))))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::InvalidParameters { message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn advertised_lists_are_exactly_these() {
        let list = |kind| serde_json::to_value(advertised(kind)).unwrap();
        let step = |name: &str, priority: u32| json!({"step": name, "priority": priority, "interface": "deploy", "reboot_requested": false});
        let mut erase = step("erase_devices_metadata", 99);
        erase["abortable"] = json!(true);
        assert_eq!(list(StepKind::Clean), json!([erase]));
        assert_eq!(
            list(StepKind::Deploy),
            json!([step("erase_devices_metadata", 0), step("write_image", 0)])
        );
        assert_eq!(list(StepKind::Service), json!([step("write_image", 0)]));
    }

    #[test]
    fn every_advertised_step_can_be_run() {
        for kind in [StepKind::Clean, StepKind::Deploy, StepKind::Service] {
            for step in advertised(kind) {
                assert!(GenericStep::parse(&step.step).is_some(), "{}", step.step);
            }
        }
    }

    fn parse(value: Value) -> Result<WriteImage, Error> {
        WriteImage::parse(value.as_object().unwrap())
    }

    #[test]
    fn write_image_takes_what_the_conductor_sends() {
        let read = parse(json!({
            "image_info": {"id": "d.raw", "urls": ["http://h/d.raw"], "container_format": "bare", "new": 1},
            "configdrive": null,
        }))
        .unwrap();
        assert_eq!(read.image_info.id, "d.raw");
        assert!(read.configdrive.is_none());
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (arguments, word) in [
            (json!({}), "image_info"),
            (json!({"image_info": {"id": "x", "urls": []}, "force": 1, "speed": 2}), "force, speed"),
            (json!({"image_info": {"urls": []}}), "id"),
            (json!({"image_info": {"id": "x", "urls": ["u"]}, "configdrive": {}}), "configdrive"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(matches!(error, Error::InvalidParameters { .. }), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
        }
        let error = only(json!({"x": 1}).as_object().unwrap(), "erase_devices_metadata", &[]).unwrap_err();
        assert_eq!(error.to_string(), "step erase_devices_metadata takes no arguments, and was given x");
    }
}
