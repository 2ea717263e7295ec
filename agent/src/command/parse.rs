//! The closed set of commands, and the one place where a request becomes one of them. Pure.
//!
//! The order of the checks is observable (agent protocol page, 1.7): name without a dot, unknown extension, unknown command,
//! parameters. Keys that carry whole objects (`node`, `step`) stay generic JSON: new fields appear in them over time.

use hardware_managers::{InstallBootc, InstallBootloader};
use serde::Deserialize;
use serde_json::{Map, Value};
use wire::{ImageInfo, Secret, StepKind};

use super::error::{ErrorClass, Failure};
use super::flow::{self, Flow};
use super::parameters::Params;

/// A command with its parameters.
#[derive(Clone, Debug)]
pub enum Command {
    /// `standby.prepare_image`: **writes an image to a disk.**
    PrepareImage {
        /// Which image.
        image_info: Box<ImageInfo>,
        /// URL, or base64 of a gzipped ISO image.
        configdrive: Option<Secret>,
    },
    /// `standby.execute_bootc_install`: **installs a bootable container to a disk.**
    ExecuteBootcInstall(Box<InstallBootc>),
    /// `standby.run_image`: reboots the machine.
    RunImage,
    /// `standby.power_off`.
    PowerOff,
    /// `standby.sync`: flushes every disk.
    Sync,
    /// `standby.get_partition_uuids`.
    GetPartitionUuids,
    /// `image.install_bootloader`.
    InstallBootloader(InstallBootloader),
    /// `clean.get_clean_steps` and its sisters.
    GetSteps {
        /// Of which kind.
        kind: StepKind,
        /// The node, to be remembered.
        node: Value,
    },
    /// `clean.execute_clean_step` and its sisters. **Steps may destroy what is on disks.**
    ExecuteStep(Box<ExecuteStep>),
    /// `rescue.finalize_rescue`: sets the password of the user `rescue`; the agent serves no more after the reply.
    FinalizeRescue {
        /// The password, or its crypt(3) hash.
        password: Secret,
        /// Whether it is a hash.
        hashed: bool,
    },
    /// `flow.start_flow`: other commands, one after the other.
    StartFlow(Flow),
    /// `log.collect_system_logs`.
    CollectSystemLogs,
    /// `poll.get_hardware_info`.
    GetHardwareInfo,
    /// `poll.set_node_info`: refused, for there is no standalone mode.
    SetNodeInfo,
    /// `system.lockdown`: after the reply, no API, no heartbeats, **no network**, until the machine is power-cycled.
    Lockdown,
}

/// The parameters of `execute_*_step`.
#[derive(Clone, Debug)]
pub struct ExecuteStep {
    /// Of which kind.
    pub kind: StepKind,
    /// The step as received: it is echoed in the result.
    pub step: Value,
    /// The node, to be remembered.
    pub node: Value,
    /// The node's ports.
    pub ports: Value,
    /// The versions for which the conductor asked for steps; null or absent on the first run.
    pub version: Value,
    /// Further parameters; they become arguments of the step, below its own.
    pub extra: Map<String, Value>,
}

/// Whether a command answers when it is done or when it has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When it is done.
    Sync,
    /// When it has begun.
    Async,
}

/// Why a request is no command. In the order in which the checks are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name has no dot.
    Undotted,
    /// No such extension.
    UnknownExtension(String),
    /// The extension has no such command.
    UnknownCommand(String),
    /// The parameters are of the wrong shape: answered with 400.
    Invalid(Failure),
    /// A check before the command began failed for another reason: answered with a failed result that has the full name.
    BeforeItBegan(Failure),
    /// A parameter is missing or unexpected: answered with a failed result.
    Arguments {
        /// How the command would have run.
        mode: Mode,
        /// What is wrong.
        text: String,
    },
}

