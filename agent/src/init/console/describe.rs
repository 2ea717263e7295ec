//! Events in words, one line each.

use events::EventKind;

/// The line for an event; `None` for those that are no news to a person. Progress has its own pace and is not here.
pub(super) fn event(kind: &EventKind) -> Option<String> {
    Some(match kind {
        EventKind::AgentStarted { version } => format!("ferric-agent {version} is up"),
        EventKind::Notice { message } => message.clone(),
        EventKind::CommandStarted { name, .. } => format!("command {name}"),
        EventKind::CommandFinished { name, succeeded: true, .. } => format!("command {name}: done"),
        EventKind::CommandFinished { name, message, .. } => {
            format!("command {name} FAILED: {}", message.as_deref().unwrap_or("it does not say why"))
        }
        EventKind::PhaseStarted { phase, subject } => format!("{phase}: {subject}"),
        EventKind::PhaseFinished { phase, seconds, .. } => format!("{phase}: done in {seconds:.1} s"),
        EventKind::Retrying { phase, reason, attempt, attempts, delay_seconds, .. } => {
            let of = if *attempts > 0 { format!(" of {attempts}") } else { String::new() };
            format!("{phase}: {reason}; attempt {attempt}{of} in {delay_seconds:.0} s")
        }
        EventKind::Failed { phase, message } => format!("{phase} FAILED: {message}"),
        EventKind::Progress { .. } | EventKind::Unknown => return None,
    })
}
