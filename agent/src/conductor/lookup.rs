//! Lookup: ask the conductor which node this machine is, until it knows. Source: agent protocol page, 3.3 to 3.7.

use std::time::Duration;

use events::{EventKind, Events, Phase};
use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout_at};
use wire::{LookupReply, Microversion};

use super::client::Client;
use super::error::Error;
use super::random::between;

/// How long to ask, and how often.
#[derive(Clone, Copy, Debug)]
pub struct LookupLimits {
    /// Limit from the first attempt on.
    pub timeout: Duration,
    /// Shortest pause.
    pub interval: Duration,
}

/// Longest that a server may ask to be left alone.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// How often the same failure is told.
const TELL_AGAIN: Duration = Duration::from_secs(30);
/// Longest id of a node, in bytes; a UUID has 36.
const LONGEST_ID: usize = 255;
/// Longest pause between two lookups.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A conductor that has the node locked needs more time: the first, the second, every later conflict.
const CONFLICT_PAUSES: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(30)];

/// Asks until the conductor answers with a node, or until time is up: then with the last failure.
///
/// `addresses` are the MAC addresses of this machine. Not knowing the node (404) is no final answer: it may be in the middle
/// of being enrolled.
pub async fn lookup(
    client: &Client,
    addresses: &[String],
    node_uuid: Option<&str>,
    limits: LookupLimits,
    events: &Events,
) -> Result<LookupReply, Error> {
    let deadline = Instant::now() + limits.timeout;
    events.emit(EventKind::PhaseStarted { phase: Phase::Lookup, subject: client.shown_urls() });
    let mut pauses = Pauses::new(limits.interval);
    let mut told = None;
    let mut last = Error::TimedOut { url: client.shown_urls(), limit: limits.timeout };
    loop {
        match timeout_at(deadline, ask(client, addresses, node_uuid)).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) => last = error,
            Err(_) => return Err(last),
        }
        let asked = last.retry_after().unwrap_or_default().min(LONGEST_SILENCE);
        let pause = pauses.next(last.status()).max(asked);
        if Instant::now() + pause >= deadline {
            return Err(last);
        }
        let reason = last.told();
        if is_due(&mut told, &reason) {
            events.emit(EventKind::Retrying {
                phase: Phase::Lookup,
                reason,
                attempt: pauses.attempt.saturating_add(1),
                attempts: 0, // bounded by time, not by number
                delay_seconds: pause.as_secs_f64(),
                resume_at: 0,
            });
        }
        sleep(pause).await;
    }
}

/// Whether a reason is to be told: a new one at once, the same one now and then.
fn is_due(told: &mut Option<(Instant, String)>, reason: &str) -> bool {
    let now = Instant::now();
    let recent = |(at, before): &(Instant, String)| before == reason && now.duration_since(*at) < TELL_AGAIN;
    if told.as_ref().is_some_and(recent) {
        return false;
    }
    *told = Some((now, reason.to_owned()));
    true
}

/// The pauses between attempts.
struct Pauses {
    interval: Duration,
    attempt: u32,
    conflicts: usize,
}

impl Pauses {
    fn new(interval: Duration) -> Self {
        Self { interval, attempt: 0, conflicts: 0 }
    }

    /// After attempt n: uniform between the interval and 2^(n-1) seconds, at most a minute; more after a conflict.
    fn next(&mut self, status: Option<u16>) -> Duration {
        let grown = Duration::from_secs(1_u64.checked_shl(self.attempt).unwrap_or(u64::MAX));
        self.attempt = self.attempt.saturating_add(1);
        let pause = between(self.interval, grown.min(LONGEST_PAUSE).max(self.interval));
        if status != Some(409) {
            return pause;
        }
        let more = CONFLICT_PAUSES.get(self.conflicts).or(CONFLICT_PAUSES.last()).copied();
        self.conflicts = self.conflicts.saturating_add(1);
        pause + more.unwrap_or_default()
    }
}

