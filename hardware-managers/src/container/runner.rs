//! Podman or docker: found, asked whether it works, and told what to run.

use std::time::Duration;

use hwm::{Context, Error};
use sys::{CommandLine, Host, RunError};

use super::policy::Permitted;

/// The programs that can run containers, in the order in which they are looked for.
pub(super) const PROGRAMS: [&str; 2] = ["podman", "docker"];

/// Where programs lie.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const VERSION_LIMIT: Duration = Duration::from_secs(30);
const PULL_LIMIT: Duration = Duration::from_secs(3600);
const RUN_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Lines of a container's output that go into the log; of longer ones the last.
const LOG_LINES: usize = 1000;

/// A program that answered.
pub(super) struct ContainerRunner<'a> {
    host: &'a Host,
    name: String,
    path: String,
}

impl<'a> ContainerRunner<'a> {
    /// Finds a program and asks for its version: one that lies there and can not run is no help.
    pub(super) fn find(host: &'a Host, name: &str) -> Result<Self, String> {
        let paths = DIRECTORIES.iter().map(|directory| host.path(format!("{directory}/{name}")));
        let path = paths
            .into_iter()
            .find(|path| path.is_file())
            .and_then(|path| Some(path.to_str()?.to_owned()))
            .ok_or_else(|| format!("{name} is not installed"))?;
        let runner = Self { host, name: name.to_owned(), path };
        runner
            .call(vec!["--version".into()], VERSION_LIMIT)
            .map_err(|error| format!("{name} does not work: {error}"))?;
        Ok(runner)
    }

    /// Pulls the image, then runs it; what it writes goes into the log when it has ended. Certificates of registries are
    /// verified unless the options say otherwise.
    pub(super) fn run(&self, cx: &Context, permitted: &Permitted) -> Result<(), Error> {
        let Permitted { image, pull_options, run_options } = permitted;
        for (verb, options, limit) in [("pull", pull_options, PULL_LIMIT), ("run", run_options, RUN_LIMIT)] {
            if cx.is_cancelled() {
                return Err(Error::Failed {
                    message: format!("{verb} of the container {image} was cancelled"),
                });
            }
            tracing::info!(image, verb, "container");
            let mut arguments = vec![verb.to_owned()];
            arguments.extend(options.iter().cloned());
            arguments.push(image.clone());
            self.call(arguments, limit).map_err(|error| Error::Failed {
                message: format!("{} {verb} of the container {image}: {error}", self.name),
            })?;
        }
        Ok(())
    }

    /// The error is without the command line, which may hold secrets.
    fn call(&self, arguments: Vec<String>, limit: Duration) -> Result<(), String> {
        let command = CommandLine::new([self.path.clone()].into_iter().chain(arguments))
            .limit(limit)
            .variable("PATH", &DIRECTORIES.join(":"))
            .variable("HOME", "/root");
        match self.host.runner().run(&command) {
            Ok(output) => {
                log_output(&output.stdout);
                log_output(&output.stderr);
                Ok(())
            }
            Err(RunError::Start { source, .. }) => Err(format!("it can not be started: {source}")),
            Err(RunError::Failed { status, stderr, .. }) => {
                log_output(stderr.as_bytes());
                Err(format!("it ended with {status}: {stderr}"))
            }
            Err(RunError::TimedOut { limit, .. }) => {
                Err(format!("it was killed after {} seconds", limit.as_secs()))
            }
        }
    }
}

fn log_output(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let left_out = lines.len().saturating_sub(LOG_LINES);
    if left_out > 0 {
        tracing::info!(left_out, "container output, the last lines");
    }
    for line in lines.into_iter().skip(left_out) {
        tracing::info!(line, "container output");
    }
}
