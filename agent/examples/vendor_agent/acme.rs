//! The hardware manager of a make-believe vendor: one step of each kind that an author meets.
//!
//! It is there only where the kernel command line says `acme-version=VERSION`, so that a test can have it on any machine,
//! and with another version after a reboot. A real one looks at the hardware: see [`AcmeHardwareManager::support`].

use std::sync::OnceLock;

use ferric_agent::hwm::{Answer, Context, Error, HardwareManager, StepCall, Support};
use ferric_agent::sys::Host;
use ferric_agent::wire::{Argument, Step, StepKind};
use serde_json::{Value, json};

/// Knows the machines of Acme.
#[derive(Default)]
pub struct AcmeHardwareManager {
    version: OnceLock<String>,
}

impl HardwareManager for AcmeHardwareManager {
    fn name(&self) -> &str {
        "AcmeHardwareManager"
    }

    fn declared_name(&self) -> &str {
        "acme_hardware_manager"
    }

    /// A real manager has a constant here, and a new one whenever its list of steps changes: a conductor that listed the steps
    /// of another version starts over, or refuses to go on.
    fn version(&self) -> &str {
        self.version.get().map_or("0", String::as_str)
    }

    /// Cheap, and asked once. A real manager reads something like `/sys/class/dmi/id/sys_vendor`.
    fn support(&self, host: &Host) -> Support {
        let cmdline = host.attribute("/proc/cmdline").unwrap_or_default();
        match cmdline.split_whitespace().find_map(|word| word.strip_prefix("acme-version=")) {
            Some(version) => {
                let _ = self.version.set(version.to_owned()); // set twice is set
                Support::SERVICE_PROVIDER
            }
            None => Support::NONE,
        }
    }

    fn steps(&self, kind: StepKind, _: &Context) -> Result<Answer<Vec<Step>>, Error> {
        Ok(Answer::Mine(match kind {
            StepKind::Clean => vec![flash_firmware(), self_test(), replace_pstore_step()],
            StepKind::Deploy => vec![Step { abortable: None, ..self_test() }],
            StepKind::Service => vec![flash_firmware(), self_test()],
        }))
    }

    fn run_step(&self, call: &StepCall, cx: &Context) -> Result<Answer<Value>, Error> {
        match call.step.as_str() {
            "acme_flash_firmware" => {
                // Long work looks at this flag, so that a cancelled command ends soon.
                if cx.is_cancelled() {
                    return Err(Error::Failed { message: "flashing was cancelled".into() });
                }
                Ok(Answer::Mine(json!({"flashed": self.version()})))
            }
            "acme_self_test" => self_test_result(call).map(Answer::Mine),
            // This vendor's firmware has no store for crash records. Everyone else's is the generic manager's business:
            // `NotMine` would pass the step on to it.
            "erase_pstore" => Ok(Answer::Mine(Value::Null)),
            _ => Ok(Answer::NotMine),
        }
    }
}

/// A step after which the conductor reboots the machine. `abortable: false`: stopping halfway leaves a broken board.
fn flash_firmware() -> Step {
    Step {
        step: "acme_flash_firmware".into(),
        priority: 95,
        interface: "deploy".into(),
        reboot_requested: true,
        abortable: Some(false),
        argsinfo: None,
    }
}

/// A step that runs only when asked for, with an argument.
fn self_test() -> Step {
    let outcome = Argument { description: "`pass` or `fail`".into(), required: false };
    Step {
        step: "acme_self_test".into(),
        priority: 0,
        interface: "deploy".into(),
        reboot_requested: false,
        abortable: Some(true),
        argsinfo: Some([("outcome".to_owned(), outcome)].into()),
    }
}

/// A step of the generic manager's name: the more specific manager's entry is the one that is listed, and it runs.
fn replace_pstore_step() -> Step {
    Step {
        step: "erase_pstore".into(),
        priority: 0,
        interface: "deploy".into(),
        reboot_requested: false,
        abortable: Some(true),
        argsinfo: None,
    }
}

fn self_test_result(call: &StepCall) -> Result<Value, Error> {
    match call.arguments.get("outcome").and_then(Value::as_str) {
        None | Some("pass") => Ok(Value::Null),
        // The text is what the operator reads in the node's last_error.
        Some("fail") => {
            Err(Error::Failed { message: "the self test found a broken fan; replace fan 2".into() })
        }
        Some(other) => Err(Error::InvalidParameters {
            message: format!("argument outcome of acme_self_test is `{other}`: say `pass` or `fail`"),
        }),
    }
}
