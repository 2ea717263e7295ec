//! The program's command line: arguments -> configuration -> what to do. Thin.
//!
//! As PID 1 of a ramdisk there are no arguments worth reading: the kernel passes every word it does not know.

mod credentials;
pub mod exit;
pub mod explain;
pub mod inventory;
mod offline;
mod pid1;
pub mod progress;
mod run;
mod show_config;
pub mod write;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use hwm::HardwareManager;
use sys::Host;

pub use self::exit::Exit;
use crate::cmdline::Cmdline;
use crate::config::{Config, Error, Overrides};
use crate::init;
use crate::virtual_media;

#[derive(Parser)]
#[command(
    name = "ferric-agent",
    version,
    about = "In-ramdisk deployment agent",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent: look up the node, serve commands, send heartbeats (the default).
    Run(Options),
    /// Print every option with its value and where it came from.
    Config(Options),
    Write(write::WriteArgs),
    Explain(explain::ExplainArgs),
    Inventory(inventory::InventoryArgs),
}

/// What can be said about the configuration.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// API of the conductor, several separated by commas.
    #[arg(long, alias = "api_url", env = "FERRIC_API_URL")]
    api_url: Option<String>,
    /// The only disks that may be written: names, by-path or serial globs, separated by commas.
    #[arg(long, env = "FERRIC_DISKS")]
    disks: Option<String>,
    /// Do not verify certificates.
    #[arg(long)]
    insecure: bool,
    /// Log more.
    #[arg(long)]
    debug: bool,
    /// Set any option (repeatable).
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = name_and_value)]
    set: Vec<(String, String)>,
    /// Configuration file instead of /etc/ironic-python-agent.conf (repeatable).
    #[arg(long)]
    config_file: Vec<PathBuf>,
    /// Configuration directory instead of /etc/ironic-python-agent.d (repeatable).
    #[arg(long)]
    config_dir: Vec<PathBuf>,
    /// Which log lines to show: a level, or target=level pairs separated by commas.
    #[arg(long, env = "FERRIC_LOG")]
    log: Option<String>,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl Options {
    fn overrides(&self) -> Overrides {
        let mut values = Vec::new();
        let mut set = |name: &str, value: Option<String>| {
            values.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("api_url", self.api_url.clone());
        set("disks", self.disks.clone());
        set("insecure", self.insecure.then(|| "true".into()));
        set("debug", self.debug.then(|| "true".into()));
        values.extend(self.set.iter().cloned());
        Overrides {
            home: std::env::var_os("HOME").map(PathBuf::from),
            files: self.config_file.clone(),
            directories: self.config_dir.clone(),
            values,
        }
    }

    /// The configuration of this machine with these options; the second value holds warnings.
    pub fn load(&self, host: &Host) -> Result<(Config, Vec<String>), LoadError> {
        let mut cmdline = Cmdline::parse(&host.attribute("/proc/cmdline").unwrap_or_default());
        // The devices of a machine that runs are there, or not at all.
        let media = virtual_media::take(host, &mut cmdline, Duration::ZERO)?;
        let (config, mut warnings) = Config::load(host, &cmdline, &self.overrides())?;
        warnings.splice(0..0, media.notices);
        Ok((config, warnings))
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A source makes no sense.
    #[error(transparent)]
    Config(#[from] Error),
    /// Virtual media is there and can not be used.
    #[error(transparent)]
    VirtualMedia(#[from] virtual_media::Error),
}

/// The whole program: `managers` are asked before the built-in ones of equal support.
pub fn main(managers: Vec<Box<dyn HardwareManager>>) -> ExitCode {
    let host = Host::real();
    if init::is_helper_call() {
        init::run_helper(&host);
        return ExitCode::SUCCESS;
    }
    // A kernel without the setting has no huge pages either.
    let _ = sys::memory::avoid_huge_pages();
    crate::install_crypto_provider();
    let managers = if init::is_init() { pid1::run(&host, managers) } else { managers };
    let cli = Cli::parse();
    let exit = match cli.command {
        None => run::run(&host, &cli.options, managers),
        Some(Command::Run(options)) => run::run(&host, &options, managers),
        Some(Command::Config(options)) => show_config::show(&host, &options),
        Some(Command::Write(args)) => return write::run(args),
        Some(Command::Explain(args)) => return explain::run(args),
        Some(Command::Inventory(args)) => return inventory::run(args),
    };
    exit.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_overrides_and_the_default_is_to_run() {
        let cli = Cli::parse_from([
            "ferric-agent",
            "--insecure",
            "--set",
            "listen_port = 1",
            "--disks",
            "/dev/loop*",
        ]);
        assert!(cli.command.is_none());
        let values = cli.options.overrides().values;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(values, [pair("disks", "/dev/loop*"), pair("insecure", "true"), pair("listen_port", "1")]);
        let cli = Cli::parse_from(["ferric-agent", "--api_url", "http://a"]); // as ironic-python-agent spells it
        assert_eq!(cli.options.overrides().values, [pair("api_url", "http://a")]);
        let cli = Cli::parse_from(["ferric-agent", "config", "--debug"]);
        assert!(matches!(cli.command, Some(Command::Config(options)) if options.debug));
        assert!(Cli::try_parse_from(["ferric-agent", "--set", "novalue"]).is_err());
    }
}
