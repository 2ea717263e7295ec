//! `ferric watch`: what happens to a node, live, until it is active or has failed. On a terminal a progress bar; elsewhere
//! plain lines, at most one of progress a second.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use events::{EventKind, Phase};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use wire::ProvisionState;

use super::client::{Client, EVENT_WAIT};
use super::{Exit, Failure, timeline};
use crate::api::EventsReply;
use crate::hub::Relayed;
use crate::printable;

/// A controller that restarts comes back within this; a deployment goes on meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What to watch.
#[derive(Debug, Args)]
pub struct WatchArguments {
    /// Name or UUID
    pub node: String,
    /// How long to watch
    #[arg(long, value_name = "SECONDS", default_value_t = 7200)]
    pub timeout: u64,
}

/// Watches. Ends well when the node is active or at rest otherwise, badly when it failed.
pub async fn run(client: &Client, arguments: &WatchArguments) -> Result<Exit, Failure> {
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    let mut shown: Box<dyn Show> = if client.json {
        Box::new(Json)
    } else if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() {
        Box::new(Bar::new())
    } else {
        Box::new(Plain::default())
    };
    let mut after = 0;
    let mut state = None;
    let mut away_since: Option<Instant> = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let reply = match client.events(&arguments.node, after, left.min(EVENT_WAIT)).await {
            Ok(reply) => reply,
            Err(failure) if failure.exit == Exit::Unreachable && state.is_some() => {
                let since = *away_since.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(failure);
                }
                if since.elapsed() < Duration::from_millis(1) {
                    shown.line("NOTICE", "the controller is away; waiting for it to come back");
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        away_since = None;
        after = reply.next;
        for event in &reply.events {
            shown.event(event);
        }
        let now = reply.node.provision_state;
        if state != Some(now) {
            shown.line("STATE", now.name());
            state = Some(now);
        }
        if !now.is_transient() && !reply.more {
            return Ok(shown_end(client, shown.as_mut(), &reply));
        }
        if Instant::now() >= deadline {
            shown.end();
            return Err(Failure::new(
                Exit::TimedOut,
                format!(
                    "node {} is still in state \"{now}\" after {} s; it goes on without a watcher",
                    arguments.node, arguments.timeout
                ),
            ));
        }
    }
}

fn shown_end(client: &Client, shown: &mut dyn Show, reply: &EventsReply) -> Exit {
    shown.end();
    let failed = reply.node.provision_state.is_failure()
        || (reply.node.provision_state == ProvisionState::Enroll && reply.node.last_error.is_some());
    if client.json {
        let result = if failed { "failed" } else { reply.node.provision_state.name() };
        let end = json!({
            "result": result, "node": reply.node, "last_error": reply.node.last_error, "timeline": reply.timeline,
        });
        println!("{}", printable::json(&end));
    } else if !reply.timeline.is_empty() {
        print!("{}", timeline::table(&reply.timeline));
    }
    if failed {
        eprintln!(
            "ferric: {}",
            printable::line(reply.node.last_error.as_deref().unwrap_or("the operation failed"))
        );
        return Exit::Failed;
    }
    Exit::Success
}

/// One way of showing what happens.
trait Show {
    fn event(&mut self, event: &Relayed);
    fn line(&mut self, word: &str, text: &str);
    fn end(&mut self);
}

/// A JSON object a line.
struct Json;

impl Show for Json {
    fn event(&mut self, event: &Relayed) {
        println!("{}", printable::json(event));
    }

    fn line(&mut self, word: &str, text: &str) {
        println!("{}", printable::json(&json!({ "event": word.to_lowercase(), "message": text })));
    }

    fn end(&mut self) {}
}

/// Plain lines for logs and pipes.
#[derive(Default)]
struct Plain {
    rate: Rate,
    last: Option<Instant>,
}

impl Show for Plain {
    fn event(&mut self, event: &Relayed) {
        match &event.kind {
            EventKind::Progress { phase, done, total, .. } => {
                let rate = self.rate.at(*phase, *done);
                let whole = total.is_some_and(|total| total == *done);
                if whole || self.last.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY) {
                    self.last = Some(Instant::now());
                    println!("{}", progress_line(*phase, *done, *total, rate));
                }
            }
            kind => {
                if let Some((word, text)) = words(kind) {
                    self.line(word, &text);
                }
            }
        }
    }

    fn line(&mut self, word: &str, text: &str) {
        println!("{}", plain_line(word, text));
    }

    fn end(&mut self) {}
}

