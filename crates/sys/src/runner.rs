//! Running programs: absolute path, never a shell, always a time limit, `LC_ALL=C`, and of this process's environment only what
//! every program needs. The kernel makes each parameter that it does not know a variable of process 1, secrets among them.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::{cell, children};

/// How much of a program's standard error an error message quotes, in bytes from its end.
const STDERR_TAIL: usize = 2048;
/// How much output is kept; what comes after is read and dropped, so that the program can go on.
const OUTPUT_LIMIT: u64 = 16 * 1024 * 1024;

/// Variables that programs inherit, where they are set.
const INHERITED: [&str; 20] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    // Container engines fetch images.
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LD_LIBRARY_PATH",
];
/// Where programs look for others, unless this process says so: process 1 has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Absolute path of the program, then its arguments.
    pub argv: Vec<String>,
    /// What it reads.
    pub stdin: Vec<u8>,
    /// When it is killed.
    pub limit: Duration,
    /// The directory that is `/` for it, of a system that is not ours: see [`CommandLine::inside`]. `None` for our own.
    pub root: Option<PathBuf>,
    /// Variables that it gets besides `LC_ALL=C`, `PATH` and the few that every program needs (`HOME`, `TERM`, proxies). With a
    /// root of its own it gets nothing of this process's environment.
    pub environment: Vec<(String, String)>,
}

impl CommandLine {
    /// `argv` (absolute path first) with nothing to read and a minute's time.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        let limit = Duration::from_secs(60);
        Self { argv, stdin: Vec::new(), limit, root: None, environment: Vec::new() }
    }

    /// The same inside another system: the program and all it sees lie below `root`, and it gets a `PATH` of its own. It sees
    /// nothing of ours: no process, network, kernel parameter or environment; and may do nothing but with files.
    pub fn inside(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self.variable("PATH", PATH)
    }

    /// The same with a variable in its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The same with another time limit.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same with something to read.
    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(root) = &self.root {
            write!(f, "chroot {} ", root.display())?;
        }
        f.write_str(&self.argv.join(" "))
    }
}

/// What a program that exited with 0 wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// Why a program did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It is not there, or can not be started.
    #[error("starting `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended badly.
    #[error("`{command}` ended with {status}: {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// Exit status or signal.
        status: String,
        /// The tail of its standard error.
        stderr: String,
    },
    /// It took too long and was killed.
    #[error("`{command}` was killed after {} seconds", limit.as_secs())]
    TimedOut {
        /// The command line.
        command: String,
        /// The limit.
        limit: Duration,
    },
}

impl RunError {
    /// Whether the program is simply not installed.
    pub fn is_missing(&self) -> bool {
        matches!(self, RunError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Somebody who runs programs.
pub trait Runner: Send + Sync {
    /// Runs one program to its end and returns what it wrote. Blocks.
    fn run(&self, command: &CommandLine) -> Result<Output, RunError>;
}

/// Runs programs on this machine.
pub struct SystemRunner;

impl Runner for SystemRunner {
    fn run(&self, command: &CommandLine) -> Result<Output, RunError> {
        tracing::debug!(command = %command, "running");
        let start_error = |source| RunError::Start { command: command.to_string(), source };
        let (program, arguments) =
            command.argv.split_first().filter(|(program, _)| program.starts_with('/')).ok_or_else(|| {
                start_error(io::Error::new(io::ErrorKind::InvalidInput, "the program's path is not absolute"))
            })?;

        // The one place that starts processes: the ban on Command::new points here.
        #[allow(clippy::disallowed_methods)]
        let mut program = std::process::Command::new(program);
        program.env_clear();
        match &command.root {
            Some(root) => cell::enter(&mut program, root).map_err(start_error)?,
            None => {
                let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
                program.env("PATH", PATH).envs(inherited);
            }
        }
        program
            .args(arguments)
            .env("LC_ALL", "C")
            .envs(command.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0); // so that a timeout also reaches what the program started
        let (mut child, _owned) = children::spawn(&mut program).map_err(start_error)?;

        let stdin = child.stdin.take();
        let input = command.stdin.clone();
        let writer = thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input to the end is not in error for it.
                let _ = stdin.write_all(&input);
            }
        });
        let stdout = child.stdout.take().map(read_to_end);
        let stderr = child.stderr.take().map(read_to_end);

        let deadline = Instant::now() + command.limit;
        let status = wait_until(&mut child, deadline).map_err(start_error)?;
        let timed_out = || RunError::TimedOut { command: command.to_string(), limit: command.limit };
        let Some(status) = status else {
            kill_group(child.id());
            let _ = child.wait();
            return Err(timed_out());
        };
        // A daemon that the program left behind may hold the pipes open: do not wait for it for ever.
        let grace = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let collect = |reader: Option<mpsc::Receiver<Vec<u8>>>| {
            reader.and_then(|r| r.recv_timeout(grace).ok()).unwrap_or_default()
        };
        let output = Output { stdout: collect(stdout), stderr: collect(stderr) };
        drop(writer);
        check(command, status, output)
    }
}

