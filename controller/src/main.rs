//! `ferric`: the thin controller and its command line, in one program.
//!
//! - `serve` runs the controller: [`controller`] holds what its parts share, [`api`] is HTTP, [`deploy`] does things to nodes
//!   along [`machine`]'s table, [`store`] is the SQLite file, [`power`] controls machines, [`agent_client`] talks to agents.
//! - Everything else in [`cli`] is a thin client of that HTTP API.
//!
//! It shares its vocabulary with the agent (`wire`, `events`), never its code.

mod agent_client;
mod api;
mod boot;
mod cli;
mod clock;
mod config_drive;
mod controller;
mod deploy;
mod forward;
mod hub;
mod json;
mod machine;
mod power;
mod printable;
mod record;
mod serve;
mod store;
#[cfg(test)]
mod testing;
mod token;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(socket) = arguments.forwards_to() {
        return forward::run(socket);
    }
    // One TLS provider in the program, chosen before anybody needs it; only a second choice could fail.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("ferric: a TLS provider was chosen twice");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ferric: starting threads: {error}");
            return cli::Exit::Failed.into();
        }
    };
    let exit = match runtime.block_on(cli::run(arguments)) {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("ferric: {}", printable::lines(&failure.to_string()));
            failure.exit
        }
    };
    // A blocking read of an abandoned request must not keep the program alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    exit.into()
}