/// Every command of the protocol, by extension.
const EXTENSIONS: [(&str, &[&str]); 10] = [
    (
        "standby",
        &["prepare_image", "execute_bootc_install", "run_image", "power_off", "sync", "get_partition_uuids"],
    ),
    ("clean", &["get_clean_steps", "execute_clean_step"]),
    ("deploy", &["get_deploy_steps", "execute_deploy_step"]),
    ("flow", &["start_flow"]),
    ("image", &["install_bootloader"]),
    ("log", &["collect_system_logs"]),
    ("rescue", &["finalize_rescue"]),
    ("poll", &["get_hardware_info", "set_node_info"]),
    ("service", &["get_service_steps", "execute_service_step"]),
    ("system", &["lockdown"]),
];

/// The extension and the command of a name, as far as there are such.
pub(super) fn known(name: &str) -> Result<(&str, &str), Refusal> {
    let (extension, command) = name.split_once('.').ok_or(Refusal::Undotted)?;
    let row = EXTENSIONS.iter().find(|(known, _)| *known == extension);
    let (_, commands) = row.ok_or_else(|| Refusal::UnknownExtension(extension.into()))?;
    if !commands.contains(&command) {
        return Err(Refusal::UnknownCommand(command.into()));
    }
    Ok((extension, command))
}

impl Command {
    /// The full names of all commands.
    pub fn names() -> impl Iterator<Item = String> {
        EXTENSIONS.iter().flat_map(|(extension, commands)| {
            commands.iter().map(move |command| format!("{extension}.{command}"))
        })
    }

    /// Makes a command of a request.
    pub fn parse(name: &str, params: Map<String, Value>) -> Result<Self, Refusal> {
        match known(name)? {
            ("standby", "prepare_image") => prepare_image(params),
            ("standby", "execute_bootc_install") => execute_bootc_install(params),
            ("standby", "run_image") => bare(Mode::Async, params, Command::RunImage),
            ("standby", "power_off") => bare(Mode::Async, params, Command::PowerOff),
            ("standby", "sync") => bare(Mode::Sync, params, Command::Sync),
            ("standby", "get_partition_uuids") => bare(Mode::Sync, params, Command::GetPartitionUuids),
            ("image", "install_bootloader") => install_bootloader(params),
            ("clean", "get_clean_steps") => get_steps(StepKind::Clean, params),
            ("deploy", "get_deploy_steps") => get_steps(StepKind::Deploy, params),
            ("service", "get_service_steps") => get_steps(StepKind::Service, params),
            ("clean", "execute_clean_step") => execute_step(StepKind::Clean, params),
            ("deploy", "execute_deploy_step") => execute_step(StepKind::Deploy, params),
            ("service", "execute_service_step") => execute_step(StepKind::Service, params),
            ("rescue", "finalize_rescue") => finalize_rescue(params),
            ("flow", "start_flow") => flow::parse(params).map(Command::StartFlow),
            ("log", "collect_system_logs") => bare(Mode::Sync, params, Command::CollectSystemLogs),
            ("poll", "get_hardware_info") => bare(Mode::Sync, params, Command::GetHardwareInfo),
            ("poll", "set_node_info") => set_node_info(params),
            ("system", "lockdown") => bare(Mode::Sync, params, Command::Lockdown),
            (_, command) => Err(Refusal::UnknownCommand(command.into())),
        }
    }

    /// Whether it answers when done or when begun.
    pub fn mode(&self) -> Mode {
        match self {
            Command::PrepareImage { .. }
            | Command::ExecuteBootcInstall(_)
            | Command::RunImage
            | Command::PowerOff
            | Command::InstallBootloader(_)
            | Command::ExecuteStep(_)
            | Command::StartFlow(_) => Mode::Async,
            Command::Sync
            | Command::GetPartitionUuids
            | Command::GetSteps { .. }
            | Command::FinalizeRescue { .. }
            | Command::CollectSystemLogs
            | Command::GetHardwareInfo
            | Command::SetNodeInfo
            | Command::Lockdown => Mode::Sync,
        }
    }

    /// What a person wants to see beside the name: the step of a step command.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Command::ExecuteStep(call) => call.step.get("step").and_then(Value::as_str),
            Command::PrepareImage { image_info, .. } => Some(image_info.label()),
            Command::ExecuteBootcInstall(_)
            | Command::RunImage
            | Command::PowerOff
            | Command::Sync
            | Command::GetPartitionUuids
            | Command::InstallBootloader(_)
            | Command::GetSteps { .. }
            | Command::FinalizeRescue { .. }
            | Command::StartFlow(_)
            | Command::CollectSystemLogs
            | Command::GetHardwareInfo
            | Command::SetNodeInfo
            | Command::Lockdown => None,
        }
    }
}

