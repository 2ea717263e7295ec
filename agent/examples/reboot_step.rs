//! An agent with a hardware manager of its own beside the built-in ones: how a site adds a step.
//!
//! The step asks for a reboot after it. It changes nothing itself; one that updates firmware would look the same.

use std::process::ExitCode;

use hwm::{Answer, Context, Error, HardwareManager, StepCall, Support};
use serde_json::{Value, json};
use wire::{Step, StepKind};

const STEP: &str = "update_nothing";

struct SiteManager;

impl HardwareManager for SiteManager {
    fn name(&self) -> &str {
        "SiteHardwareManager"
    }

    fn declared_name(&self) -> &str {
        "site_hardware_manager"
    }

    fn version(&self) -> &str {
        "1.0"
    }

    fn support(&self, _host: &sys::Host) -> Support {
        Support::SERVICE_PROVIDER
    }

    fn steps(&self, kind: StepKind, _cx: &Context) -> Result<Answer<Vec<Step>>, Error> {
        let step = Step {
            step: STEP.into(),
            priority: 50,
            interface: "deploy".into(),
            reboot_requested: true,
            abortable: None,
            argsinfo: None,
        };
        Ok(match kind {
            StepKind::Clean => Answer::Mine(vec![step]),
            StepKind::Deploy | StepKind::Service => Answer::NotMine,
        })
    }

    fn run_step(&self, call: &StepCall, _cx: &Context) -> Result<Answer<Value>, Error> {
        Ok(match call.step.as_str() {
            STEP => Answer::Mine(json!("updated")),
            _ => Answer::NotMine,
        })
    }
}

fn main() -> ExitCode {
    ferric_agent::main(vec![Box::new(SiteManager)])
}
