//! URLs with values of the node in them: the part of Python's `str.format` that deploy templates use.
//!
//! `{node[instance_info][display_name]}`, `{ports[0][address]}`; doubled braces stand for themselves. Attributes,
//! conversions and format specifications are refused.

use serde_json::Value;

/// Fills in the fields. `Err` says which field can not be filled, in words.
pub(super) fn fill(text: &str, node: &Value, ports: &Value) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        filled.push_str(before);
        rest = if let Some(after) = brace.strip_prefix("{{") {
            filled.push('{');
            after
        } else if let Some(after) = brace.strip_prefix("}}") {
            filled.push('}');
            after
        } else if let Some((field, after)) = brace.strip_prefix('{').and_then(|field| field.split_once('}')) {
            filled.push_str(&value_of(field, node, ports)?);
            after
        } else {
            return Err("it has a single brace; a brace that stands for itself is written twice".into());
        };
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value_of(field: &str, node: &Value, ports: &Value) -> Result<String, String> {
    let refuse =
        || format!("the field {{{field}}} is not understood: write {{node[key]}} or {{ports[0][key]}}");
    let (name, mut keys) = field.split_at(field.find('[').unwrap_or(field.len()));
    let mut value = match name {
        "node" => node,
        "ports" => ports,
        _ => return Err(refuse()),
    };
    while !keys.is_empty() {
        let (key, rest) = keys.strip_prefix('[').and_then(|keys| keys.split_once(']')).ok_or_else(refuse)?;
        let found = match value {
            Value::Array(items) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
            value => value.get(key),
        };
        value = found.ok_or_else(|| format!("there is no value for the field {{{field}}}"))?;
        keys = rest;
    }
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        // As Python writes them.
        Value::Bool(true) => Ok("True".into()),
        Value::Bool(false) => Ok("False".into()),
        Value::Null => Ok("None".into()),
        Value::Array(_) | Value::Object(_) => Err(format!("the field {{{field}}} is no single value")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    fn fill(text: &str) -> Result<String, String> {
        let node =
            json!({"uuid": "u-1", "id": 7, "name": null, "extra": {"a b": {"c": true}}, "traits": ["x"]});
        super::fill(text, &node, &json!([{"address": "52:54"}]))
    }

    #[test]
    fn fields_are_filled_as_python_does() {
        for (text, wanted) in [
            ("http://h/x", "http://h/x"),
            ("http://h/{node[uuid]}.json", "http://h/u-1.json"),
            ("{ports[0][address]}{node[id]}{node[name]}", "52:547None"),
            ("{node[extra][a b][c]}/{node[traits][0]}", "True/x"),
            ("{{node}} }}{{", "{node} }{"),
        ] {
            assert_eq!(fill(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_can_not_be_filled_is_named() {
        for (text, word) in [
            ("{node[nope]}", "no value for the field {node[nope]}"),
            ("{ports[1][address]}", "ports[1]"),
            ("{node[uuid][0]}", "no value"),
            ("{node}", "no single value"),
            ("{node.uuid}", "not understood"),
            ("{node[uuid]!r}", "not understood"),
            ("{0}", "not understood"),
            ("{config[x]}", "not understood"),
            ("a{b", "single brace"),
            ("a}b", "single brace"),
        ] {
            let error = fill(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_filled_or_refused_and_escaped_text_comes_back(text in "[ -~]{0,40}") {
            let _ = fill(&text);
            let escaped = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(fill(&escaped).unwrap(), text);
        }
    }
}
