//! Reads the configuration in a lookup's answer as oslo.config would read it from a file: a number may be a text, a list may be one
//! text with commas. A value that makes no sense is left out, with a warning: it must not cost the machine its whole boot.

use serde_json::{Map, Value};

/// Truth values, and the words for them.
const FLAGS: [&str; 5] = [
    "agent_token_required",
    "agent_md5_checksum_enable",
    "disable_deep_image_inspection",
    "agent_skip_bmc_detect",
    "enable_bios_bootloader_install",
];

/// The answer with a configuration that has the right types. What is no object stays as it is.
pub(super) fn tidied(mut answer: Value) -> Value {
    let Some(config) = answer.get_mut("config").and_then(Value::as_object_mut) else { return answer };
    // Without a good one the answer is refused: heartbeats are timed by it.
    if let Some(seconds) = config.get("heartbeat_timeout").and_then(whole_number) {
        config.insert("heartbeat_timeout".into(), seconds.into());
    }
    for name in FLAGS {
        tidy(config, name, "true or false", flag);
    }
    tidy(config, "agent_token", "a text", text);
    tidy(config, "tls_min_version", "a text such as 1.3", text);
    tidy(config, "permitted_image_formats", "a list of texts", list);
    tidy(config, "tls_cipher_suites", "a text", |value| match value {
        Value::Array(_) => list(value).and_then(|items| {
            let items = items.as_array()?.iter().filter_map(Value::as_str).collect::<Vec<_>>();
            Some(items.join(":").into())
        }),
        _ => text(value),
    });
    tidy(config, "agent_containers", "an object", |value| value.is_object().then(|| value.clone()));
    answer
}

/// Replaces one value by what it stands for. Null and nonsense are taken out, so that what is in force without it stays.
fn tidy(config: &mut Map<String, Value>, name: &str, expected: &str, read: impl Fn(&Value) -> Option<Value>) {
    let Some(value) = config.get(name) else { return };
    match read(value) {
        Some(read) => {
            config.insert(name.into(), read);
        }
        None => {
            if !value.is_null() {
                let kind = kind_of(value);
                tracing::warn!(
                    name,
                    kind,
                    expected,
                    "the conductor's answer to lookup holds an odd value; it is left out"
                );
            }
            config.remove(name);
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "truth value",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// A number of seconds, rounded up: 300, 300.0, "300".
fn whole_number(value: &Value) -> Option<u64> {
    const LARGEST: f64 = 4_294_967_295.0;
    let number = match value {
        Value::Number(number) => return number.as_u64().or_else(|| within(number.as_f64()?, LARGEST)),
        Value::String(text) => text.trim().parse().ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    within(number, LARGEST)
}

fn within(number: f64, largest: f64) -> Option<u64> {
    // The bounds make the conversion exact.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0.0..=largest).contains(&number).then(|| number.ceil() as u64)
}

fn flag(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(_) => Some(value.clone()),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false.into()),
            Some(1.0) => Some(true.into()),
            _ => None,
        },
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Some(true.into()),
            "false" | "0" | "off" | "no" => Some(false.into()),
            _ => None,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn text(value: &Value) -> Option<Value> {
    match value {
        Value::String(_) => Some(value.clone()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A list of texts: as such, or one text with commas.
fn list(value: &Value) -> Option<Value> {
    match value {
        Value::Array(items) => items.iter().map(text).collect::<Option<Vec<_>>>().map(Value::Array),
        Value::String(text) => {
            let items = text.trim().trim_start_matches('[').trim_end_matches(']').split(',').map(str::trim);
            Some(items.filter(|item| !item.is_empty()).map(|item| item.trim_matches(['"', '\''])).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use wire::LookupReply;

    fn read(config: Value) -> Result<LookupReply, serde_json::Error> {
        serde_json::from_value(tidied(json!({"node": {"uuid": "u"}, "config": config})))
    }

    #[test]
    fn odd_values_are_read_as_oslo_config_reads_them() {
        let config = read(json!({
            "heartbeat_timeout": "300.0", "agent_token": 12345, "agent_token_required": "yes", "agent_md5_checksum_enable": 0,
            "disable_deep_image_inspection": "true", "permitted_image_formats": "raw, qcow2", "tls_min_version": 1.3,
            "tls_cipher_suites": ["A", "B"],
        }));
        let config = config.unwrap().config;
        assert_eq!(config.heartbeat_timeout, 300);
        assert_eq!(config.agent_token.unwrap().expose(), "12345");
        assert_eq!(
            (config.agent_token_required, config.agent_md5_checksum_enable),
            (Some(true), Some(false))
        );
        assert_eq!(config.disable_deep_image_inspection, Some(true));
        assert_eq!(config.permitted_image_formats.unwrap(), ["raw", "qcow2"]);
        assert_eq!(config.tls_min_version.as_deref(), Some("1.3"));
        assert_eq!(config.rest["tls_cipher_suites"], "A:B");
    }

    #[test]
    fn nonsense_in_an_optional_value_never_refuses_the_answer() {
        let names = FLAGS.into_iter().chain([
            "agent_token",
            "permitted_image_formats",
            "tls_min_version",
            "tls_cipher_suites",
            "agent_containers",
            "metrics",
            "metrics_statsd",
            "unheard_of",
        ]);
        for name in names {
            for odd in [
                json!(null),
                json!("raw,qcow2"),
                json!("true"),
                json!(300.0),
                json!(-1),
                json!([]),
                json!([null, {}]),
                json!({}),
                json!(""),
            ] {
                let mut config = json!({"heartbeat_timeout": 300});
                config[name] = odd.clone();
                assert!(read(config).is_ok(), "{name}: {odd}");
            }
        }
        assert_eq!(
            read(json!({"heartbeat_timeout": 300, "permitted_image_formats": 7}))
                .unwrap()
                .config
                .permitted_image_formats,
            None
        );
    }

    #[test]
    fn the_time_between_heartbeats_is_a_number_in_any_form() {
        for (given, seconds) in
            [(json!(300), 300), (json!(300.0), 300), (json!("300"), 300), (json!(59.5), 60), (json!(0), 0)]
        {
            assert_eq!(read(json!({"heartbeat_timeout": given})).unwrap().config.heartbeat_timeout, seconds);
        }
        for odd in [json!(null), json!("soon"), json!(-1), json!([]), json!("nan"), json!(1e300)] {
            assert!(read(json!({"heartbeat_timeout": odd})).is_err(), "{odd}");
        }
    }
}
