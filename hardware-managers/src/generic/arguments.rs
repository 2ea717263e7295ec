//! Reading the arguments of a step: which there may be, which there must be, and of which type.

use hwm::{Context, Error};
use serde_json::{Map, Value};
use wire::{ImageInfo, Secret};

use crate::deployment::InstallBootc;

/// Refuses arguments that a step does not have, by name.
pub(crate) fn only(arguments: &Map<String, Value>, step: &str, known: &[&str]) -> Result<(), Error> {
    let unknown: Vec<&str> =
        arguments.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let takes =
        if known.is_empty() { "takes no arguments".into() } else { format!("takes {}", known.join(", ")) };
    Err(Error::Arguments { message: format!("step {step} {takes}, and was given {}", unknown.join(", ")) })
}

/// An argument that must be there; null counts as a value.
pub(crate) fn required<'a>(
    arguments: &'a Map<String, Value>,
    step: &str,
    name: &str,
) -> Result<&'a Value, Error> {
    arguments
        .get(name)
        .ok_or_else(|| Error::Arguments { message: format!("step {step} needs the argument {name}") })
}

/// An argument that makes no sense.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::InvalidParameters { message: message.into() }
}

/// The arguments of `write_image`. Not `Debug`: a config drive holds secrets.
pub(crate) struct WriteImage<'a> {
    pub(crate) image_info: ImageInfo,
    /// Not copied: it may be large.
    pub(crate) configdrive: Option<&'a str>,
}

impl<'a> WriteImage<'a> {
    /// Reads `{"image_info": {...}, "configdrive": text or null}`.
    pub(crate) fn parse(arguments: &'a Map<String, Value>) -> Result<Self, Error> {
        only(arguments, "write_image", &["image_info", "configdrive"])?;
        let image_info = required(arguments, "write_image", "image_info")?;
        let image_info = serde_json::from_value(image_info.clone())
            .map_err(|error| invalid(format!("argument image_info of step write_image: {error}")))?;
        let configdrive = text(arguments, "write_image", "configdrive")?;
        Ok(Self { image_info, configdrive })
    }
}

/// Reads the arguments of `execute_bootc_install`, all of which must be there; the rest is the node's.
pub(crate) fn install_bootc(arguments: &Map<String, Value>, cx: &Context) -> Result<InstallBootc, Error> {
    const STEP: &str = "execute_bootc_install";
    const NAMES: [&str; 3] = ["image_source", "configdrive", "oci_pull_secret"];
    only(arguments, STEP, &NAMES)?;
    for name in NAMES {
        required(arguments, STEP, name)?;
    }
    let image_source = arguments.get("image_source").and_then(Value::as_str);
    let instance_info = cx.node_field("/instance_info").and_then(Value::as_object);
    Ok(InstallBootc {
        image_source: image_source
            .ok_or_else(|| invalid(format!("argument image_source of step {STEP} is not text")))?
            .to_owned(),
        instance_info: instance_info.cloned().unwrap_or_default(),
        pull_secret: secret(arguments, STEP, "oci_pull_secret")?,
        configdrive: secret(arguments, STEP, "configdrive")?,
    })
}

/// An argument that is text that nobody shall see; null and absent are the same.
fn secret(arguments: &Map<String, Value>, step: &str, name: &str) -> Result<Option<Secret>, Error> {
    Ok(text(arguments, step, name)?.map(Secret::new))
}

/// The same, where it is.
fn text<'a>(arguments: &'a Map<String, Value>, step: &str, name: &str) -> Result<Option<&'a str>, Error> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("argument {name} of step {step} is not text"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The image's id, and whether there is a config drive.
    fn parse(value: Value) -> Result<(String, bool), Error> {
        let read = WriteImage::parse(value.as_object().unwrap())?;
        Ok((read.image_info.id, read.configdrive.is_some()))
    }

    #[test]
    fn write_image_takes_what_the_conductor_sends() {
        let read = parse(json!({
            "image_info": {"id": "d.raw", "urls": ["http://h/d.raw"], "container_format": "bare", "new": 1},
            "configdrive": null,
        }))
        .unwrap();
        assert_eq!(read, ("d.raw".to_owned(), false));
    }

    #[test]
    fn missing_and_unknown_arguments_are_named() {
        for (arguments, word) in [
            (json!({}), "image_info"),
            (json!({"image_info": {"id": "x", "urls": []}, "force": 1, "speed": 2}), "force, speed"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(matches!(error, Error::Arguments { .. }), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
        }
        let error = only(json!({"x": 1}).as_object().unwrap(), "erase_devices_metadata", &[]).unwrap_err();
        assert_eq!(error.to_string(), "step erase_devices_metadata takes no arguments, and was given x");
    }

    #[test]
    fn arguments_of_the_wrong_type_are_named() {
        for (arguments, word) in [
            (json!({"image_info": {"urls": []}}), "id"),
            (json!({"image_info": {"id": "x", "urls": ["u"]}, "configdrive": {}}), "configdrive"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(matches!(error, Error::InvalidParameters { .. }), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_container_comes_with_all_its_arguments_and_the_nodes_wishes() {
        let root = tempfile::tempdir().unwrap();
        let cx = Context::new(sys::fake::host(root.path()), events::Events::default())
            .with_node(json!({"instance_info": {"bootc_tpm2_luks": true}}));
        let read = |value: Value| install_bootc(value.as_object().unwrap(), &cx);
        let all = json!({"image_source": "oci://h/p", "configdrive": null, "oci_pull_secret": "c2VjcmV0"});
        let request = read(all.clone()).unwrap();
        assert_eq!(request.image_source, "oci://h/p");
        assert_eq!(request.instance_info["bootc_tpm2_luks"], true);
        assert!(request.configdrive.is_none() && request.pull_secret.is_some());
        for name in ["image_source", "configdrive", "oci_pull_secret"] {
            let mut fewer = all.clone();
            fewer.as_object_mut().unwrap().remove(name);
            assert!(matches!(read(fewer), Err(Error::Arguments { message }) if message.contains(name)));
            let mut wrong = all.clone();
            wrong[name] = json!(7);
            assert!(matches!(read(wrong), Err(Error::InvalidParameters { .. })), "{name}");
        }
    }
}
