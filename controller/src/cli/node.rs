//! `ferric node ...` and `ferric port ...`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};
use wire::ProvisionState;

use super::client::{Client, key_value, segment};
use super::{Exit, Failure};
use crate::printable;

/// Commands for machines.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Make a machine known
    Create(CreateArguments),
    /// List all machines
    List,
    /// Show one machine
    Show {
        /// Name or UUID
        node: String,
    },
    /// Change a machine's settings
    Set(SetArguments),
    /// Forget a machine; its virtual machine ends, its disks stay
    Delete {
        /// Name or UUID
        node: String,
    },
    /// Take a machine under control: checks that its power can be controlled
    Manage(WaitArguments),
    /// Make a machine available for deployments
    Provide(WaitArguments),
    /// Give up the operation under way and switch the machine off
    Abort {
        /// Name or UUID
        node: String,
    },
    /// Switch a machine on or off, or reset it
    Power {
        /// What to do
        action: PowerAction,
        /// Name or UUID
        node: String,
    },
}

/// Power actions.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PowerAction {
    /// Switch on
    On,
    /// Switch off
    Off,
    /// Reset
    Reset,
}

/// Settings of a new machine.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Name
    name: String,
    /// UUID [default: a random one]
    #[arg(long)]
    uuid: Option<String>,
    /// How its power is controlled
    #[arg(long, default_value = "qemu")]
    driver: String,
    /// MAC address of a network port; may be given several times
    #[arg(long)]
    mac: Vec<String>,
    #[command(flatten)]
    settings: Settings,
}

/// Settings of a machine.
#[derive(Debug, Args)]
pub struct Settings {
    /// Setting of the driver; may be given several times
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    driver_info: Vec<(String, Value)>,
    /// Property such as root_device or capabilities; may be given several times
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    property: Vec<(String, Value)>,
    /// More kernel parameters for its ramdisk
    #[arg(long, value_name = "PARAMETERS")]
    kernel_params: Option<String>,
}

/// Changes of a machine's settings.
#[derive(Debug, Args)]
pub struct SetArguments {
    /// Name or UUID
    node: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// What is to be deployed; may be given several times
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    instance_info: Vec<(String, Value)>,
    /// Path to remove, such as driver_info/qemu_boot; may be given several times
    #[arg(long, value_name = "PATH")]
    unset: Vec<String>,
}

/// A machine, and how long to wait for it.
#[derive(Debug, Args)]
pub struct WaitArguments {
    /// Name or UUID
    node: String,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

/// Commands for network ports.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Add a port to a machine
    Create {
        /// Name or UUID of the machine
        node: String,
        /// MAC address
        mac: String,
    },
    /// List the ports of all machines, or of one
    List {
        /// Name or UUID of the machine
        node: Option<String>,
    },
    /// Remove a port
    Delete {
        /// MAC address or UUID
        port: String,
    },
}

/// Runs a command for machines.
pub async fn run(client: &Client, command: NodeCommand) -> Result<Exit, Failure> {
    match command {
        NodeCommand::Create(arguments) => create(client, arguments).await?,
        NodeCommand::List => list(client).await?,
        NodeCommand::Show { node } => show(client, &node).await?,
        NodeCommand::Set(arguments) => set(client, arguments).await?,
        NodeCommand::Delete { node } => {
            client.order(Method::DELETE, &path(&node), None).await?;
            eprintln!("node {node} is forgotten");
        }
        NodeCommand::Manage(arguments) => {
            operate(client, &arguments, "manage", ProvisionState::Manageable).await?;
        }
        NodeCommand::Provide(arguments) => {
            operate(client, &arguments, "provide", ProvisionState::Available).await?;
        }
        NodeCommand::Abort { node } => {
            client.provision(&node, &json!({ "target": "abort" })).await?;
            eprintln!("the operation on node {node} is aborted");
        }
        NodeCommand::Power { action, node } => {
            let (target, done) = match action {
                PowerAction::On => ("power on", "on"),
                PowerAction::Off => ("power off", "off"),
                PowerAction::Reset => ("rebooting", "reset"),
            };
            let body = json!({ "target": target });
            client.order(Method::PUT, &format!("{}/states/power", path(&node)), Some(&body)).await?;
            eprintln!("node {node} is {done}");
        }
    }
    Ok(Exit::Success)
}

fn path(node: &str) -> String {
    format!("/v1/nodes/{}", segment(node))
}

fn map(pairs: Vec<(String, Value)>) -> Map<String, Value> {
    pairs.into_iter().collect()
}

async fn create(client: &Client, arguments: CreateArguments) -> Result<(), Failure> {
    let CreateArguments { name, uuid, driver, mac, settings } = arguments;
    let macs: Vec<String> = mac
        .iter()
        .map(|text| {
            wire::normalize_mac(text).ok_or_else(|| Failure::usage(format!("--mac {text}: no MAC address")))
        })
        .collect::<Result<_, _>>()?;
    let mut driver_info = map(settings.driver_info);
    if let Some(parameters) = settings.kernel_params {
        driver_info.insert("kernel_append_params".into(), parameters.into());
    }
    let mut body = json!({
        "name": name, "driver": driver, "driver_info": driver_info, "properties": map(settings.property),
    });
    if let (Some(uuid), Some(body)) = (uuid, body.as_object_mut()) {
        body.insert("uuid".into(), uuid.into());
    }
    let node: Value = client.send(Method::POST, "/v1/nodes", &body).await?;
    let uuid = text(&node, "uuid");
    for mac in macs {
        let port = json!({ "node_uuid": uuid, "address": mac });
        if let Err(failure) = client.send::<Value>(Method::POST, "/v1/ports", &port).await {
            // Half a node helps nobody: the next try would stumble over its name.
            client.order(Method::DELETE, &path(&uuid), None).await?;
            return Err(failure);
        }
    }
    if client.json {
        println!("{}", printable::json(&node));
    } else {
        println!("{uuid}");
        eprintln!("node {name} is known; next: ferric node manage {name} && ferric node provide {name}");
    }
    Ok(())
}

