//! Holds the events on the wire to `golden/page.json`, which has every kind once at least.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use events::{Event, EventKind, EventPage, Phase};
use proptest::prelude::*;
use serde_json::{Value, json};

const PAGE: &str = include_str!("golden/page.json");

#[test]
fn the_golden_page_comes_back_as_it_was() {
    let document: Value = serde_json::from_str(PAGE).unwrap();
    let page: EventPage = serde_json::from_str(PAGE).unwrap();
    assert_eq!(serde_json::to_string(&page).unwrap(), document.to_string());
    for event in &page.events {
        assert_ne!(event.kind, EventKind::Unknown, "event {}", event.seq);
    }
}

#[test]
fn every_kind_and_phase_keeps_its_name() {
    let page: EventPage = serde_json::from_str(PAGE).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for event in page.events {
        let name = match &event.kind {
            EventKind::AgentStarted { .. } => "agent_started",
            EventKind::Notice { .. } => "notice",
            EventKind::CommandStarted { .. } => "command_started",
            EventKind::CommandFinished { .. } => "command_finished",
            EventKind::PhaseStarted { .. } => "phase_started",
            EventKind::Progress { .. } => "progress",
            EventKind::PhaseFinished { .. } => "phase_finished",
            EventKind::Retrying { .. } => "retrying",
            EventKind::Failed { .. } => "failed",
            EventKind::Unknown => "unknown",
        };
        assert_eq!(serde_json::to_value(&event).unwrap()["event"], name);
        seen.insert(name);
    }
    assert_eq!(seen.len(), 9, "a kind is missing from the golden page: {seen:?}");
    for phase in [
        Phase::Network,
        Phase::Inspection,
        Phase::Lookup,
        Phase::Open,
        Phase::Write,
        Phase::Verify,
        Phase::Commit,
        Phase::ConfigDrive,
        Phase::BootEntry,
        Phase::Erase,
        Phase::Finish,
        Phase::Unknown,
    ] {
        assert_eq!(serde_json::to_value(phase).unwrap(), phase.name());
        assert_eq!(serde_json::from_value::<Phase>(phase.name().into()).unwrap(), phase);
    }
}

#[test]
fn an_old_reader_gets_along_with_a_newer_writer() {
    let kind = json!({"seq": 1, "at": 0.5, "event": "moon_phase", "moon": {"full": true}});
    assert_eq!(serde_json::from_value::<Event>(kind).unwrap().kind, EventKind::Unknown);
    let phase =
        json!({"seq": 1, "at": 0.5, "event": "phase_started", "phase": "polish", "subject": "s", "by": "x"});
    assert_eq!(
        serde_json::from_value::<Event>(phase).unwrap().kind,
        EventKind::PhaseStarted { phase: Phase::Unknown, subject: "s".into() }
    );
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        // Few digits: serde_json may be off by one in the last of 17, and some fields are floats.
        any::<i32>().prop_map(Value::from),
        prop::sample::select(vec![u64::MAX, u64::MAX - 1, 1 << 63]).prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        ".{0,12}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({"a": {"b": [1]}})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Each golden event with one of its values replaced by something else, and one key added.
    #[test]
    fn bent_events_are_read_or_refused(
        which in any::<prop::sample::Index>(), key in any::<prop::sample::Index>(),
        value in scalar(), added in ".{0,8}",
    ) {
        let page: Value = serde_json::from_str(PAGE).unwrap();
        let mut event = which.get(page["events"].as_array().unwrap()).as_object().unwrap().clone();
        let key = key.get(&event.keys().cloned().collect::<Vec<_>>()).clone();
        event.insert(key, value.clone());
        event.entry(added).or_insert(value);
        if let Ok(first) = serde_json::from_str::<Event>(&Value::Object(event).to_string()) {
            let once = serde_json::to_string(&first).unwrap();
            let again: Event = serde_json::from_str(&once).unwrap();
            prop_assert_eq!(again.kind, first.kind);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,64}") {
        let _ = serde_json::from_str::<Event>(&text);
        let _ = serde_json::from_str::<EventPage>(&text);
    }
}
