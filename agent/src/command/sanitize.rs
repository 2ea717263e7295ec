//! A command's parameters as they may stand in a log: without secrets, and short. Source: agent protocol page, 1.13; upstream
//! hides `configdrive` and `system_logs` alone.

use serde_json::{Map, Value};

/// Longest text that is shown, in bytes.
const TEXT: usize = 200;
/// Longest line, in bytes.
const LINE: usize = 4096;
/// Keys whose values are hidden, wherever part of their name is one of these.
const SECRET: [&str; 8] = [
    "configdrive",
    "system_logs",
    "password",
    "secret",
    "token",
    "passphrase",
    "authorization",
    "private_key",
];

/// The parameters as JSON, in one bounded line.
pub(super) fn shown(params: &Map<String, Value>) -> String {
    let mut text =
        Value::Object(params.iter().map(|(key, value)| (key.clone(), of(key, value))).collect()).to_string();
    if text.len() > LINE {
        text.truncate(text.floor_char_boundary(LINE));
        text.push_str("...");
    }
    text
}

fn of(key: &str, value: &Value) -> Value {
    let key = key.to_ascii_lowercase();
    if SECRET.iter().any(|word| key.contains(word)) && !matches!(value, Value::Null | Value::Bool(_)) {
        return Value::from("<...>");
    }
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), of(key, value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| of("", item)).collect()),
        Value::String(text) => Value::String(without_credentials(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// A text, shortened; of a URL neither user nor query, for both may let somebody in.
fn without_credentials(text: &str) -> String {
    let text = text.get(..text.floor_char_boundary(LINE)).unwrap_or(text); // a long one is not copied
    let mut shown = match text.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(char::is_whitespace) => {
            let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?..."));
            let host_at = rest.split('/').next().and_then(|host| host.rfind('@'));
            let rest = host_at
                .and_then(|at| rest.get(at..))
                .map_or_else(|| rest.to_owned(), |rest| format!("...{rest}"));
            format!("{scheme}://{rest}{query}")
        }
        // The end of a URL, as Ironic makes an image's id of it: what follows may be a signature.
        _ => match text.split_once('?') {
            Some((name, _)) if !name.contains(char::is_whitespace) => format!("{name}?..."),
            _ => text.to_owned(),
        },
    };
    if shown.len() > TEXT {
        shown.truncate(shown.floor_char_boundary(TEXT));
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(params: Value) -> String {
        shown(params.as_object().unwrap())
    }

    #[test]
    fn secrets_are_hidden_at_any_depth() {
        let text = line(json!({
            "step": {"step": "write_image", "args": {"configdrive": "s3cret", "image_info": {
                "id": "image?signature=s3cret", "image_server_password": "s3cret", "image_request_authorization": "s3cret",
                "urls": ["https://user:s3cret@h/image?signature=s3cret"], "configdrive": {"meta_data": "s3cret"}}}},
            "node": {"driver_internal_info": {"agent_secret_token": "s3cret"}, "extra": [{"Password": "s3cret"}]},
            "rescue_password": "s3cret", "pull_secret": "s3cret", "agent_token_required": true,
        }));
        assert!(!text.contains("s3cret"), "{text}");
        for part in [
            "write_image",
            "https://...@h/image?...",
            r#""id":"image?...""#,
            r#""agent_token_required":true"#,
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn lines_are_bounded() {
        let text = line(json!({"a": "ü".repeat(10_000)}));
        assert!(text.len() < 2 * TEXT && text.contains("..."));
        let many: Map<String, Value> = (0..10_000).map(|at| (format!("k{at}"), json!(at))).collect();
        assert!(shown(&many).len() <= LINE + 3);
    }
}