/// A line that says one thing, whatever the agent put into it.
fn plain_line(word: &str, text: &str) -> String {
    format!("{word} {}", printable::line(text))
}

/// Bytes a second, over a phase so far.
#[derive(Default)]
struct Rate(Option<(Phase, Instant, u64)>);

impl Rate {
    fn at(&mut self, phase: Phase, done: u64) -> f64 {
        match self.0 {
            Some((known, since, from)) if known == phase && done >= from => {
                let seconds = since.elapsed().as_secs_f64();
                // Only a display: the lost digits do not matter.
                if seconds > 0.0 { (done - from) as f64 / seconds } else { 0.0 }
            }
            _ => {
                self.0 = Some((phase, Instant::now(), done));
                0.0
            }
        }
    }
}

fn progress_line(phase: Phase, done: u64, total: Option<u64>, rate: f64) -> String {
    let mib = rate / f64::from(1 << 20);
    match total {
        Some(total) if total > 0 => {
            let percent = u128::from(done) * 100 / u128::from(total);
            let left = total.saturating_sub(done) as f64;
            let eta = if rate > 0.0 { format!(" eta {:.0}s", left / rate) } else { String::new() };
            format!("PROGRESS {} {done}/{total} {percent}% {mib:.1} MiB/s{eta}", phase.name())
        }
        Some(_) | None => format!("PROGRESS {} {done} {mib:.1} MiB/s", phase.name()),
    }
}

/// An event that is no progress, in a word and a text; `None` for what watchers need not see: how commands end, the
/// controller tells in its own words.
fn words(kind: &EventKind) -> Option<(&'static str, String)> {
    Some(match kind {
        EventKind::AgentStarted { version } => ("NOTICE", format!("agent {version} started")),
        EventKind::Notice { message } => ("NOTICE", message.clone()),
        EventKind::PhaseStarted { phase, subject } => ("PHASE", format!("{phase} {subject}")),
        EventKind::PhaseFinished { phase, seconds, bytes } => {
            let bytes = bytes.map_or_else(String::new, |bytes| format!(", {bytes} bytes"));
            ("DONE", format!("{phase} in {seconds:.1} s{bytes}"))
        }
        EventKind::Retrying { phase, reason, attempt, attempts, delay_seconds, resume_at } => {
            // No number of attempts: limited by time.
            let of = if *attempts == 0 { String::new() } else { format!("/{attempts}") };
            let from = if *resume_at == 0 { String::new() } else { format!(" from byte {resume_at}") };
            ("RETRY", format!("{phase} {attempt}{of} in {delay_seconds:.0} s{from}: {reason}"))
        }
        EventKind::Failed { message, .. } => ("FAILED", message.clone()),
        EventKind::CommandStarted { .. }
        | EventKind::CommandFinished { .. }
        | EventKind::Progress { .. }
        | EventKind::Unknown => return None,
    })
}

/// A progress bar on a terminal, with the lines above it.
struct Bar {
    bar: ProgressBar,
    phase: Option<Phase>,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(Duration::from_millis(200));
        let bar = bar.with_style(spinner());
        Self { bar, phase: None }
    }
}