/// The short name of a command: what stands after the first dot.
pub fn short_name(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, command)| command)
}

fn bare(mode: Mode, params: Map<String, Value>, command: Command) -> Result<Command, Refusal> {
    Params::new(mode, params).end().map(|()| command)
}

fn prepare_image(params: Map<String, Value>) -> Result<Command, Refusal> {
    let mut params = Params::new(Mode::Async, params);
    let image_info = params.required("image_info")?;
    let configdrive = params.optional("configdrive")?;
    params.end()?;
    let image_info = ImageInfo::deserialize(image_info)
        .map_err(|error| invalid(format!("image_info is not usable: {error}")))?;
    Ok(Command::PrepareImage { image_info: Box::new(image_info), configdrive })
}

fn execute_bootc_install(params: Map<String, Value>) -> Result<Command, Refusal> {
    let mut params = Params::new(Mode::Async, params);
    let image_source = params.required("image_source")?;
    let request = InstallBootc {
        image_source: params.typed("image_source", image_source)?,
        instance_info: params.optional::<Map<String, Value>>("instance_info")?.unwrap_or_default(),
        pull_secret: params.optional("pull_secret")?,
        configdrive: params.optional("configdrive")?,
    };
    params.end()?;
    Ok(Command::ExecuteBootcInstall(Box::new(request)))
}

pub(super) fn invalid(details: impl Into<String>) -> Refusal {
    Refusal::Invalid(Failure::new(ErrorClass::InvalidCommandParamsError, details))
}

fn install_bootloader(params: Map<String, Value>) -> Result<Command, Refusal> {
    let mut params = Params::new(Mode::Async, params);
    let root_uuid = params.required("root_uuid")?;
    let request = InstallBootloader {
        root_uuid: params.typed("root_uuid", root_uuid)?,
        efi_system_part_uuid: params.optional("efi_system_part_uuid")?,
        prep_boot_part_uuid: params.optional("prep_boot_part_uuid")?,
        target_boot_mode: params.optional("target_boot_mode")?,
        ignore_bootloader_failure: params.optional("ignore_bootloader_failure")?,
    };
    params.end()?;
    Ok(Command::InstallBootloader(request))
}

fn get_steps(kind: StepKind, params: Map<String, Value>) -> Result<Command, Refusal> {
    let mut params = Params::new(Mode::Sync, params);
    let node = params.required("node")?;
    params.required("ports")?; // no manager asks for them while listing
    params.end()?;
    Ok(Command::GetSteps { kind, node })
}

fn execute_step(kind: StepKind, params: Map<String, Value>) -> Result<Command, Refusal> {
    let mut params = Params::new(Mode::Async, params);
    let call = ExecuteStep {
        kind,
        step: params.required("step")?,
        node: params.required("node")?,
        ports: params.required("ports")?,
        version: params.take(&format!("{}_version", kind.name())).unwrap_or(Value::Null),
        extra: params.rest(),
    };
    Ok(Command::ExecuteStep(Box::new(call)))
}

fn finalize_rescue(params: Map<String, Value>) -> Result<Command, Refusal> {
    let mut params = Params::new(Mode::Sync, params);
    let password = params.optional("rescue_password")?.unwrap_or_else(|| Secret::new(""));
    let hashed = params.optional("hashed")?.unwrap_or(false);
    params.end()?;
    Ok(Command::FinalizeRescue { password, hashed })
}

