//! `ferric-agent inventory`: what this machine is made of, as the JSON that a conductor gets. Touches nothing.

use std::process::ExitCode;

use clap::Args;
use events::Events;
use hardware_managers::{Deployment, builtin};
use hwm::{Context, Registry};
use sys::Host;

use super::offline::{Failed, finish, log_warnings, print_json};
use crate::cmdline::Cmdline;
use crate::config::{Config, Overrides};

/// Print the hardware inventory as JSON.
#[derive(Clone, Debug, Args)]
pub struct InventoryArgs {
    /// Indented, for reading.
    #[arg(long)]
    pub pretty: bool,
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
    let cx = Context::new(host, Events::default());
    print_json(&registry.inventory(&cx)?, args.pretty)
}