async fn list(client: &Client) -> Result<(), Failure> {
    let reply: Value = client.get("/v1/nodes/detail").await?;
    let nodes = reply.get("nodes").and_then(Value::as_array).cloned().unwrap_or_default();
    if client.json {
        println!("{}", printable::json(&nodes));
        return Ok(());
    }
    let mut rows = vec![["NAME", "UUID", "POWER", "STATE", "ERROR"].map(String::from)];
    for node in &nodes {
        let error: String = text(node, "last_error").chars().take(60).collect();
        let state = text(node, "provision_state");
        rows.push([text(node, "name"), text(node, "uuid"), text(node, "power_state"), state, error]);
    }
    table(&rows);
    Ok(())
}

async fn show(client: &Client, node: &str) -> Result<(), Failure> {
    let node: Value = client.get(&path(node)).await?;
    if client.json {
        println!("{}", printable::json(&node));
        return Ok(());
    }
    let Value::Object(fields) = node else { return Ok(()) };
    for (key, value) in fields {
        match value {
            Value::Null => {}
            Value::Object(inner) if inner.is_empty() => {}
            Value::Array(_) => {}
            Value::String(text) => println!("{key}: {}", printable::lines(&text)),
            other => println!("{key}: {}", printable::json(&other)),
        }
    }
    Ok(())
}

async fn set(client: &Client, arguments: SetArguments) -> Result<(), Failure> {
    let SetArguments { node, name, settings, instance_info, unset } = arguments;
    let mut operations = Vec::new();
    let mut add =
        |path: String, value: Value| operations.push(json!({ "op": "add", "path": path, "value": value }));
    if let Some(name) = name {
        add("/name".into(), name.into());
    }
    let groups = [
        ("driver_info", settings.driver_info),
        ("properties", settings.property),
        ("instance_info", instance_info),
    ];
    for (object, pairs) in groups {
        for (key, value) in pairs {
            add(pointer(object, &key), value);
        }
    }
    if let Some(parameters) = settings.kernel_params {
        add("/driver_info/kernel_append_params".into(), parameters.into());
    }
    for path in unset {
        operations.push(json!({ "op": "remove", "path": format!("/{}", path.trim_start_matches('/')) }));
    }
    if operations.is_empty() {
        return Err(Failure::usage(
            "nothing to change: give --driver-info, --property, --instance-info, --name or --unset",
        ));
    }
    let changed: Value = client.send(Method::PATCH, &path(&node), &Value::Array(operations)).await?;
    if client.json {
        println!("{}", printable::json(&changed));
    } else {
        eprintln!("node {node} is changed");
    }
    Ok(())
}

/// A JSON pointer to `object/key`.
pub fn pointer(object: &str, key: &str) -> String {
    format!("/{object}/{}", key.replace('~', "~0").replace('/', "~1"))
}

async fn operate(
    client: &Client,
    arguments: &WaitArguments,
    target: &str,
    goal: ProvisionState,
) -> Result<(), Failure> {
    let node = &arguments.node;
    client.provision(node, &json!({ "target": target })).await?;
    client.wait_for(node, &[goal], Duration::from_secs(arguments.timeout)).await?;
    eprintln!("node {node} is {goal}");
    Ok(())
}

/// Runs a command for ports.
pub async fn ports(client: &Client, command: PortCommand) -> Result<Exit, Failure> {
    match command {
        PortCommand::Create { node, mac } => {
            let body = json!({ "node_uuid": node, "address": mac });
            let port: Value = client.send(Method::POST, "/v1/ports", &body).await?;
            println!("{}", if client.json { printable::json(&port) } else { text(&port, "uuid") });
        }
        PortCommand::List { node } => {
            let query = node.map(|node| format!("?node={}", segment(&node))).unwrap_or_default();
            let reply: Value = client.get(&format!("/v1/ports{query}")).await?;
            let ports = reply.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
            if client.json {
                println!("{}", printable::json(&ports));
            } else {
                let mut rows = vec![["ADDRESS", "UUID", "NODE"].map(String::from)];
                rows.extend(
                    ports.iter().map(|port| ["address", "uuid", "node_uuid"].map(|key| text(port, key))),
                );
                table(&rows);
            }
        }
        PortCommand::Delete { port } => {
            client.order(Method::DELETE, &format!("/v1/ports/{}", segment(&port)), None).await?;
            eprintln!("port {port} is removed");
        }
    }
    Ok(Exit::Success)
}

fn text(value: &Value, key: &str) -> String {
    printable::line(value.get(key).and_then(Value::as_str).unwrap_or_default())
}

/// Prints rows in columns; the last column is not padded.
fn table<const N: usize>(rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
