//! Events in words, one line each.

use events::EventKind;

/// The line for an event; `None` for those that are no news to a person. Progress has its own pace and is not here.
pub(super) fn event(kind: &EventKind) -> Option<String> {
    Some(match kind {
        EventKind::AgentStarted { version } => format!("ferric-agent {version} is up"),
        EventKind::Notice { message } => one_line(message),
        EventKind::CommandStarted { name, .. } => format!("command {name}"),
        EventKind::CommandFinished { name, succeeded: true, .. } => format!("command {name}: done"),
        EventKind::CommandFinished { name, message, .. } => {
            format!(
                "command {name} FAILED: {}",
                one_line(message.as_deref().unwrap_or("it does not say why"))
            )
        }
        EventKind::PhaseStarted { phase, subject } => format!("{phase}: {subject}"),
        EventKind::PhaseFinished { phase, seconds, .. } => format!("{phase}: done in {seconds:.1} s"),
        EventKind::Retrying { phase, reason, attempt, attempts, delay_seconds, .. } => {
            let of = if *attempts > 0 { format!(" of {attempts}") } else { String::new() };
            format!("{phase}: {}; attempt {attempt}{of} in {delay_seconds:.0} s", one_line(reason))
        }
        EventKind::Failed { phase, message } => format!("{phase} FAILED: {}", one_line(message)),
        EventKind::Progress { .. } | EventKind::Unknown => return None,
    })
}

/// Error texts quote servers, which answer whole pages.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 600;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::Phase;

    #[test]
    fn a_page_that_a_server_sent_becomes_one_line() {
        let retrying = EventKind::Retrying {
            phase: Phase::Lookup,
            reason: format!("answered 404: <html>\n  <p>{}</p>\n", "x".repeat(2000)),
            attempt: 3,
            attempts: 0,
            delay_seconds: 2.0,
            resume_at: 0,
        };
        let line = event(&retrying).unwrap();
        assert!(line.starts_with("lookup: answered 404: <html> <p>xxx"), "{line}");
        assert!(line.ends_with("...; attempt 3 in 2 s"), "{line}");
        assert_eq!(line.lines().count(), 1);
        assert!(line.len() < 700);
    }
}
