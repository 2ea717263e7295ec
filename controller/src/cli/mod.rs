//! The command line. Data goes to stdout, talk to stderr; every command says in its exit code how it ended.

mod client;
mod deploy;
mod node;
mod timeline;
mod watch;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wire::Secret;

use self::client::Client;
use crate::serve::{self, ServeArguments};
use crate::token;

/// The thin controller for bare metal: deploys disk images onto machines, with Ironic's API.
#[derive(Debug, Parser)]
#[command(name = "ferric", version, max_term_width = 110)]
pub struct Arguments {
    /// The controller's API
    #[arg(long, global = true, env = "FERRIC_URL", default_value = "http://127.0.0.1:6385")]
    url: String,
    /// File with the controller's token, as STATE/token; FERRIC_TOKEN may hold the token itself [default: that of the controller
    /// at that address on this host]
    #[arg(long, global = true, env = "FERRIC_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token itself. Only for the environment: others see what stands on a command line.
    #[arg(long, global = true, env = "FERRIC_TOKEN", hide = true, hide_env_values = true)]
    token: Option<String>,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller
    Serve(ServeArguments),
    /// Machines: create, list, show, set, delete, manage, provide, abort, power
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Network ports: how machines are recognised
    #[command(subcommand)]
    Port(node::PortCommand),
    /// Write an image onto a machine's disk and boot it
    Deploy(deploy::DeployArguments),
    /// Write an image over the one a machine has now
    Rebuild(deploy::DeployArguments),
    /// Take a machine back
    Undeploy(deploy::UndeployArguments),
    /// Follow what happens to a machine until it is active or has failed
    Watch(watch::WatchArguments),
    /// Join stdin and stdout with a socket of the controller; QEMU starts this for machines
    #[command(hide = true)]
    Forward {
        /// The socket
        socket: PathBuf,
    },
    /// When a machine's last deployment did what
    Timeline {
        /// Name or UUID
        node: String,
    },
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Success = 0,
    /// The operation failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The controller can not be reached.
    Unreachable = 3,
    /// The controller refused.
    Refused = 4,
    /// It took too long.
    TimedOut = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0_u8,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::Refused => 4,
            Exit::TimedOut => 5,
        })
    }
}

/// Why a command did not do as asked: what to print, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// Goes into the exit code.
    pub exit: Exit,
    text: String,
}

impl Failure {
    /// The operation failed.
    pub fn failed(text: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, text: text.into() }
    }

    /// The command line makes no sense.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, text: text.into() }
    }

    fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { url, token_file, token, json, command } = arguments;
    if let Command::Serve(arguments) = command {
        return serve::run(arguments).await;
    }
    let client = Client::new(&url, find_token(&url, token_file.as_deref(), token.as_deref())?, json)?;
    match command {
        // Handled above, and in `main`.
        Command::Serve(_) | Command::Forward { .. } => Ok(Exit::Success),
        Command::Node(command) => node::run(&client, command).await,
        Command::Port(command) => node::ports(&client, command).await,
        Command::Deploy(arguments) => deploy::deploy(&client, arguments, "active").await,
        Command::Rebuild(arguments) => deploy::deploy(&client, arguments, "rebuild").await,
        Command::Undeploy(arguments) => deploy::undeploy(&client, arguments).await,
        Command::Watch(arguments) => watch::run(&client, &arguments).await,
        Command::Timeline { node } => timeline::run(&client, &node).await,
    }
}

impl Arguments {
    /// The socket of `ferric forward`, which needs nothing else of this program.
    pub fn forwards_to(&self) -> Option<&Path> {
        if let Command::Forward { socket } = &self.command { Some(socket) } else { None }
    }
}

/// The token for the controller at `url`: from the file that was named, the environment, or the controller of this host.
fn find_token(url: &str, file: Option<&Path>, text: Option<&str>) -> Result<Option<Secret>, Failure> {
    if let Some(file) = file {
        let token = token::read(file);
        return token.map(Some).map_err(|e| Failure::usage(format!("--token-file {}: {e}", file.display())));
    }
    match text.filter(|text| !text.trim().is_empty()) {
        Some(text) => {
            token::parse(text).map(Some).map_err(|problem| Failure::usage(format!("FERRIC_TOKEN: {problem}")))
        }
        None => Ok(token::find(url)),
    }
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
