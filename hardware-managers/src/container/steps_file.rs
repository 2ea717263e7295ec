//! The YAML file with which a ramdisk brings container steps of its own:
//!
//! ```yaml
//! steps:
//!   - name: update_firmware
//!     image: registry.example.com/firmware:1
//!     interface: deploy
//!     priority: 20            # when cleaning; elsewhere the step runs only when asked for
//!     reboot_requested: true
//!     abortable: true
//!     pull_options: --quiet   # optional; text or a list
//!     run_options: --rm       # optional
//! ```

use std::io;

use hwm::{Context, Error};
use saphyr::{LoadableYamlNode, Yaml};
use wire::{Step, StepKind};

use crate::settings::Containers;

/// A step of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileStep {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) interface: String,
    pub(super) priority: u32,
    pub(super) reboot_requested: bool,
    pub(super) abortable: bool,
    pub(super) pull_options: Vec<String>,
    pub(super) run_options: Vec<String>,
}

impl FileStep {
    /// As it is advertised. Its priority is meant for cleaning: a deployment must not run it by itself.
    pub(super) fn advertised(&self, kind: StepKind) -> Step {
        Step {
            step: self.name.clone(),
            priority: if kind == StepKind::Clean { self.priority } else { 0 },
            interface: self.interface.clone(),
            reboot_requested: self.reboot_requested,
            abortable: Some(self.abortable),
            argsinfo: None,
        }
    }
}

/// The steps of the configured file; none when there is no file.
///
/// # Errors
/// `Configuration` for a file that can not be read, or that holds something else.
pub(super) fn read(cx: &Context, containers: &Containers, reserved: &[&str]) -> Result<Vec<FileStep>, Error> {
    let file = &containers.steps_file;
    let text = match std::fs::read_to_string(cx.host.path(file)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Error::Configuration {
                message: format!("reading the container steps of {}: {error}", file.display()),
            });
        }
    };
    parse(&text, reserved).map_err(|reason| Error::Configuration {
        message: format!("the container steps of {}: {reason}", file.display()),
    })
}

fn parse(text: &str, reserved: &[&str]) -> Result<Vec<FileStep>, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
    let Some(document) = documents.first().filter(|document| !document.is_null()) else {
        return Ok(Vec::new());
    };
    if !document.is_mapping() {
        return Err("it must be a mapping with the key `steps`".into());
    }
    let steps = match document.as_mapping_get("steps") {
        None => return Ok(Vec::new()),
        Some(steps) if steps.is_null() => return Ok(Vec::new()),
        Some(steps) => steps.as_sequence().ok_or("`steps` must be a list")?,
    };
    let mut read: Vec<FileStep> = Vec::new();
    for (index, entry) in (1..).zip(steps) {
        let step =
            step(entry).map_err(|reason| match entry.as_mapping_get("name").and_then(Yaml::as_str) {
                Some(name) => format!("step `{name}`: {reason}"),
                None => format!("step {index}: {reason}"),
            })?;
        if reserved.contains(&step.name.as_str()) {
            return Err(format!(
                "step `{}` would take the place of a built-in step: give it another name",
                step.name
            ));
        }
        if read.iter().any(|other| other.name == step.name) {
            return Err(format!("there are two steps named `{}`", step.name));
        }
        read.push(step);
    }
    Ok(read)
}

fn step(entry: &Yaml<'_>) -> Result<FileStep, String> {
    if !entry.is_mapping() {
        return Err("a step must be a mapping".into());
    }
    let get = |key: &str| entry.as_mapping_get(key).filter(|value| !value.is_null());
    let needed = |key: &str| get(key).ok_or_else(|| format!("it needs the key `{key}`"));
    let text = |key: &str| {
        needed(key)?
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| format!("`{key}` must be text"))
    };
    let flag = |key: &str| truth(needed(key)?).ok_or_else(|| format!("`{key}` must be true or false"));
    let priority = needed("priority")?.as_integer().and_then(|number| u32::try_from(number).ok());
    Ok(FileStep {
        name: text("name")?,
        image: text("image")?,
        interface: text("interface")?,
        priority: priority.ok_or("`priority` must be a number from 0")?,
        reboot_requested: flag("reboot_requested")?,
        abortable: flag("abortable")?,
        pull_options: words(get("pull_options")).ok_or("`pull_options` must be text or a list of texts")?,
        run_options: words(get("run_options")).ok_or("`run_options` must be text or a list of texts")?,
    })
}

