//! The agent as a library: a vendor builds its own binary with its own hardware managers in a few lines over this.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     ferric_agent::main(Vec::new()) // the vendor's managers; the built-in ones are always there
//! }
//! ```
//!
//! - [`cli`]: the program's command line; [`config`]: what it may be told; [`cmdline`]: the kernel's.
//! - [`startup`]: the story of a run, from probing the hardware to the last heartbeat.
//! - [`conductor`]: calls to the conductor; [`api`]: calls from it; [`command`]: what those ask for.
//! - [`virtual_media`]: what a conductor hands over on a floppy or a disc of the BMC's.
//! - [`door`]: the address, port and certificate at which the agent is reached.
//! - [`clock`]: what time it is, and setting it right.
//! - [`inspection`]: what the machine is made of, told before anybody asks.
//! - [`mdns`]: finds a conductor on the local network; [`vlan`]: interfaces that are made for it.
//! - [`init`]: what comes before all that when the agent is the first process of a ramdisk.
//! - [`rescue`] and [`lockdown`]: what is left to do when a conductor ends the agent's service; [`metrics`]: what it counted.
//! - [`secrets`]: what must not be in any log, and texts without it.
//! - [`json`]: text that is written once and shared.
//! - [`progress`] and [`logging`]: what people read.

pub mod api;
pub mod cli;
pub mod clock;
pub mod cmdline;
pub mod command;
pub mod conductor;
pub mod config;
pub mod door;
pub mod init;
pub mod inspection;
pub mod json;
pub mod lockdown;
mod log_line;
pub mod logging;
pub mod mdns;
pub mod metrics;
pub mod progress;
pub mod rescue;
pub mod secrets;
pub mod startup;
pub mod virtual_media;
pub mod vlan;

pub use cli::main;

/// What a hardware manager is written with, so that a vendor's program needs no other dependency of Ferric.
pub use {hwm, sys, wire};

/// Chooses the one TLS implementation of the process. A second call changes nothing.
pub fn install_crypto_provider() {
    // An error only says that one was chosen before; there is no other in this program.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
