//! The manager itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use hwm::{Answer, Context, Error, HardwareManager, StepCall, Support};
use serde_json::Value;
use sys::Host;
use wire::{Argument, Step, StepKind};

use super::policy::{self, Origin};
use super::runner::{ContainerRunner, PROGRAMS};
use super::steps_file::{self, FileStep};
use crate::deployment::Deployment;
use crate::generic::arguments::only;
use crate::settings::Containers;

/// The step that runs an image named in its arguments, and its older name, which operators have in their runbooks.
const BUILT_IN: [&str; 2] = ["generic_container_step", "container_clean_step"];

/// Names that no step of the file may take: this manager is asked before the generic one, and a container that is called like
/// an erasing step would be taken for an erasure. Also those that only other agents have.
const RESERVED: [&str; 20] = [
    "generic_container_step",
    "container_clean_step",
    "erase_devices",
    "erase_devices_metadata",
    "erase_devices_express",
    "erase_block_device",
    "erase_pstore",
    "clean_uefi_nvram",
    "write_image",
    "inject_files",
    "execute_bootc_install",
    "create_configuration",
    "delete_configuration",
    "apply_configuration",
    "validate_configuration",
    "burnin_cpu",
    "burnin_gpu",
    "burnin_disk",
    "burnin_memory",
    "burnin_network",
];

/// Runs containers as steps. There only where podman or docker works.
pub struct ContainerHardwareManager {
    deployment: Arc<Deployment>,
}

impl ContainerHardwareManager {
    /// A manager with the settings of the deployment of this boot.
    pub fn new(deployment: Arc<Deployment>) -> Self {
        Self { deployment }
    }

    fn containers(&self) -> Containers {
        self.deployment.settings().containers
    }

    /// **Runs a container**, with all that its image and options do.
    fn run(&self, cx: &Context, permitted: &policy::Permitted) -> Result<Value, Error> {
        let name = self.containers().runner;
        let runner = ContainerRunner::find(&cx.host, &name).map_err(|reason| Error::Configuration {
            message: format!("the configured container runner ([container]runner) can not be used: {reason}"),
        })?;
        runner.run(cx, permitted)?;
        Ok(Value::Null)
    }

    fn run_from_arguments(&self, call: &StepCall, cx: &Context) -> Result<Value, Error> {
        only(&call.arguments, &call.step, &["container_url", "pull_options", "run_options"])?;
        let image = policy::image(&call.arguments, &call.step)?;
        let options = |name: &str| policy::options(call.arguments.get(name), name);
        let (pull, run) = (options("pull_options")?, options("run_options")?);
        self.run(cx, &policy::permit(&self.containers(), Origin::Arguments, &image, pull, run)?)
    }

    fn run_from_file(&self, step: FileStep, call: &StepCall, cx: &Context) -> Result<Value, Error> {
        only(&call.arguments, &call.step, &[])?;
        let FileStep { image, pull_options, run_options, .. } = step;
        self.run(cx, &policy::permit(&self.containers(), Origin::Ramdisk, &image, pull_options, run_options)?)
    }
}

impl HardwareManager for ContainerHardwareManager {
    fn name(&self) -> &str {
        "ContainerHardwareManager"
    }

    fn declared_name(&self) -> &str {
        "ContainerHardwareManager"
    }

    fn version(&self) -> &str {
        "2"
    }

    /// The configured program does not count yet: a conductor may name another at lookup.
    fn support(&self, host: &Host) -> Support {
        for program in PROGRAMS {
            match ContainerRunner::find(host, program) {
                Ok(_) => return Support::MAINLINE,
                Err(reason) => tracing::debug!(reason, "no containers with this program"),
            }
        }
        Support::NONE
    }

    fn steps(&self, kind: StepKind, cx: &Context) -> Result<Answer<Vec<Step>>, Error> {
        let mut steps: Vec<Step> = BUILT_IN.into_iter().map(built_in).collect();
        let file = steps_file::read(cx, &self.containers(), &RESERVED)?;
        steps.extend(file.iter().map(|step| step.advertised(kind)));
        Ok(Answer::Mine(steps))
    }

    fn run_step(&self, call: &StepCall, cx: &Context) -> Result<Answer<Value>, Error> {
        let name = call.step.as_str();
        if BUILT_IN.contains(&name) {
            return self.run_from_arguments(call, cx).map(Answer::Mine);
        }
        if RESERVED.contains(&name) {
            return Ok(Answer::NotMine); // a broken file must not stand in the way of the steps of others
        }
        let mut steps = steps_file::read(cx, &self.containers(), &RESERVED)?.into_iter();
        match steps.find(|step| step.name == name) {
            Some(step) => self.run_from_file(step, call, cx).map(Answer::Mine),
            None => Ok(Answer::NotMine),
        }
    }
}

