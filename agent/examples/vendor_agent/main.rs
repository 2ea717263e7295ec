//! An agent with a vendor's own hardware manager beside the built-in ones: all that such a program needs.
//!
//! `cargo build --release -p ferric-agent --example vendor_agent`; docs/hardware-managers.md explains the manager.

mod acme;

use std::process::ExitCode;

fn main() -> ExitCode {
    ferric_agent::main(vec![Box::new(acme::AcmeHardwareManager::default())])
}
