//! `ferric-agent inventory`: what this machine is made of, as the JSON that a conductor gets. Touches nothing.

use std::process::ExitCode;

use clap::Args;
use events::Events;
use hardware_managers::{Deployment, Settings, builtin};
use hwm::{Context, Registry};
use sys::Host;

use super::offline::{Failed, allow_list, finish, log_warnings, print_json};

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
    let settings = Settings { allow: allow_list(&host, None)?, ..Settings::default() };
    let registry = Registry::probe(&host, builtin(&Deployment::new(settings)));
    let cx = Context::new(host, Events::default());
    print_json(&registry.inventory(&cx)?, args.pretty)
}
