//! `ferric-agent inventory`: what this machine is made of, as the JSON that a conductor gets. Touches nothing.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use events::Events;
use hardware_managers::{Deployment, builtin};
use hwm::{Context, Registry};
use serde_json::Value;
use sys::Host;

use super::exit::Exit;
use super::offline::{Failed, finish, log_warnings, print_json};
use crate::cmdline::Cmdline;
use crate::config::{Config, Overrides};
use crate::inspection::{self, Machine, Plan};
use crate::logging::LogRing;

/// Print the hardware inventory as JSON.
#[derive(Clone, Debug, Args)]
pub struct InventoryArgs {
    /// Indented, for reading.
    #[arg(long)]
    pub pretty: bool,
    /// Print the body that inspection would post, without posting it; COLLECTORS are those of the configuration, or
    /// `default,logs`, when left out.
    #[arg(long, value_name = "COLLECTORS", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    pub inspection: Option<Vec<String>>,
}

/// Reads `/sys` and `/proc`, and prints.
pub fn run(args: InventoryArgs) -> ExitCode {
    log_warnings();
    finish(inventory(&args)).into()
}

fn inventory(args: &InventoryArgs) -> Result<(), Failed> {
    let host = Host::real();
    let cmdline = Cmdline::parse(&host.attribute("/proc/cmdline").unwrap_or_default());
    let (config, _) = Config::load(&host, &cmdline, &Overrides::default())
        .map_err(|error| Failed::usage(hwm::chain(&error)))?;
    let registry = Registry::probe(&host, builtin(&Deployment::new(config.hardware_settings())));
    let context = Context::new(host, Events::default());
    let Some(collectors) = &args.inspection else {
        return print_json(&registry.inventory(&context)?, args.pretty);
    };
    let mut plan = Plan::without_urls(&config);
    if !collectors.is_empty() {
        plan.names = collectors.clone();
    }
    let machine = Machine { registry: Arc::new(registry), context, log: LogRing::default() };
    let body: Value = serde_json::from_slice(&inspection::preview(&machine, &plan)).map_err(|error| {
        Failed { exit: Exit::Failure, message: format!("reading the body that was made: {error}") }
    })?;
    print_json(&body, args.pretty)?;
    match body.get("error").and_then(Value::as_str) {
        Some(error) => Err(Failed { exit: Exit::Failure, message: error.to_owned() }),
        None => Ok(()),
    }
}