async fn ask(client: &Client, addresses: &[String], node_uuid: Option<&str>) -> Result<LookupReply, Error> {
    let version = client.version().await?.min(Microversion::AGENT_TOKEN);
    let mut path = format!("/v1/lookup?addresses={}", addresses.join(","));
    if let Some(uuid) = node_uuid.filter(|uuid| is_segment(uuid)) {
        path.push_str("&node_uuid=");
        path.push_str(uuid);
    }
    let reply = client.call(Method::GET, &path, Some(version), None).await?;
    if reply.status != 200 {
        if reply.status == 406 {
            client.forget_version();
        }
        return Err(reply.into_error());
    }
    const EXPECTED: &str = "a lookup reply with a node and its configuration";
    let value = super::answer::tidied(with_config(reply.json(EXPECTED)?));
    let found: LookupReply = serde_json::from_value(value).map_err(|source| reply.not(EXPECTED, source))?;
    if found.node.uuid.is_empty() {
        return Err(reply.not(EXPECTED, serde::de::Error::custom("the node has no uuid")));
    }
    if !is_segment(&found.node.uuid) {
        let what = "the node's uuid can not stand in the path of a URL: it must be made of letters, digits, `-`, `_` and `.`";
        return Err(reply.not(EXPECTED, serde::de::Error::custom(what)));
    }
    Ok(found)
}

/// Whether an id can be put into the path of a URL as it is, and stays one segment there.
fn is_segment(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !id.is_empty() && id.len() <= LONGEST_ID && id != "." && id != ".." && id.bytes().all(is_plain)
}

/// Old conductors have no `config` but a bare `heartbeat_timeout`.
fn with_config(mut reply: Map<String, Value>) -> Value {
    if !reply.contains_key("config")
        && let Some(timeout) = reply.get("heartbeat_timeout").cloned()
    {
        reply.insert("config".into(), json!({ "heartbeat_timeout": timeout }));
    }
    Value::Object(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_the_interval_to_a_minute() {
        let interval = Duration::from_secs(1);
        for _ in 0..20 {
            let mut pauses = Pauses::new(interval);
            assert_eq!(pauses.next(None), interval);
            assert!(pauses.next(Some(404)) <= Duration::from_secs(2));
            assert!(pauses.next(None) <= Duration::from_secs(4));
            pauses.attempt = 500;
            assert!((interval..=LONGEST_PAUSE).contains(&pauses.next(None)));
        }
        assert_eq!(Pauses::new(Duration::from_secs(90)).next(None), Duration::from_secs(90));
    }

    #[test]
    fn a_locked_node_gets_five_then_ten_then_thirty_seconds_more() {
        let mut pauses = Pauses::new(Duration::ZERO);
        let mut more = |status| {
            pauses.attempt = 0; // the growing part is a second at the most
            pauses.next(status).as_secs_f64()
        };
        assert!((5.0..=6.0).contains(&more(Some(409))));
        assert!(more(Some(404)) <= 1.0);
        assert!((10.0..=11.0).contains(&more(Some(409))));
        assert!((30.0..=31.0).contains(&more(Some(409))));
        assert!((30.0..=31.0).contains(&more(Some(409))));
    }

    #[test]
    fn an_id_that_leads_to_another_path_is_none() {
        for good in ["11111111-2222-3333-4444-555555555555", "u", "node_1.a"] {
            assert!(is_segment(good), "{good}");
        }
        for bad in
            ["", ".", "..", "../../../etc/passwd?x=", "a/b", "a?b", "a#b", "a%2fb", "a b", "a\r\nb", "\u{fc}"]
        {
            assert!(!is_segment(bad), "{bad}");
        }
    }

    #[test]
    fn a_reply_without_config_but_with_a_heartbeat_timeout_is_understood() {
        let old = json!({"node": {"uuid": "u"}, "heartbeat_timeout": 60});
        let reply: LookupReply =
            serde_json::from_value(with_config(old.as_object().unwrap().clone())).unwrap();
        assert_eq!(reply.config.heartbeat_timeout, 60);
        let none = json!({"node": {"uuid": "u"}});
        assert!(
            serde_json::from_value::<LookupReply>(with_config(none.as_object().unwrap().clone())).is_err()
        );
    }
}
