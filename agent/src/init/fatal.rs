//! The end of the road: an error that start-up can not get over stays on every console, with what to do.
//!
//! Process 1 must never end, for the kernel panics when it does and the reason scrolls away.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use sys::{Host, Power};

use super::{Console, Identity, reaper};
use crate::cmdline::Cmdline;
use crate::config::{Config, Overrides};

/// How long a message is shown before the machine reboots or is switched off, if that is what is wanted.
const SHOWN_FOR: Duration = Duration::from_secs(60);
/// How often it is repeated, for whoever attaches to a serial line later.
const REPEATED_EVERY: Duration = Duration::from_secs(300);

/// What to do after a fatal error: the kernel parameter `ferric-on-fatal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFatal {
    /// Stay, with the message on the consoles (`wait`, the default).
    #[default]
    Wait,
    /// Show the message for a minute, then **reboot** (`reboot`).
    Reboot,
    /// Show the message for a minute, then **switch off** (`poweroff`).
    PowerOff,
}

impl OnFatal {
    /// Reads the kernel parameter; what is not understood is `wait`.
    pub fn from_cmdline(cmdline: &Cmdline) -> Self {
        match cmdline.get("ferric-on-fatal") {
            Some("reboot") => Self::Reboot,
            Some("poweroff") => Self::PowerOff,
            _ => Self::Wait,
        }
    }
}

/// Shows what failed, why, and what to do, on every console, and never returns: it waits for a person, or reboots or
/// switches the machine off after a minute where `ferric-on-fatal` says so.
///
/// `what` names the operation ("finding the controller"), `advice` is what a person can do about it.
pub fn fatal(
    host: &Host,
    cmdline: &Cmdline,
    console: &Console,
    what: &str,
    error: &dyn Error,
    advice: &str,
) -> ! {
    let policy = OnFatal::from_cmdline(cmdline);
    tracing::error!(what, error = chain(error).join(": "), "fatal");
    let lines = message(what, &chain(error), advice, policy);
    stay(host, cmdline, console, &lines, SHOWN_FOR, REPEATED_EVERY)
}

/// Shows the message and does what is wanted, for ever.
fn stay(
    host: &Host,
    cmdline: &Cmdline,
    console: &Console,
    lines: &[String],
    shown_for: Duration,
    repeated_every: Duration,
) -> ! {
    let policy = OnFatal::from_cmdline(cmdline);
    loop {
        // The failure may be that very configuration.
        let config = Config::load(host, cmdline, &Overrides::default()).ok().map(|(config, _)| config);
        console.banner(&Identity::collect(host, config.as_ref(), None));
        for line in lines {
            console.line(line);
        }
        console.flush();
        let action = match policy {
            OnFatal::Wait => {
                thread::sleep(repeated_every);
                continue;
            }
            OnFatal::Reboot => Power::Reboot,
            OnFatal::PowerOff => Power::Off,
        };
        thread::sleep(shown_for);
        reaper::restart(host, action); // comes back only when the kernel refuses: then the message stays
    }
}

/// Runs the agent's `main` as process 1: an error, a panic and even an orderly end become [`fatal`].
pub fn supervise<E: Into<Box<dyn Error>>>(
    host: &Host,
    cmdline: &Cmdline,
    console: &Console,
    run: impl FnOnce() -> Result<(), E>,
) -> ! {
    let advice = "see the lines above; on the controller, look at the node's last error; \
                  then reboot this machine (Ctrl-Alt-Del) to try again";
    // The closure is gone after a panic; what it shared (consoles, events) stays valid under one.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => {
            let ended = std::io::Error::other("the agent ended without having been asked to");
            fatal(host, cmdline, console, "running the agent", &ended, advice)
        }
        Ok(Err(error)) => {
            let error: Box<dyn Error> = error.into();
            fatal(host, cmdline, console, "running the agent", error.as_ref(), advice)
        }
        Err(_) => {
            let panic = std::io::Error::other("the agent panicked: a defect, please report the lines above");
            fatal(host, cmdline, console, "running the agent", &panic, advice)
        }
    }
}

