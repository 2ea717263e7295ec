//! The ramdisk on a machine under the test's own hand, and a conductor as small as one can be: it tells the agent who it is,
//! and the test gives the commands. For what a controller would only be in the way of: pulling disks, pulling the plug.
//!
//! The conductor claims an API that is older than TLS between it and agents, so the agent serves plain HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{Boot, Disk, Firmware, Nic, Vm, VmConfig, dist, patient, until};

const NODE: &str = "11111111-2222-3333-4444-555555555555";
const TOKEN: &str = "a-token-for-a-test-of-32-characters-or-more";
const AGENT_PORT: u16 = 9999;

/// A machine whose agent waits for commands. Dropping it pulls the plug.
#[derive(Debug)]
pub struct Guest {
    /// The machine.
    pub vm: Vm,
    port: u16,
    _conductor: Conductor,
}

impl Guest {
    /// Boots the ramdisk of `dist/` on BIOS and waits for the agent's first heartbeat. `parameters` are further ones for the
    /// kernel's command line.
    ///
    /// # Errors
    /// It does not come up; the error shows the end of its console.
    pub fn boot(disks: Vec<Disk>, parameters: &str, dir: &Path, name: &str) -> Result<Self> {
        let conductor = Conductor::start()?;
        let ramdisk = dist("ramdisk")?;
        let mut config = VmConfig::new(Firmware::Bios);
        config.disks = disks;
        config.nic = Some(Nic { mac: "52:54:00:fe:99:01".into(), forward: vec![AGENT_PORT] });
        config.boot = Boot::Direct {
            kernel: ramdisk.join("kernel"),
            initramfs: ramdisk.join("initramfs"),
            // A busy host emulates the timer too late for the kernel's check of it.
            command_line: format!(
                "rootfstype=ramfs console=ttyS0 quiet no_timer_check ipa-api-url=http://10.0.2.2:{} ipa-ironic-api-version=1.62 {parameters}",
                conductor.port
            ),
        };
        let vm = Vm::start(&config, dir, name)?;
        until("the agent's first heartbeat", patient(120), || {
            Ok((conductor.heartbeats.load(Ordering::Relaxed) > 0).then_some(()))
        })
        .with_context(|| vm.serial.tail())?;
        let port = vm.port(AGENT_PORT).context("the agent's port is not forwarded")?;
        Ok(Self { vm, port, _conductor: conductor })
    }

    /// Begins to write a raw image by its SHA-512. Ends when the agent has accepted the command.
    ///
    /// # Errors
    /// The agent does not answer, or refuses.
    pub fn begin_write(&self, url: &str, sha512: &str) -> Result<()> {
        let info = json!({
            "id": "noise.raw", "urls": [url], "disk_format": "raw", "os_hash_algo": "sha512", "os_hash_value": sha512,
        });
        let command =
            json!({"name": "standby.prepare_image", "params": {"image_info": info, "configdrive": null}});
        let answer =
            self.call("POST", &format!("/v1/commands/?agent_token={TOKEN}"), &command.to_string())?;
        match text(&answer, "command_status") {
            Some("RUNNING" | "SUCCEEDED") => Ok(()),
            _ => bail!("the agent refused: {answer}"),
        }
    }

    /// Waits for the last command to end; its text, or the error's.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub fn outcome(&self, limit: Duration) -> Result<Result<String, String>> {
        let ended = until("the command to end", limit, || {
            let list = self.call("GET", &format!("/v1/commands/?agent_token={TOKEN}"), "")?;
            let commands = list.get("commands").and_then(Value::as_array);
            let last = commands.and_then(|list| list.last().cloned()).unwrap_or_default();
            Ok((text(&last, "command_status") != Some("RUNNING")).then_some(last))
        })
        .with_context(|| self.vm.serial.tail())?;
        let show = |key: &str| ended.get(key).map_or_else(String::new, Value::to_string);
        Ok(match text(&ended, "command_status") {
            Some("SUCCEEDED") => Ok(show("command_result")),
            _ => Err(show("command_error")),
        })
    }

    fn call(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).context("connecting to the agent")?;
        stream.set_read_timeout(Some(patient(30)))?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n");
        write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("reading the agent's answer")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("the agent's answer has no body")?;
        serde_json::from_str(body).with_context(|| format!("the agent said {answer}"))
    }
}

fn text<'a>(document: &'a Value, key: &str) -> Option<&'a str> {
    document.get(key)?.as_str()
}

/// Knows one node, whatever its addresses.
#[derive(Debug)]
struct Conductor {
    port: u16,
    heartbeats: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Conductor {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening on the loopback")?;
        let port = listener.local_addr()?.port();
        let (heartbeats, stop) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (heartbeats, stop) = (Arc::clone(&heartbeats), Arc::clone(&stop));
            move || {
                for stream in listener.incoming().flatten() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // Who hangs up in the middle asks again.
                    if converse(&stream).is_ok_and(|path| path.starts_with("/v1/heartbeat/")) {
                        heartbeats.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(Self { port, heartbeats, stop, thread: Some(thread) })
    }
}

impl Drop for Conductor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // wakes the thread, which then sees the flag
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic of its own has been printed
        }
    }
}

/// Answers one request; its path.
fn converse(mut stream: &TcpStream) -> Result<String> {
    let end = Instant::now() + Duration::from_secs(10);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut length = 0u64;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() || Instant::now() > end {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    std::io::copy(&mut reader.take(length.min(1 << 20)), &mut std::io::sink())?;
    let (status, body) = match path.split('?').next() {
        Some("/v1/lookup") => {
            let node =
                json!({"uuid": NODE, "properties": {}, "instance_info": {}, "driver_internal_info": {}});
            let config =
                json!({"heartbeat_timeout": 300, "agent_token": TOKEN, "agent_token_required": true});
            ("200 OK", json!({"node": node, "config": config}))
        }
        Some(path) if path.starts_with("/v1/heartbeat/") => ("202 Accepted", Value::Null),
        _ => ("200 OK", json!({"default_version": {"id": "v1", "version": "1.62", "min_version": "1.1"}})),
    };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}")?;
    Ok(path)
}
