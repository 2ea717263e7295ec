//! The body of the one request, kept within what a conductor accepts: 16 MiB, nested 25 deep. Logs give way first.

use serde_json::{Map, Value};

use super::Machine;
use super::collect::Findings;
use crate::command;

/// The key of the log archive.
pub(super) const LOGS: &str = "logs";
/// Longest member of the archive at first, in bytes.
pub(super) const WHOLE_MEMBERS: usize = 2 * 1024 * 1024;
/// What is tried when the body is too long: ever shorter members.
const SHORTER_MEMBERS: [usize; 4] = [512 * 1024, 128 * 1024, 32 * 1024, 8 * 1024];
/// A conductor refuses bodies of more than 16 MiB; a little is left for those who change something on the way.
const LIMIT: usize = 16 * 1024 * 1024 - 64 * 1024;
/// How deep a conductor reads. Source: agent protocol page, 8.10.
const DEEPEST: usize = 25;
/// What gives way after the logs, when not even their absence is enough: what default hooks of a conductor do not read.
const EXPENDABLE: [&str; 6] = ["data", "dmi", "pci_devices", "numa_topology", "usb_devices", "lldp_raw"];

/// The archive of logs as base64 text, members no longer than this; `None`, with a warning, when it can not be made.
pub(super) fn logs(machine: &Machine, longest_member: usize) -> Option<Value> {
    let sources =
        command::LogSources { context: &machine.context, registry: &machine.registry, log: &machine.log };
    match sources.pack(longest_member) {
        Ok(text) => Some(Value::from(text)),
        Err(error) => {
            tracing::warn!(%error, "the logs are left out of the inspection data");
            None
        }
    }
}

/// The findings as JSON, made to fit.
pub(super) fn body(findings: Findings, machine: &Machine) -> Vec<u8> {
    fit(findings, LIMIT, |longest_member| logs(machine, longest_member))
}

fn fit(findings: Findings, limit: usize, pack_logs: impl Fn(usize) -> Option<Value>) -> Vec<u8> {
    let Findings { mut data, mut failures } = findings;
    let deep: Vec<String> =
        data.iter().filter(|(_, value)| depth(value) >= DEEPEST).map(|(key, _)| key.clone()).collect();
    for key in deep {
        data.shift_remove(&key);
        failures.add(format!("`{key}` is left out: it is nested more than {DEEPEST} deep"));
    }
    data.insert("error".into(), failures.text().map_or(Value::Null, Value::from));

    let mut bytes = serialize(&data);
    for longest_member in SHORTER_MEMBERS {
        if bytes.len() <= limit || !data.contains_key(LOGS) {
            break;
        }
        tracing::warn!(
            bytes = bytes.len(),
            limit,
            longest_member,
            "the inspection data are too long: shortening the logs"
        );
        match pack_logs(longest_member) {
            Some(shorter) => data.insert(LOGS.into(), shorter),
            None => data.shift_remove(LOGS),
        };
        bytes = serialize(&data);
    }
    for key in std::iter::once(LOGS).chain(EXPENDABLE) {
        if bytes.len() <= limit {
            break;
        }
        if data.shift_remove(key).is_some() {
            tracing::warn!(
                bytes = bytes.len(),
                limit,
                key,
                "the inspection data are too long: leaving a part out"
            );
            bytes = serialize(&data);
        }
    }
    bytes
}

fn serialize(data: &Map<String, Value>) -> Vec<u8> {
    // Keys are text and numbers finite: this can not fail. If it did, the conductor would say so of an empty body.
    serde_json::to_vec(data).unwrap_or_default()
}

/// How deep a value is nested; a number is 0, a list of numbers 1.
fn depth(value: &Value) -> usize {
    let deepest = |values: &mut dyn Iterator<Item = &Value>| values.map(depth).max().unwrap_or(0) + 1;
    match value {
        Value::Array(items) => deepest(&mut items.iter()),
        Value::Object(map) => deepest(&mut map.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::failures::Failures;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn findings(data: Value) -> Findings {
        Findings { data: data.as_object().unwrap().clone(), failures: Failures::default() }
    }

    fn fitted(data: Value, limit: usize) -> Value {
        let bytes = fit(findings(data), limit, |longest| Some("x".repeat(longest / 1024).into()));
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn what_fits_stays_as_it_is_and_error_is_always_there() {
        assert_eq!(
            fitted(json!({"inventory": {}, "logs": "abc"}), 1000),
            json!({"inventory": {}, "logs": "abc", "error": null})
        );
        let mut failed = findings(json!({}));
        failed.failures.add("one");
        let body: Value = serde_json::from_slice(&fit(failed, 1000, |_| None)).unwrap();
        assert_eq!(body, json!({"error": "The following errors were encountered:\n* one"}));
    }

    #[test]
    fn logs_shrink_before_they_go_and_they_go_before_anything_else() {
        let data = json!({"inventory": "i", "data": "d".repeat(300), "logs": "l".repeat(5000)});
        let lengths = |limit| {
            let body = fitted(data.clone(), limit);
            let length = |key: &str| body.get(key).and_then(Value::as_str).map(str::len);
            (length("logs"), length("data"))
        };
        assert_eq!(lengths(6000), (Some(5000), Some(300)));
        assert_eq!(lengths(1000), (Some(512), Some(300)));
        assert_eq!(lengths(400), (Some(32), Some(300)));
        assert_eq!(lengths(350), (None, Some(300)));
        assert_eq!(lengths(100), (None, None));
    }

    #[test]
    fn what_is_nested_too_deep_is_left_out_and_named() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let body = fitted(json!({"inventory": {}, "fine": nested(24), "data": nested(25)}), 10_000);
        assert!(body.get("fine").is_some() && body.get("data").is_none());
        assert!(body["error"].as_str().unwrap().contains("`data`"), "{body}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_was_collected_fits_when_the_inventory_does(
            inventory in 0_usize..200, logs in 0_usize..20_000, data in 0_usize..2000, dmi in 0_usize..2000,
        ) {
            let text = |length: usize| "t".repeat(length);
            let found = json!({"inventory": text(inventory), "logs": text(logs), "data": text(data), "dmi": text(dmi)});
            let bytes = fit(findings(found), 300, |longest| Some("x".repeat(longest.min(logs)).into()));
            prop_assert!(bytes.len() <= 300);
            let body: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(body["inventory"].as_str().unwrap().len(), inventory);
        }
    }
}