fn set_node_info(params: Map<String, Value>) -> Result<Command, Refusal> {
    let mut params = Params::new(Mode::Sync, params);
    params.take("node_info");
    params.end().map(|()| Command::SetNodeInfo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(name: &str, params: Value) -> Result<Command, Refusal> {
        Command::parse(name, params.as_object().unwrap().clone())
    }

    #[test]
    fn the_subject_of_an_image_holds_no_signature_of_its_url() {
        let image = json!({"id": "debian?sig=hush", "urls": ["http://h/debian?sig=hush"]});
        let command = parse("standby.prepare_image", json!({"image_info": image})).unwrap();
        assert_eq!(command.subject(), Some("debian"));
    }

    #[test]
    fn names_are_checked_in_the_order_that_conductors_observe() {
        assert_eq!(parse("nodot", json!({})).unwrap_err(), Refusal::Undotted);
        assert_eq!(
            parse("nosuch.thing.more", json!({})).unwrap_err(),
            Refusal::UnknownExtension("nosuch".into())
        );
        assert_eq!(
            parse("clean.thing.more", json!({})).unwrap_err(),
            Refusal::UnknownCommand("thing.more".into())
        );
        assert_eq!(
            parse("iscsi.start_iscsi_target", json!({})).unwrap_err(),
            Refusal::UnknownExtension("iscsi".into())
        );
    }

    #[test]
    fn missing_and_unexpected_parameters_are_told_with_the_mode_of_the_command() {
        let text = |r: Result<Command, Refusal>| match r.unwrap_err() {
            Refusal::Arguments { mode, text } => (mode, text),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            text(parse("standby.sync", json!({"x": 1}))),
            (Mode::Sync, "unexpected parameter 'x'".into())
        );
        assert_eq!(
            text(parse("clean.get_clean_steps", json!({"node": {}}))),
            (Mode::Sync, "missing parameter 'ports'".into())
        );
        assert_eq!(
            text(parse("image.install_bootloader", json!({}))),
            (Mode::Async, "missing parameter 'root_uuid'".into())
        );
    }

    #[test]
    fn extra_parameters_of_a_step_become_its_arguments() {
        let params =
            json!({"step": {"step": "s"}, "node": {}, "ports": [], "clean_version": {"a": "1"}, "more": 7});
        let Ok(Command::ExecuteStep(call)) = parse("clean.execute_clean_step", params) else { panic!() };
        assert_eq!(call.version, json!({"a": "1"}));
        assert_eq!(Value::Object(call.extra), json!({"more": 7}));
    }

    #[test]
    fn an_image_that_can_not_be_read_is_refused_by_the_validator() {
        let good =
            json!({"id": "i", "urls": ["http://h/i"], "os_hash_algo": "sha256", "os_hash_value": "ab"});
        let with = |key: &str, value: Value| {
            let mut info = good.clone();
            info[key] = value;
            parse("standby.prepare_image", json!({"image_info": info}))
        };
        assert!(with("disk_format", json!("raw")).is_ok());
        for (key, bad) in [("id", json!(7)), ("urls", json!("http://h")), ("checksum", json!(["ab"]))] {
            assert!(matches!(with(key, bad.clone()), Err(Refusal::Invalid(_))), "{key} {bad}");
        }
        assert!(matches!(
            parse("standby.prepare_image", json!({"image_info": null})),
            Err(Refusal::Invalid(_))
        ));
    }

    #[test]
    fn an_image_without_an_id_or_urls_is_refused_by_the_validator() {
        for missing in ["id", "urls"] {
            let mut info =
                json!({"id": "i", "urls": ["http://h/i"], "os_hash_algo": "sha256", "os_hash_value": "ab"});
            info.as_object_mut().unwrap().remove(missing);
            let refusal = parse("standby.prepare_image", json!({"image_info": info}));
            assert!(matches!(refusal, Err(Refusal::Invalid(_))), "without {missing}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_request_whatever_makes_parsing_panic(
            name in prop_oneof![
                any::<String>(),
                prop::sample::select(Command::names().collect::<Vec<_>>()),
            ],
            values in prop::collection::vec((
                prop::sample::select(vec!["image_info", "configdrive", "step", "node", "ports", "root_uuid",
                    "target_boot_mode", "deploy_version", "flow", "rescue_password", "hashed", "node_info",
                    "image_source", "instance_info", "pull_secret", "other"]),
                any_json(),
            ), 0..6),
        ) {
            let params: Map<String, Value> = values.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            let keys = params.len();
            if let Ok(Command::ExecuteStep(call)) = Command::parse(&name, params) {
                prop_assert!(call.extra.len() <= keys);
            }
        }
    }
}
