//! JSON patches of nodes: `add`, `replace` and `remove` below the fields a client may change. Source: RFC 6902, as far as
//! Ironic's API uses it.

use serde::Deserialize;
use serde_json::{Map, Value};
use wire::{MASK, Node};

use super::ApiError;

/// What may be patched: single values, and objects with anything below them.
const VALUES: [&str; 10] = [
    "name",
    "driver",
    "instance_uuid",
    "resource_class",
    "owner",
    "description",
    "automated_clean",
    "maintenance",
    "maintenance_reason",
    "fault",
];
const OBJECTS: [&str; 4] = ["driver_info", "instance_info", "properties", "extra"];

/// One operation.
#[derive(Clone, Debug, Deserialize)]
pub struct Operation {
    op: Kind,
    path: String,
    #[serde(default)]
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Add,
    Replace,
    Remove,
}

/// The operations in a request body.
pub fn parse(body: &[u8]) -> Result<Vec<Operation>, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad(format!(
            "The request body must be a list of operations such as {{\"op\": \"add\", \"path\": \"/extra/x\", \"value\": 1}}: {error}"
        ))
    })
}

/// The node after all operations, or why it can not be.
pub fn apply(node: &Node, operations: &[Operation]) -> Result<Node, ApiError> {
    let mut value = Value::Object(node.to_full_map());
    for operation in operations {
        one(&mut value, operation)?;
    }
    match value {
        Value::Object(map) => to_node(map),
        _ => Err(ApiError::bad("a node is an object")),
    }
}

fn one(root: &mut Value, operation: &Operation) -> Result<(), ApiError> {
    let wrong = |why: &str| ApiError::bad(format!("Couldn't apply patch to \"{}\": {why}", operation.path));
    let path = operation.path.strip_prefix('/').ok_or_else(|| wrong("a path begins with a slash"))?;
    let parts: Vec<String> = path.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    let first = parts.first().map(String::as_str).unwrap_or_default();
    let whole = parts.len() == 1;
    if !(OBJECTS.contains(&first) || (whole && VALUES.contains(&first))) {
        return Err(wrong("this attribute can not be changed"));
    }
    if operation.value.as_str() == Some(MASK) {
        return Err(wrong("\"******\" stands for a secret; give the secret itself, or leave it alone"));
    }
    if whole && operation.op == Kind::Remove {
        let empty = if OBJECTS.contains(&first) { Value::Object(Map::new()) } else { Value::Null };
        let empty = if first == "maintenance" { Value::Bool(false) } else { empty };
        if first == "driver" {
            return Err(wrong("a node needs a driver"));
        }
        return put(root, first, empty).ok_or_else(|| wrong("no such attribute"));
    }
    let (last, way) = parts.split_last().ok_or_else(|| wrong("the path is empty"))?;
    let mut at = root;
    for part in way {
        at = match at {
            Value::Object(map) => map.get_mut(part),
            Value::Array(list) => part.parse::<usize>().ok().and_then(|index| list.get_mut(index)),
            _ => None,
        }
        .ok_or_else(|| wrong("there is nothing at that path"))?;
    }
    match at {
        Value::Object(map) => match operation.op {
            Kind::Add => {
                map.insert(last.clone(), operation.value.clone());
            }
            Kind::Replace => match map.get_mut(last) {
                Some(place) => *place = operation.value.clone(),
                None => return Err(wrong("there is nothing to replace")),
            },
            Kind::Remove => {
                map.shift_remove(last).ok_or_else(|| wrong("there is nothing to remove"))?;
            }
        },
        Value::Array(list) => {
            let index = if last == "-" { Some(list.len()) } else { last.parse().ok() };
            let index = index.ok_or_else(|| wrong("a list is indexed by numbers"))?;
            match operation.op {
                Kind::Add if index <= list.len() => list.insert(index, operation.value.clone()),
                Kind::Replace if index < list.len() => {
                    if let Some(place) = list.get_mut(index) {
                        *place = operation.value.clone();
                    }
                }
                Kind::Remove if index < list.len() => {
                    list.remove(index);
                }
                Kind::Add | Kind::Replace | Kind::Remove => {
                    return Err(wrong("there is nothing at that index"));
                }
            }
        }
        _ => return Err(wrong("there is nothing at that path")),
    }
    Ok(())
}

fn put(root: &mut Value, key: &str, value: Value) -> Option<()> {
    root.as_object_mut()?.insert(key.to_owned(), value);
    Some(())
}

/// A node from its fields, checked for what the types do not say.
pub fn to_node(map: Map<String, Value>) -> Result<Node, ApiError> {
    let node: Node = serde_json::from_value(Value::Object(map))
        .map_err(|error| ApiError::bad(format!("Schema error for node: {error}")))?;
    if let Some(name) = &node.name {
        let fine = !name.is_empty()
            && name.len() <= 255
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.~".contains(c))
            && name.parse::<uuid::Uuid>().is_err();
        if !fine {
            return Err(ApiError::bad(format!(
                "Cannot use invalid name \"{name}\": letters, digits, and any of - _ . ~, and no UUID"
            )));
        }
    }
    Ok(node)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn patched(operations: Value) -> Result<Node, ApiError> {
        let mut node = Node::new(Uuid::from_u128(5), "qemu");
        node.extra.insert("list".into(), json!(["a", "b"]));
        node.extra.insert("a/b".into(), json!(1));
        apply(&node, &parse(operations.to_string().as_bytes())?)
    }

    #[test]
    fn operations_change_what_they_name() {
        let node = patched(json!([
            {"op": "add", "path": "/name", "value": "demo"},
            {"op": "add", "path": "/driver_info/qemu_disk", "value": "/d"},
            {"op": "replace", "path": "/extra/list/0", "value": "c"},
            {"op": "add", "path": "/extra/list/-", "value": "d"},
            {"op": "remove", "path": "/extra/a~1b"},
            {"op": "replace", "path": "/maintenance", "value": true},
        ]))
        .unwrap();
        assert_eq!(node.name.as_deref(), Some("demo"));
        assert_eq!(Value::Object(node.extra), json!({"list": ["c", "b", "d"]}));
        assert!(node.maintenance);
        assert_eq!(node.driver_info.get("qemu_disk"), Some(&json!("/d")));
    }

    #[test]
    fn what_a_client_may_not_change_stays() {
        for (operation, word) in [
            (json!({"op": "replace", "path": "/provision_state", "value": "active"}), "can not be changed"),
            (json!({"op": "replace", "path": "/uuid", "value": "x"}), "can not be changed"),
            (json!({"op": "add", "path": "/name/x", "value": "y"}), "can not be changed"),
            (json!({"op": "remove", "path": "/extra/absent"}), "nothing to remove"),
            (json!({"op": "replace", "path": "/extra/absent", "value": 1}), "nothing to replace"),
            (json!({"op": "add", "path": "/extra/list/9", "value": 1}), "nothing at that index"),
            (json!({"op": "add", "path": "/extra/x/y", "value": 1}), "nothing at that path"),
            (json!({"op": "add", "path": "/driver_info/p", "value": "******"}), "stands for a secret"),
            (json!({"op": "add", "path": "/name", "value": "two words"}), "invalid name"),
            (json!({"op": "add", "path": "/maintenance", "value": "yes"}), "Schema error"),
            (json!({"op": "remove", "path": "/driver"}), "needs a driver"),
            (json!({"op": "move", "path": "/name", "from": "/extra"}), "list of operations"),
        ] {
            let error = patched(json!([operation])).unwrap_err();
            assert!(error.text.contains(word), "{operation}: {}", error.text);
        }
    }
}