fn wait_until(child: &mut std::process::Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn kill_group(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // ESRCH means that it is gone, which is what we want.
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

fn read_to_end(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut kept = Vec::new();
        let _ = (&mut from).take(OUTPUT_LIMIT).read_to_end(&mut kept);
        let _ = io::copy(&mut from, &mut io::sink());
        let _ = sender.send(kept);
    });
    receiver
}

fn check(command: &CommandLine, status: ExitStatus, output: Output) -> Result<Output, RunError> {
    if status.success() {
        return Ok(output);
    }
    let tail = output.stderr.get(output.stderr.len().saturating_sub(STDERR_TAIL)..).unwrap_or_default();
    Err(RunError::Failed {
        command: command.to_string(),
        status: status.to_string(),
        stderr: String::from_utf8_lossy(tail).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(argv: &[&str], limit: Duration) -> Result<Output, RunError> {
        SystemRunner.run(&CommandLine::new(argv.iter().copied()).limit(limit))
    }

    #[test]
    fn output_and_input_pass_through() {
        let command = CommandLine::new(["/bin/cat"]).stdin(vec![b'x'; 300_000]);
        assert_eq!(SystemRunner.run(&command).unwrap().stdout.len(), 300_000);
    }

    #[test]
    fn a_failure_names_the_command_and_quotes_its_stderr() {
        let error = run(&["/bin/ls", "/does/not/exist"], Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.contains("/bin/ls /does/not/exist") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let started = Instant::now();
        let error = run(&["/bin/sh", "-c", "sleep 30 & wait"], Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, RunError::TimedOut { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_program_inside_another_root_sees_that_root_and_a_clean_environment() {
        let root = tempfile::tempdir().unwrap();
        let command = CommandLine::new(["/bin/pwd"]).inside(root.path());
        match SystemRunner.run(&command) {
            // There is no /bin/pwd below an empty directory: it did not see the system's own.
            Err(error @ RunError::Start { .. }) if error.is_missing() => {}
            Err(RunError::Start { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {} // not root
            other => panic!("{other:?}"),
        }
        assert!(command.to_string().starts_with("chroot /"));
        if let Some(other) = crate::cell::tests::Other::new() {
            let command = CommandLine::new(["/usr/bin/env"]).inside(other.path()).variable("A", "b");
            let output = String::from_utf8(SystemRunner.run(&command).unwrap().stdout).unwrap();
            let mut names: Vec<_> = output.lines().filter_map(|line| line.split('=').next()).collect();
            names.sort_unstable();
            assert_eq!(names, ["A", "LC_ALL", "PATH"]);
        }
    }

    #[test]
    fn a_program_inherits_what_every_program_needs_and_nothing_else() {
        // The test runner itself sets variables that no tool of a ramdisk needs.
        assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO_")), "run by cargo");
        let command = CommandLine::new(["/usr/bin/env"]).variable("OWN", "b");
        let output = String::from_utf8(SystemRunner.run(&command).unwrap().stdout).unwrap();
        let names: Vec<_> = output.lines().filter_map(|line| line.split('=').next()).collect();
        for name in &names {
            assert!(["OWN", "LC_ALL"].contains(name) || INHERITED.contains(name), "{name}");
        }
        for name in ["OWN", "LC_ALL", "PATH"] {
            assert!(names.contains(&name), "{name}");
        }
    }

    #[test]
    fn relative_and_missing_programs_are_refused() {
        assert!(matches!(run(&["ls"], Duration::from_secs(1)), Err(RunError::Start { .. })));
        assert!(run(&["/no/such/program"], Duration::from_secs(1)).unwrap_err().is_missing());
    }
}
