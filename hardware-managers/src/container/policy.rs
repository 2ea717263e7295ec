//! Which image may run, and with which options.
//!
//! The options alone can defeat a list of images (`--privileged`, a mounted disk): who may not choose the image may not choose
//! them either. Images of the steps file are the operator's own and not held to the list.

use hwm::Error;
use serde_json::{Map, Value};

use crate::settings::Containers;

/// An image that may run, with its options.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Permitted {
    pub(super) image: String,
    pub(super) pull_options: Vec<String>,
    pub(super) run_options: Vec<String>,
}

/// Who asks for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The steps file of the ramdisk.
    Ramdisk,
    /// The arguments of a step.
    Arguments,
}

/// Decides about `image` with the options that were asked for; empty ones mean the configured ones.
pub(super) fn permit(
    containers: &Containers,
    origin: Origin,
    image: &str,
    pull_options: Vec<String>,
    run_options: Vec<String>,
) -> Result<Permitted, Error> {
    if image.is_empty()
        || image.starts_with('-')
        || image.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(invalid("container_url must name an image"));
    }
    let configured_pull = || split(&containers.pull_options);
    let configured_run = || split(&containers.run_options);
    let or = |given: Vec<String>, configured: Vec<String>| if given.is_empty() { configured } else { given };
    let image = image.to_owned();
    if origin == Origin::Ramdisk || containers.allow_arbitrary {
        let pull_options = or(pull_options, configured_pull());
        return Ok(Permitted { image, pull_options, run_options: or(run_options, configured_run()) });
    }
    if !containers.allowed.iter().any(|allowed| plain(allowed) == plain(&image)) {
        let allowed = containers.allowed.join(" ");
        tracing::error!(image, allowed, "a container image is not permitted");
        return Err(Error::ContainerNotPermitted {
            message: format!(
                "the container image {image} is not in [container]allowed_containers, and \
                 [container]allow_arbitrary_containers is off"
            ),
        });
    }
    Ok(Permitted { image, pull_options: configured_pull(), run_options: configured_run() })
}

/// An image without the transport that means "a registry". Any other transport stays, and so matches nothing.
fn plain(image: &str) -> &str {
    image.strip_prefix("docker://").or_else(|| image.strip_prefix("oci://")).unwrap_or(image)
}

/// Options are words: every entry is split at blanks.
fn split(options: &[String]) -> Vec<String> {
    options.iter().flat_map(|option| option.split_whitespace()).map(str::to_owned).collect()
}

/// The argument `container_url`.
pub(super) fn image(arguments: &Map<String, Value>, step: &str) -> Result<String, Error> {
    match arguments.get("container_url") {
        None => Err(Error::Arguments { message: format!("step {step} needs the argument container_url") }),
        Some(Value::String(image)) if !image.is_empty() => Ok(image.clone()),
        Some(_) => Err(invalid("container_url must be text that names an image")),
    }
}

/// Options as they come: nothing, text, or a list of texts.
pub(super) fn options(value: Option<&Value>, name: &str) -> Result<Vec<String>, Error> {
    let wrong = || invalid(format!("{name} must be text or a list of texts"));
    let words = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
    };
    Ok(split(&words))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::InvalidParameters { message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn containers(allowed: &[&str], arbitrary: bool) -> Containers {
        Containers {
            allow_arbitrary: arbitrary,
            allowed: allowed.iter().map(|image| (*image).to_owned()).collect(),
            pull_options: vec!["--quiet".into()],
            run_options: vec!["--rm --network=host".into()],
            ..Containers::default()
        }
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn listed_images_run_with_the_configured_options_only() {
        let containers = containers(&["docker://example.com/tool:1"], false);
        for image in ["example.com/tool:1", "docker://example.com/tool:1", "oci://example.com/tool:1"] {
            let permitted = permit(
                &containers,
                Origin::Arguments,
                image,
                words("--tls-verify=false"),
                words("--privileged"),
            );
            let wanted = Permitted {
                image: image.into(),
                pull_options: words("--quiet"),
                run_options: words("--rm --network=host"),
            };
            assert_eq!(permitted.unwrap(), wanted);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let containers = containers(&["example.com/tool:1", "containers-storage:example.com/x"], false);
        for image in [
            "example.com/tool",
            "example.com/tool:2",
            "example.com/tool:1@sha256:0",
            "docker://docker://example.com/tool:1",
            "containers-storage:example.com/tool:1",
            "EXAMPLE.com/tool:1",
        ] {
            let refused = permit(&containers, Origin::Arguments, image, vec![], vec![]);
            assert!(
                matches!(&refused, Err(Error::ContainerNotPermitted { message }) if message.contains(image)),
                "{image}: {refused:?}"
            );
        }
    }

    #[test]
    fn the_operators_own_images_and_open_ramdisks_choose_their_options() {
        for (containers, origin) in
            [(containers(&[], false), Origin::Ramdisk), (containers(&[], true), Origin::Arguments)]
        {
            let permitted = permit(&containers, origin, "x", vec![], words("--privileged")).unwrap();
            assert_eq!(permitted.run_options, words("--privileged"));
            assert_eq!(permitted.pull_options, words("--quiet"), "what is not given is the configured");
        }
    }

    #[test]
    fn an_image_that_would_be_an_option_is_none() {
        for image in ["--privileged", "", "a b", "a\nb"] {
            let refused = permit(&containers(&[image], true), Origin::Arguments, image, vec![], vec![]);
            assert!(matches!(refused, Err(Error::InvalidParameters { .. })), "{image:?}");
        }
    }

    #[test]
    fn arguments_are_read_in_every_form_they_come_in() {
        assert_eq!(options(Some(&json!("-e A=1  --rm")), "run_options").unwrap(), words("-e A=1 --rm"));
        assert_eq!(options(Some(&json!(["-e A=1", "--rm"])), "run_options").unwrap(), words("-e A=1 --rm"));
        assert!(options(Some(&Value::Null), "run_options").unwrap().is_empty());
        assert!(options(Some(&json!([1])), "run_options").unwrap_err().to_string().contains("run_options"));
        assert!(options(Some(&json!({})), "pull_options").is_err());
        let missing = image(json!({}).as_object().unwrap(), "generic_container_step");
        assert!(matches!(missing, Err(Error::Arguments { .. })));
        for url in [json!(null), json!(""), json!(["x"]), json!({"x": 1})] {
            let wrong = image(json!({"container_url": url}).as_object().unwrap(), "s");
            assert!(matches!(wrong, Err(Error::InvalidParameters { .. })), "{url}");
        }
    }
}