fn message(what: &str, causes: &[String], advice: &str, policy: OnFatal) -> Vec<String> {
    let rule = "!".repeat(60);
    let mut lines = vec![rule.clone(), format!("FERRIC STOPPED: {what} failed")];
    lines.extend(causes.iter().map(|cause| format!("  because: {cause}")));
    lines.push(format!("  what to do: {advice}"));
    lines.push(match policy {
        OnFatal::Wait => "  the machine waits here; Ctrl-Alt-Del reboots it".into(),
        OnFatal::Reboot => format!("  rebooting in {} s (ferric-on-fatal=reboot)", SHOWN_FOR.as_secs()),
        OnFatal::PowerOff => {
            format!("  powering off in {} s (ferric-on-fatal=poweroff)", SHOWN_FOR.as_secs())
        }
    });
    lines.push(rule);
    lines
}

/// An error and its causes, outermost first.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next.filter(|_| texts.len() < 16) {
        texts.push(cause.to_string());
        next = cause.source();
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_operation_every_cause_and_what_to_do() {
        let inner = std::io::Error::other("connection refused");
        let error = crate::init::Error::Read { path: "/proc/cmdline".into(), source: inner };
        let text =
            message("finding the controller", &chain(&error), "check ipa-api-url", OnFatal::Wait).join("\n");
        for part in [
            "finding the controller failed",
            "reading /proc/cmdline",
            "connection refused",
            "check ipa-api-url",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn waiting_is_the_default_and_the_answer_to_nonsense() {
        let policy = |text| OnFatal::from_cmdline(&Cmdline::parse(text));
        assert_eq!(policy(""), OnFatal::Wait);
        assert_eq!(policy("ferric-on-fatal=explode"), OnFatal::Wait);
        assert_eq!(policy("ferric-on-fatal=reboot"), OnFatal::Reboot);
        assert_eq!(policy("ferric-on-fatal=poweroff"), OnFatal::PowerOff);
    }

    #[test]
    fn the_machine_reboots_or_powers_off_after_its_message_or_stays_with_it() {
        use std::sync::Arc;
        use sys::fake::{Call, FakeRunner, RecordingKernel};
        for (parameter, expected) in [
            ("ferric-on-fatal=reboot", Some(Power::Reboot)),
            ("ferric-on-fatal=poweroff", Some(Power::Off)),
            ("ferric-on-fatal=wait", None),
        ] {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("etc")).unwrap();
            std::fs::write(root.path().join("etc/ironic-python-agent.conf"), "api_url = http://c:1\n")
                .unwrap();
            let screen = root.path().join("screen");
            let console =
                Console::to_writer(&events::Events::default(), std::fs::File::create(&screen).unwrap());
            let kernel = Arc::new(RecordingKernel::default());
            let host = Host::new(root.path(), Arc::new(FakeRunner::default()), kernel.clone());
            thread::spawn(move || {
                let short = Duration::from_millis(20);
                stay(&host, &Cmdline::parse(parameter), &console, &["it failed".into()], short, short)
            });
            let powers = || {
                let calls = kernel.calls().into_iter();
                calls.filter(|call| matches!(call, Call::Power(_))).collect::<Vec<_>>()
            };
            let shown = || std::fs::read_to_string(&screen).unwrap_or_default().matches("it failed").count();
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            while (shown() < 3 || (expected.is_some() && powers().is_empty()))
                && std::time::Instant::now() < deadline
            {
                thread::sleep(Duration::from_millis(20));
            }
            assert!(shown() >= 3, "{parameter}: it stays on the screen");
            assert_eq!(powers().first().cloned(), expected.map(Call::Power), "{parameter}");
            assert!(
                kernel.calls().contains(&Call::Sync) == expected.is_some(),
                "{parameter}: dirty pages first"
            );
            let text = std::fs::read_to_string(&screen).unwrap();
            assert!(text.contains("http://c:1 (file "), "the banner knows the files: {text}");
        }
    }
}
