//! `ferric serve` and the `ferric` command line, as a user runs them.
//!
//! The controller's state, its machines' files and all logs are below one folder. Dropping a [`Controller`] ends it and its
//! machines; [`Controller::kill`] ends it alone, as a power cut would.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::dist;
use crate::{patient, until};

/// What a command of `ferric` answered.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output: data.
    pub stdout: String,
    /// Standard error: talk.
    pub stderr: String,
}

impl Outcome {
    /// The same, if the command succeeded.
    ///
    /// # Errors
    /// It did not; its words are in the error.
    pub fn ok(self) -> Result<Self> {
        if self.code != Some(0) {
            bail!("`{}` ended with {:?}\n{}{}", self.command, self.code, self.stdout, self.stderr);
        }
        Ok(self)
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("`{}` printed no JSON: {}", self.command, self.stdout))
    }
}

/// A controller, running or killed.
#[derive(Debug)]
pub struct Controller {
    program: PathBuf,
    dir: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    url: String,
}

impl Controller {
    /// Starts `ferric serve` on a free port of the loopback, with its state below `dir`, and waits until it listens.
    ///
    /// # Errors
    /// `dist/` is not built, or the controller ends or stays silent; the end of its log is in the error.
    pub fn start(dir: &Path, more: &[&str]) -> Result<Self> {
        let mut controller = Self {
            program: dist("ferric")?,
            dir: dir.to_owned(),
            arguments: more.iter().map(ToString::to_string).collect(),
            child: None,
            url: String::new(),
        };
        controller.serve("127.0.0.1:0")?;
        Ok(controller)
    }

    fn serve(&mut self, listen: &str) -> Result<()> {
        let ramdisk = dist("ramdisk/kernel")?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut child = Command::new(&self.program)
            .arg("serve")
            .arg("--state")
            .arg(self.dir.join("state"))
            .args(["--listen", listen, "--ramdisk"])
            .arg(ramdisk.parent().context("dist/ramdisk")?)
            .arg("--disks")
            .arg(&self.dir)
            .env("XDG_STATE_HOME", self.notes())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let stdout = child.stdout.take().context("the controller's stdout")?;
        self.child = Some(child);
        // Read on a thread of its own, to the end: a controller must never block on a full pipe.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line); // nobody listens after the first line
            }
        });
        let banner = receiver.recv_timeout(patient(20));
        let banner = banner.with_context(|| format!("the controller says nothing\n{}", self.log_tail()))?;
        let url =
            banner.strip_prefix("listening on ").with_context(|| format!("unknown banner {banner:?}"))?;
        self.url = url.trim().to_owned();
        Ok(())
    }

    /// The address of its API.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it notes its token for commands: not in the home folder of the person who runs the tests.
    fn notes(&self) -> PathBuf {
        self.dir.join("xdg-state")
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.dir.join("controller.log")
    }

    /// The end of its log, for error messages.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let skipped = text.lines().count().saturating_sub(30);
        let tail: Vec<_> = text.lines().skip(skipped).collect();
        format!("--- end of {}\n{}\n---", self.log().display(), tail.join("\n"))
    }

    /// `kill -9`: the controller has no time to write anything down.
    ///
    /// # Errors
    /// It was not running.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the controller is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts it again with the same state, on the same address.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<()> {
        let listen = self.url.strip_prefix("http://").unwrap_or(&self.url).to_owned();
        self.serve(&listen)
    }

    /// Runs a command of `ferric` against this controller and waits for its end, `limit` at the most.
    ///
    /// # Errors
    /// It can not be started, or has not ended in time (it is killed then).
    pub fn run(&self, arguments: &[&str], limit: Duration) -> Result<Outcome> {
        let command = format!("ferric {}", arguments.join(" "));
        let [stdout_path, stderr_path] =
            ["stdout", "stderr"].map(|name| self.dir.join(format!("ferric.{name}")));
        let mut child = self
            .command(arguments)
            .stdout(File::create(&stdout_path)?)
            .stderr(File::create(&stderr_path)?)
            .spawn()
            .with_context(|| format!("starting `{command}`"))?;
        let status = until(&format!("the end of `{command}`"), limit, || Ok(child.try_wait()?));
        if status.is_err() {
            let _ = child.kill(); // may have ended just now
            let _ = child.wait();
        }
        let [stdout, stderr] =
            [&stdout_path, &stderr_path].map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let status = status.with_context(|| format!("{stdout}{stderr}\n{}", self.log_tail()))?;
        Ok(Outcome { command, code: status.code(), stdout, stderr })
    }

    /// A `ferric` command line against this controller, for callers that watch it run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("FERRIC_URL", &self.url)
            .env("XDG_STATE_HOME", self.notes())
            .env_remove("FERRIC_TOKEN")
            .env_remove("FERRIC_TOKEN_FILE")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed within a minute.
    ///
    /// # Errors
    /// It does not.
    pub fn ferric(&self, arguments: &[&str]) -> Result<Outcome> {
        self.run(arguments, patient(60))?.ok().with_context(|| self.log_tail())
    }

    /// Creates a node with a machine of the `qemu` driver and makes it available.
    ///
    /// # Errors
    /// The controller refuses, or the machine does not become available.
    pub fn add_node(&self, name: &str, mac: &str, driver_info: &[String]) -> Result<()> {
        let mut arguments = vec!["node", "create", name, "--driver", "qemu", "--mac", mac];
        for pair in driver_info {
            arguments.extend(["--driver-info", pair]);
        }
        self.ferric(&arguments)?;
        self.ferric(&["node", "manage", name])?;
        self.ferric(&["node", "provide", name])?;
        Ok(())
    }

    /// A node as the API shows it.
    ///
    /// # Errors
    /// There is no such node, or the controller does not answer.
    pub fn node(&self, name: &str) -> Result<Value> {
        self.run(&["node", "show", name, "--json"], patient(20))?.ok()?.json()
    }

    /// The provision state of a node.
    ///
    /// # Errors
    /// As [`Self::node`].
    pub fn state(&self, name: &str) -> Result<String> {
        let node = self.node(name)?;
        Ok(node.get("provision_state").and_then(Value::as_str).unwrap_or_default().to_owned())
    }
}

/// Ends the machines that a controller left running below `dir`: they outlive it, and no API will switch a machine off that
/// is in the middle of a deployment. Only processes whose command line names this very folder are touched.
pub fn switch_off_leftovers(dir: &Path) {
    for machine in std::fs::read_dir(dir.join("state/vms")).into_iter().flatten().flatten() {
        // As QEMU was told it: `.cache` may be a link.
        let Ok(machine) = machine.path().canonicalize() else { continue };
        let text = std::fs::read_to_string(machine.join("pid")).unwrap_or_default();
        let Ok(pid) = text.trim().parse::<u32>() else { continue };
        let runs = || {
            let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command_line).contains(&*machine.to_string_lossy())
        };
        if runs() {
            let _ = Command::new("/bin/kill").args(["-KILL", &pid.to_string()]).status(); // seen by the wait below
            let gone = until("a machine's end", patient(20), || Ok((!runs()).then_some(())));
            if let Err(error) = gone {
                eprintln!("QEMU with process id {pid} is still running: {error:#}");
            }
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.kill(); // not running: the test has killed it
        switch_off_leftovers(&self.dir);
    }
}