fn built_in(name: &str) -> Step {
    let argument = |(name, description, required): (&str, &str, bool)| {
        (name.to_owned(), Argument { description: description.into(), required })
    };
    let argsinfo: BTreeMap<_, _> = [
        ("container_url", "Container image URL", true),
        ("pull_options", "Pull options", false),
        ("run_options", "Run options", false),
    ]
    .map(argument)
    .into();
    Step {
        step: name.into(),
        priority: 0,
        interface: "deploy".into(),
        reboot_requested: false,
        abortable: Some(true),
        argsinfo: Some(argsinfo),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use hwm::Registry;
    use serde_json::json;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use sys::SystemRunner;
    use sys::fake::RecordingKernel;

    /// A ramdisk whose podman is a script that writes down what it is told, and fails where a file `fail-VERB` says so.
    struct Ramdisk {
        root: tempfile::TempDir,
        deployment: Arc<Deployment>,
    }

    impl Ramdisk {
        fn new(containers: Containers) -> Self {
            let root = tempfile::tempdir().unwrap();
            let deployment = Deployment::new(Settings { containers, ..Settings::default() });
            Self { root, deployment }
        }

        fn with(self, program: &str) -> Self {
            let directory = self.root.path().to_str().unwrap().to_owned();
            let script = format!(
                "#!/bin/sh\nfor word; do printf '[%s]' \"$word\"; done >> {directory}/calls\necho >> {directory}/calls\n\
                 echo \"output of $1\"\n[ ! -e {directory}/fail-$1 ] || {{ echo broken >&2; exit 3; }}\n"
            );
            let path = self.root.path().join("usr/bin").join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            self
        }

        fn file(self, path: &str, text: &str) -> Self {
            let path = self.root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn host(&self) -> Host {
            Host::new(self.root.path(), Arc::new(SystemRunner), Arc::new(RecordingKernel::default()))
        }

        fn registry(&self) -> (Registry, Context) {
            let host = self.host();
            let registry = Registry::probe(&host, crate::builtin(&self.deployment));
            (registry, Context::new(host, events::Events::default()))
        }

        fn run(&self, step: &str, arguments: Value) -> Result<Value, Error> {
            let (registry, cx) = self.registry();
            let arguments = arguments.as_object().unwrap().clone();
            let call = StepCall { kind: StepKind::Clean, step: step.into(), arguments, ports: json!([]) };
            registry.run_step(&call, &cx)
        }

        /// What the script was told, without the questions for its version.
        fn calls(&self) -> Vec<String> {
            let text = fs::read_to_string(self.root.path().join("calls")).unwrap_or_default();
            text.lines().filter(|line| *line != "[--version]").map(str::to_owned).collect()
        }
    }

    fn allowing(image: &str) -> Containers {
        Containers { allowed: vec![image.into()], ..Containers::default() }
    }

    const FILE: &str = "/etc/ironic-python-agent.d/mysteps.yaml";
    const STEPS: &str = "steps:\n  - {name: update_nic, image: 'r.example/nic:2', interface: deploy, priority: 30, \
                         reboot_requested: true, abortable: true, run_options: '--privileged'}\n";

    #[test]
    fn without_a_program_the_manager_is_not_there() {
        let ramdisk = Ramdisk::new(Containers::default()).file("/usr/bin/podman", "not a program");
        assert_eq!(
            ContainerHardwareManager::new(ramdisk.deployment.clone()).support(&ramdisk.host()),
            Support::NONE
        );
        let (registry, _) = ramdisk.registry();
        assert!(!registry.versions().contains_key("ContainerHardwareManager"));
        let error = ramdisk.run("generic_container_step", json!({"container_url": "x"})).unwrap_err();
        assert!(matches!(error, Error::NoManager { .. }), "{error:?}");
    }

    #[test]
    fn its_steps_are_advertised_as_upstream_does_and_those_of_the_file_after_them() {
        let ramdisk = Ramdisk::new(Containers::default()).with("docker").file(FILE, STEPS);
        let (registry, cx) = ramdisk.registry();
        assert_eq!(registry.versions()["ContainerHardwareManager"], "2");
        for (kind, priority) in [(StepKind::Clean, 30), (StepKind::Deploy, 0), (StepKind::Service, 0)] {
            let list = registry.steps(kind, &cx).unwrap().steps.remove("ContainerHardwareManager").unwrap();
            let list = serde_json::to_value(list).unwrap();
            let arguments = json!({
                "container_url": {"description": "Container image URL", "required": true},
                "pull_options": {"description": "Pull options", "required": false},
                "run_options": {"description": "Run options", "required": false}});
            let built_in = |name: &str| {
                json!({"step": name, "priority": 0, "interface": "deploy", "reboot_requested": false,
                       "abortable": true, "argsinfo": arguments})
            };
            let own = json!({"step": "update_nic", "priority": priority, "interface": "deploy",
                             "reboot_requested": true, "abortable": true});
            assert_eq!(
                list,
                json!([built_in("generic_container_step"), built_in("container_clean_step"), own])
            );
        }
    }

    #[test]
    fn a_permitted_image_is_pulled_and_run_with_the_configured_options() {
        let ramdisk = Ramdisk::new(allowing("r.example/tool:1")).with("podman");
        let arguments =
            json!({"container_url": "docker://r.example/tool:1", "run_options": "--privileged -v /:/host"});
        for step in BUILT_IN {
            assert_eq!(ramdisk.run(step, arguments.clone()).unwrap(), Value::Null);
        }
        let once =
            ["[pull][docker://r.example/tool:1]", "[run][--rm][--network=host][docker://r.example/tool:1]"];
        assert_eq!(ramdisk.calls(), [once, once].concat());
    }

    #[test]
    fn an_image_that_is_not_permitted_never_reaches_the_program() {
        let ramdisk = Ramdisk::new(allowing("r.example/tool:1")).with("podman");
        let error =
            ramdisk.run("generic_container_step", json!({"container_url": "r.example/tool"})).unwrap_err();
        assert!(matches!(error, Error::ContainerNotPermitted { .. }), "{error:?}");
        assert!(ramdisk.calls().is_empty());
    }

    #[test]
    fn steps_of_the_file_run_their_own_image_with_their_own_options() {
        let ramdisk = Ramdisk::new(Containers::default()).with("podman").file(FILE, STEPS);
        ramdisk.run("update_nic", json!({})).unwrap();
        assert_eq!(ramdisk.calls(), ["[pull][r.example/nic:2]", "[run][--privileged][r.example/nic:2]"]);
        let other = ramdisk.run("update_nic", json!({"container_url": "evil"})).unwrap_err();
        assert!(matches!(other, Error::Arguments { .. }), "{other:?}");
    }

    #[test]
    fn a_failed_container_fails_its_step_and_is_quoted() {
        let ramdisk = Ramdisk::new(allowing("x")).with("podman").file("/fail-run", "");
        let error = ramdisk.run("generic_container_step", json!({"container_url": "x"})).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("podman run") && text.contains("3") && text.contains("broken"), "{text}");
        assert!(!text.contains("--network"), "options may hold secrets: {text}");
        let ramdisk = Ramdisk::new(allowing("x")).with("podman").file("/fail-pull", "");
        assert!(ramdisk.run("generic_container_step", json!({"container_url": "x"})).is_err());
        assert_eq!(ramdisk.calls(), ["[pull][x]"], "what was not pulled is not run");
    }

    #[test]
    fn the_configured_program_must_work() {
        let containers = Containers { runner: "docker".into(), ..allowing("x") };
        let ramdisk = Ramdisk::new(containers).with("podman");
        let error = ramdisk.run("generic_container_step", json!({"container_url": "x"})).unwrap_err();
        assert!(
            matches!(&error, Error::Configuration { message } if message.contains("docker")),
            "{error:?}"
        );
    }

    #[test]
    fn a_broken_file_is_reported_and_leaves_the_steps_of_others_alone() {
        let ramdisk = Ramdisk::new(Containers::default())
            .with("podman")
            .file(FILE, "steps:\n  - {name: erase_devices, image: x}\n")
            .file("/proc/mounts", "");
        let (registry, cx) = ramdisk.registry();
        assert!(matches!(registry.steps(StepKind::Clean, &cx), Err(Error::Configuration { .. })));
        assert_eq!(ramdisk.run("erase_pstore", json!({})).unwrap(), Value::Null);
        let taken = STEPS.replace("update_nic", "erase_devices_metadata");
        let ramdisk = Ramdisk::new(Containers::default()).with("podman").file(FILE, &taken);
        let (registry, cx) = ramdisk.registry();
        let error = registry.steps(StepKind::Clean, &cx).unwrap_err();
        assert!(error.to_string().contains("erase_devices_metadata"), "{error}");
        assert!(!Path::new(&ramdisk.root.path().join("calls")).exists() || ramdisk.calls().is_empty());
    }

    #[test]
    fn every_step_of_the_generic_manager_is_reserved() {
        let ramdisk = Ramdisk::new(Containers::default());
        let (registry, cx) = ramdisk.registry();
        for kind in [StepKind::Clean, StepKind::Deploy, StepKind::Service] {
            for step in registry.steps(kind, &cx).unwrap().steps.values().flatten() {
                assert!(RESERVED.contains(&step.step.as_str()), "{}", step.step);
            }
        }
    }
}