/// Also in the words of YAML 1.1, which Python reads as truth values.
fn truth(value: &Yaml<'_>) -> Option<bool> {
    value.as_bool().or_else(|| match value.as_str()?.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => Some(true),
        "no" | "off" | "false" => Some(false),
        _ => None,
    })
}

fn words(value: Option<&Yaml<'_>>) -> Option<Vec<String>> {
    let split = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let Some(value) = value else { return Some(Vec::new()) };
    if let Some(text) = value.as_str() {
        return Some(split(text));
    }
    let texts: Option<Vec<&str>> = value.as_sequence()?.iter().map(Yaml::as_str).collect();
    Some(texts?.into_iter().flat_map(split).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEP: &str = "
  - name: update_firmware
    image: registry.example.com/firmware:1
    interface: deploy
    priority: 20
    reboot_requested: true
    abortable: no
    run_options: [--rm, \"-e A=1\"]
";

    #[test]
    fn a_file_of_steps_is_read() {
        let steps = parse(&format!("steps:{STEP}"), &[]).unwrap();
        let wanted = FileStep {
            name: "update_firmware".into(),
            image: "registry.example.com/firmware:1".into(),
            interface: "deploy".into(),
            priority: 20,
            reboot_requested: true,
            abortable: false,
            pull_options: vec![],
            run_options: ["--rm", "-e", "A=1"].map(str::to_owned).into(),
        };
        assert_eq!(steps.first(), Some(&wanted));
        assert_eq!(steps.len(), 1);
        assert_eq!(wanted.advertised(StepKind::Clean).priority, 20);
        assert_eq!(wanted.advertised(StepKind::Deploy).priority, 0);
        assert_eq!(wanted.advertised(StepKind::Service).priority, 0);
    }

    #[test]
    fn files_without_steps_have_none() {
        for text in ["", "---\n", "steps:\n", "steps: []\n", "# nothing\n", "other: 1\n"] {
            assert_eq!(parse(text, &[]), Ok(vec![]), "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let without = |key: &str| {
            let lines = STEP.lines().filter(|line| !line.contains(&format!("{key}:")));
            format!(
                "steps:\n  - x: 1\n{}",
                lines.map(|line| line.replace("- ", "  ") + "\n").collect::<String>()
            )
        };
        for (text, word) in [
            ("- a\n".to_owned(), "mapping"),
            ("steps: 5\n".to_owned(), "list"),
            ("steps: [x]\n".to_owned(), "step 1"),
            ("steps: [".to_owned(), ""),
            (without("name"), "`name`"),
            (without("image"), "`image`"),
            (without("interface"), "`interface`"),
            (without("priority"), "step `update_firmware`: it needs the key `priority`"),
            (without("reboot_requested"), "`reboot_requested`"),
            (without("abortable"), "`abortable`"),
            (format!("steps:{}", STEP.replace("20", "-1")), "`priority`"),
            (format!("steps:{}", STEP.replace("20", "high")), "`priority`"),
            (format!("steps:{}", STEP.replace("no", "perhaps")), "`abortable`"),
            (format!("steps:{}", STEP.replace("[--rm, \"-e A=1\"]", "[[x]]")), "`run_options`"),
            (format!("steps:{STEP}{STEP}"), "two steps"),
        ] {
            let error = parse(&text, &[]).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        let taken = parse(&format!("steps:{STEP}"), &["update_firmware"]).unwrap_err();
        assert!(taken.contains("built-in"), "{taken}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z:\\-\\[\\]{}&*!|>'\"#%@, \n]{0,80}") {
            let _ = parse(&text, &[]);
        }
    }
}