fn spinner() -> ProgressStyle {
    // Both templates are constants of this file: they parse.
    ProgressStyle::with_template("{spinner} [{elapsed_precise}] {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn bytes() -> ProgressStyle {
    ProgressStyle::with_template(
        "{spinner} {msg:>8} [{bar:36}] {percent:>3}% {bytes}/{total_bytes} {binary_bytes_per_sec} eta {eta}",
    )
    .map(|style| style.progress_chars("=> "))
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Show for Bar {
    fn event(&mut self, event: &Relayed) {
        match &event.kind {
            EventKind::Progress { phase, done, total: Some(total), .. } if *total > 0 => {
                if self.phase != Some(*phase) {
                    self.phase = Some(*phase);
                    self.bar.reset();
                    self.bar.set_style(bytes());
                    self.bar.set_message(phase.to_string());
                }
                self.bar.set_length(*total);
                self.bar.set_position(*done);
            }
            kind => {
                if let Some((word, text)) = words(kind) {
                    self.line(word, &text);
                }
            }
        }
    }

    fn line(&mut self, word: &str, text: &str) {
        let text = if matches!(word, "NOTICE" | "PHASE") {
            printable::line(text)
        } else {
            format!("{}: {}", word.to_lowercase(), printable::line(text))
        };
        self.bar.suspend(|| eprintln!("{text}"));
        if word != "DONE" {
            self.phase = None;
            self.bar.set_style(spinner());
            self.bar.set_message(text);
        }
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_read_well_with_and_without_a_total() {
        let rate = f64::from(21 << 20);
        assert_eq!(
            progress_line(Phase::Write, 42 << 20, Some(84 << 20), rate),
            "PROGRESS write 44040192/88080384 50% 21.0 MiB/s eta 2s"
        );
        assert_eq!(progress_line(Phase::Write, 5, None, 0.0), "PROGRESS write 5 0.0 MiB/s");
        assert_eq!(progress_line(Phase::Write, 0, Some(0), 0.0), "PROGRESS write 0 0.0 MiB/s");
    }

    #[test]
    fn watching_shows_no_escapes() {
        let bad = "\u{1b}]0;title\u{7} \u{1b}[2J\u{9b}31m\r\nSTATE active";
        let kinds = [
            EventKind::Notice { message: bad.into() },
            EventKind::AgentStarted { version: bad.into() },
            EventKind::Failed { phase: Phase::Write, message: bad.into() },
            EventKind::PhaseStarted { phase: Phase::Write, subject: bad.into() },
        ];
        for kind in kinds {
            let (word, text) = words(&kind).unwrap();
            let line = plain_line(word, &text);
            assert!(!line.chars().any(char::is_control), "{line:?}");
            let event = Relayed { seq: 1, at: 0.0, source: crate::hub::Source::Agent, kind };
            assert!(!printable::json(&event).chars().any(char::is_control));
        }
        let mark = crate::store::Mark { mark: bad.into(), at: 0.0, seconds: None };
        assert_eq!(timeline::table(&[mark]).matches(char::is_control).count(), 1, "its own line end");
    }

    #[test]
    fn failures_and_retries_are_told_in_full() {
        let failed = EventKind::Failed { phase: Phase::Verify, message: "digest differs".into() };
        assert_eq!(words(&failed), Some(("FAILED", "digest differs".into())));
        let retry = EventKind::Retrying {
            phase: Phase::Write,
            reason: "cut".into(),
            attempt: 2,
            attempts: 10,
            delay_seconds: 10.0,
            resume_at: 4096,
        };
        assert_eq!(words(&retry).unwrap().1, "write 2/10 in 10 s from byte 4096: cut");
        let by_time = EventKind::Retrying {
            phase: Phase::Lookup,
            reason: "not found".into(),
            attempt: 3,
            attempts: 0,
            delay_seconds: 4.0,
            resume_at: 0,
        };
        assert_eq!(words(&by_time).unwrap().1, "lookup 3 in 4 s: not found");
        assert_eq!(words(&EventKind::Unknown), None);
    }
}
