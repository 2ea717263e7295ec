//! The steps of the generic manager, and what it advertises for each kind.
//!
//! The lists name only what is implemented, in the order and words of ironic-python-agent 13.0: names, priorities, keys and
//! the descriptions of arguments are what a conductor stores and shows (agent protocol page, 2.4). A change here is a change
//! of the manager's version.

use std::collections::BTreeMap;

use wire::{Argument, Step, StepKind};

/// A step of the generic manager, as a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GenericStep {
    /// Makes every byte of every disk unreadable.
    EraseDevices,
    /// Removes partition tables and signatures from every disk.
    EraseDevicesMetadata,
    /// The quickest of both for each disk.
    EraseDevicesExpress,
    /// Empties the firmware's store of crash records.
    ErasePstore,
    /// Deletes firmware boot entries by pattern.
    CleanUefiNvram,
    /// Writes an image to the root disk.
    WriteImage,
    /// Makes the arrays that the node wants.
    CreateConfiguration,
    /// Makes the arrays of an argument.
    ApplyConfiguration,
    /// Deletes all arrays.
    DeleteConfiguration,
    /// Installs a bootable container to the root disk.
    ExecuteBootcInstall,
    /// Puts files into the system on the root disk.
    InjectFiles,
}

impl GenericStep {
    /// The step of a name. Any step runs in any kind, as upstream: the advertised lists only say what is on offer.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "erase_devices" => Some(Self::EraseDevices),
            "erase_devices_metadata" => Some(Self::EraseDevicesMetadata),
            "erase_devices_express" => Some(Self::EraseDevicesExpress),
            "erase_pstore" => Some(Self::ErasePstore),
            "clean_uefi_nvram" => Some(Self::CleanUefiNvram),
            "write_image" => Some(Self::WriteImage),
            "create_configuration" => Some(Self::CreateConfiguration),
            "apply_configuration" => Some(Self::ApplyConfiguration),
            "delete_configuration" => Some(Self::DeleteConfiguration),
            "execute_bootc_install" => Some(Self::ExecuteBootcInstall),
            "inject_files" => Some(Self::InjectFiles),
            _ => None,
        }
    }
}

/// What is advertised for a kind. The operator chooses the priority of `inject_files`; the steps of software RAID are there
/// where its tool is.
pub(crate) fn advertised(kind: StepKind, inject_files_priority: u32, has_raid: bool) -> Vec<Step> {
    let inject_files = || with_arguments(step("inject_files", inject_files_priority), &INJECT_FILES);
    let abortable = |step: Step| Step { abortable: Some(true), ..step };
    let raid = |steps: Vec<Step>| if has_raid { steps } else { Vec::new() };
    match kind {
        StepKind::Clean => {
            let mut steps = vec![
                step("erase_devices", 10),
                step("erase_devices_metadata", 99),
                step("erase_devices_express", 0),
                step("erase_pstore", 0),
                with_arguments(step("clean_uefi_nvram", 0), &[MATCH_PATTERNS]),
            ];
            steps.extend(raid(vec![raid_step("delete_configuration"), raid_step("create_configuration")]));
            steps.into_iter().map(abortable).collect()
        }
        StepKind::Deploy => {
            let mut steps = vec![step("erase_devices_metadata", 0)];
            steps.extend(raid(vec![apply_configuration()]));
            steps.extend([
                with_arguments(step("clean_uefi_nvram", 0), &[MATCH_PATTERNS]),
                step("write_image", 0),
                inject_files(),
                step("execute_bootc_install", 0),
            ]);
            steps
        }
        StepKind::Service => {
            let mut steps = raid(vec![
                abortable(raid_step("delete_configuration")),
                apply_configuration(),
                abortable(raid_step("create_configuration")),
            ]);
            steps.extend([step("write_image", 0), inject_files(), step("execute_bootc_install", 0)]);
            steps
        }
    }
}

fn raid_step(name: &str) -> Step {
    Step { interface: "raid".into(), ..step(name, 0) }
}

fn apply_configuration() -> Step {
    const DELETE_EXISTING: Optional = (
        "delete_existing",
        "Setting this to 'True' indicates to delete existing RAID configuration prior to creating the new configuration. \
         Default value is 'True'.",
    );
    let mut step = with_arguments(raid_step("apply_configuration"), &[DELETE_EXISTING]);
    let raid_config = Argument { description: "The RAID configuration to apply.".into(), required: true };
    step.argsinfo.get_or_insert_default().insert("raid_config".into(), raid_config);
    step
}

/// Name and description of an argument that may be left out.
type Optional = (&'static str, &'static str);

const MATCH_PATTERNS: Optional = (
    "match_patterns",
    "Json blob contains a list of regex patterns where any UEFI NVRAM entry matching that pattern will be deleted. Default \
     value is '[\"^HD\\(\", \"shim.*\\.efi\", \"grub.*\\.efi\"]'",
);

const INJECT_FILES: [Optional; 2] = [
    (
        "files",
        "Files to inject, a list of file structures with keys: 'path' (path to the file), 'partition' (partition specifier), \
         'content' (base64 encoded string), 'mode' (new file mode) and 'dirmode' (mode for the leaf directory, if created). \
         Merged with the values from node.properties[inject_files].",
    ),
    ("verify_ca", "Whether to verify TLS certificates. Global agent options are used by default."),
];

fn step(name: &str, priority: u32) -> Step {
    Step {
        step: name.into(),
        priority,
        interface: "deploy".into(),
        reboot_requested: false,
        abortable: None,
        argsinfo: None,
    }
}

fn with_arguments(step: Step, arguments: &[Optional]) -> Step {
    let argument = |(name, description): &Optional| {
        ((*name).to_owned(), Argument { description: (*description).into(), required: false })
    };
    let argsinfo: BTreeMap<String, Argument> = arguments.iter().map(argument).collect();
    Step { argsinfo: Some(argsinfo), ..step }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn advertised_entries_are_exactly_those_of_ironic_python_agent() {
        let upstream: Value = serde_json::from_str(include_str!("advertised_by_ipa_13.json")).unwrap();
        for (kind, absent) in [
            (
                StepKind::Clean,
                &["burnin_cpu", "burnin_gpu", "burnin_disk", "burnin_memory", "burnin_network"][..],
            ),
            (StepKind::Deploy, &[]),
            (StepKind::Service, &["burnin_cpu", "burnin_gpu", "burnin_memory", "burnin_network"]),
        ] {
            let mut wanted = upstream[kind.name()].as_array().unwrap().clone();
            wanted.retain(|step| !absent.contains(&step["step"].as_str().unwrap()));
            assert_eq!(serde_json::to_value(advertised(kind, 0, true)).unwrap(), json!(wanted), "{kind:?}");
            // Without its tool, software RAID is not offered; nothing else is different.
            wanted.retain(|step| step["interface"] != "raid");
            assert_eq!(serde_json::to_value(advertised(kind, 0, false)).unwrap(), json!(wanted), "{kind:?}");
        }
    }

    #[test]
    fn every_advertised_step_can_be_run() {
        for kind in [StepKind::Clean, StepKind::Deploy, StepKind::Service] {
            for step in advertised(kind, 50, true) {
                assert!(GenericStep::parse(&step.step).is_some(), "{}", step.step);
            }
        }
    }
}
