//! What the step is asked for: `properties.inject_files` of the node, then the argument `files`.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hwm::{Context, Error, StepCall};
use serde_json::{Map, Value};

use super::template;
use crate::generic::arguments::{invalid, only};

/// Everything that is asked for, checked.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) files: Vec<File>,
    /// Whether certificates of servers that content comes from are verified.
    pub(super) verify_ca: bool,
}

/// One entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    /// From the root of the partition, without a leading slash, dots or doubled slashes.
    pub(super) path: String,
    pub(super) partition: Where,
    pub(super) action: Action,
    pub(super) mode: Option<u32>,
    /// Mode of the directory that the file lies in, if that is new.
    pub(super) directory_mode: Option<u32>,
    pub(super) owner: Option<u32>,
    pub(super) group: Option<u32>,
}

/// Which partition a file goes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Where {
    /// The first one of the root disk that has the directory with which the path begins.
    Directory(String),
    /// This one of the root disk.
    Number(u32),
    /// A device path, or a name as `mount` takes it: `LABEL=root`, `/dev/disk/by-uuid/...`.
    Named(String),
}

#[derive(PartialEq, Eq)]
pub(super) enum Action {
    Write(Content),
    Remove,
}

#[derive(PartialEq, Eq)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    /// With the node's values in it.
    Url(String),
}

impl Action {
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Action::Write(Content::Bytes(_)) => "write",
            Action::Write(Content::Url(_)) => "write from a URL",
            Action::Remove => "remove",
        }
    }
}

/// Content may be secret, and URLs may hold passwords.
impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.verb())
    }
}

impl Request {
    pub(super) fn read(cx: &Context, call: &StepCall) -> Result<Self, Error> {
        only(&call.arguments, &call.step, &["files", "verify_ca"])?;
        let verify_ca = match call.arguments.get("verify_ca") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(value)) => *value,
            Some(other) => return Err(invalid(format!("verify_ca must be true or false, not {other}"))),
        };
        let properties =
            entries(cx.node_field("/properties/inject_files"), "the node property inject_files")?;
        let arguments = entries(call.arguments.get("files"), "the argument files")?;
        let (mut files, mut failures) = (Vec::new(), Vec::new());
        for (index, entry) in (1..).zip(properties.iter().chain(arguments)) {
            match Reader::read(entry, &cx.node, &call.ports) {
                Ok(file) => files.push(file),
                Err(reasons) => {
                    let path = entry.get("path").and_then(Value::as_str).unwrap_or("without path");
                    failures.push(format!("file {index} ({path}): {}", reasons.join(", ")));
                }
            }
        }
        if failures.is_empty() {
            return Ok(Self { files, verify_ca });
        }
        Err(invalid(format!("the files to inject can not be used: {}", failures.join("; "))))
    }
}

fn entries<'a>(value: Option<&'a Value>, what: &str) -> Result<&'a [Value], Error> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(entries)) => Ok(entries),
        Some(other) => Err(invalid(format!("{what} must be a list, not {}", kind_of(other)))),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

const FIELDS: [&str; 8] = ["path", "partition", "content", "deleted", "mode", "dirmode", "owner", "group"];

/// Reads one entry and collects all that is wrong with it.
struct Reader<'a> {
    entry: &'a Map<String, Value>,
    failures: Vec<String>,
}

impl<'a> Reader<'a> {
    fn read(entry: &'a Value, node: &Value, ports: &Value) -> Result<File, Vec<String>> {
        let Value::Object(entry) = entry else {
            return Err(vec![format!("an entry is an object, not {}", kind_of(entry))]);
        };
        let mut reader = Self { entry, failures: Vec::new() };
        let unknown: Vec<&str> =
            entry.keys().map(String::as_str).filter(|name| !FIELDS.contains(name)).collect();
        if !unknown.is_empty() {
            reader.failures.push(format!("unknown fields {}", unknown.join(" ")));
        }
        let partition = reader.partition();
        let (path, partition) = reader.path(partition);
        let action = reader.action(node, ports);
        let file = File {
            path,
            partition,
            mode: reader.mode("mode"),
            directory_mode: reader.mode("dirmode"),
            owner: reader.id("owner"),
            group: reader.id("group"),
            action: action.unwrap_or(Action::Remove), // with a failure, so never used
        };
        if reader.failures.is_empty() { Ok(file) } else { Err(reader.failures) }
    }

    /// The value of a field; null is as good as absent.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.entry.get(name).filter(|value| !value.is_null())
    }

    fn fail(&mut self, reason: impl Into<String>) {
        self.failures.push(reason.into());
    }

    /// Zero and empty text count as absent, as upstream.
    fn partition(&mut self) -> Option<Where> {
        let value = self.get("partition")?;
        let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
        match (number, value) {
            (Some(0), _) => None,
            (Some(number), _) => match u32::try_from(number) {
                Ok(number) => Some(Where::Number(number)),
                Err(_) => {
                    self.fail(format!("there is no partition {number}"));
                    None
                }
            },
            (None, Value::String(text)) if text.trim().is_empty() => None,
            (None, Value::String(text)) => Some(Where::Named(text.trim().to_owned())),
            (None, _) => {
                self.fail("partition must be a number, a device or a label");
                None
            }
        }
    }

    fn path(&mut self, partition: Option<Where>) -> (String, Where) {
        let nowhere = (String::new(), Where::Number(0));
        let Some(Value::String(given)) = self.get("path") else {
            self.fail("it needs a path");
            return nowhere;
        };
        if given.is_empty() || given.ends_with('/') {
            self.fail("the path must name a file");
            return nowhere;
        }
        if given.contains('\0') {
            self.fail("the path holds a NUL");
            return nowhere;
        }
        let Some(parts) = normalised(given) else {
            self.fail("the path leads out of the partition");
            return nowhere;
        };
        let place = match (partition, parts.as_slice()) {
            (_, []) => {
                self.fail("the path must name a file");
                return nowhere;
            }
            (Some(place), _) => place,
            (None, [_]) => {
                self.fail("a file in the root directory needs a partition");
                return nowhere;
            }
            (None, [first, ..]) => Where::Directory((*first).to_owned()),
        };
        (parts.join("/"), place)
    }

    fn action(&mut self, node: &Value, ports: &Value) -> Option<Action> {
        let is_deleted = match self.get("deleted") {
            None => false,
            Some(Value::Bool(value)) => *value,
            Some(_) => {
                self.fail("deleted must be true or false");
                return None;
            }
        };
        let content = match self.get("content") {
            None => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                self.fail("content must be text");
                return None;
            }
        };
        match (content, is_deleted) {
            (Some(text), true) if !text.is_empty() => {
                self.fail("content can not be used with deleted");
                None
            }
            (_, true) => Some(Action::Remove),
            (None, false) => {
                self.fail("it needs content, or deleted");
                None
            }
            (Some(text), false) => match read_content(text, node, ports) {
                Ok(content) => Some(Action::Write(content)),
                Err(reason) => {
                    self.fail(reason);
                    None
                }
            },
        }
    }

    /// Permission bits; 0 counts as absent, as upstream.
    fn mode(&mut self, name: &str) -> Option<u32> {
        let value = self.get(name)?;
        match value.as_u64().and_then(|mode| u32::try_from(mode).ok()).filter(|mode| *mode <= 0o7777) {
            Some(0) => None,
            Some(mode) => Some(mode),
            None => {
                self.fail(format!("{name} must be a number from 0 to 4095 (octal 7777), written in decimal"));
                None
            }
        }
    }

    /// A numeric user or group; -1 means "as it is".
    fn id(&mut self, name: &str) -> Option<u32> {
        let value = self.get(name)?;
        match value.as_i64() {
            Some(-1) => None,
            Some(id) if u32::try_from(id).is_ok_and(|id| id != u32::MAX) => u32::try_from(id).ok(),
            Some(_) | None => {
                self.fail(format!("{name} must be a number"));
                None
            }
        }
    }
}

/// The components of a path without `.`, `..` and doubled slashes; `None` when it leads above its root.
fn normalised(path: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts)
}

/// Text with `://` in it is a URL, anything else base64.
fn read_content(text: &str, node: &Value, ports: &Value) -> Result<Content, String> {
    if text.contains("://") {
        let url =
            template::fill(text, node, ports).map_err(|error| format!("the URL of the content: {error}"))?;
        let lower = url.to_ascii_lowercase();
        if !lower.starts_with("http://") && !lower.starts_with("https://") {
            return Err("the URL of the content must begin with http:// or https://".into());
        }
        return Ok(Content::Url(url));
    }
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    LENIENT
        .decode(plain)
        .map(Content::Bytes)
        .map_err(|error| format!("the content is neither a URL nor base64: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use serde_json::json;
    use wire::StepKind;

    fn read(properties: Value, arguments: Value) -> Result<Request, Error> {
        let cx = Context::new(Fixture::new().host(), events::Events::default())
            .with_node(json!({"uuid": "n-1", "properties": {"inject_files": properties}}));
        let call = StepCall {
            kind: StepKind::Deploy,
            step: "inject_files".into(),
            arguments: arguments.as_object().unwrap().clone(),
            ports: json!([{"address": "52:54:00:00:00:01"}]),
        };
        Request::read(&cx, &call)
    }

    fn one(entry: Value) -> Result<File, String> {
        read(Value::Null, json!({"files": [entry]}))
            .map(|mut request| request.files.remove(0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn properties_come_before_arguments_and_neither_is_needed() {
        let request = read(
            json!([{"path": "/etc/a", "content": "QQ=="}]),
            json!({"files": [{"path": "/etc/b", "deleted": true}], "verify_ca": false}),
        )
        .unwrap();
        let paths: Vec<&str> = request.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!((paths, request.verify_ca), (vec!["etc/a", "etc/b"], false));
        assert!(read(Value::Null, json!({"files": null})).unwrap().files.is_empty());
        assert!(read(Value::Null, json!({})).unwrap().verify_ca);
    }

    #[test]
    fn an_entry_is_read_in_full() {
        let file = one(json!({"path": "/etc//ssh/./x/../keys", "partition": "2", "content": "aGV s\nbG8",
                              "mode": 384, "dirmode": 448, "owner": 0, "group": -1}));
        let wanted = File {
            path: "etc/ssh/keys".into(),
            partition: Where::Number(2),
            action: Action::Write(Content::Bytes(b"hello".to_vec())),
            mode: Some(0o600),
            directory_mode: Some(0o700),
            owner: Some(0),
            group: None,
        };
        assert_eq!(file.unwrap(), wanted);
    }

    #[test]
    fn places_are_numbers_names_or_the_first_directory() {
        for (partition, wanted) in [
            (json!(null), Where::Directory("etc".into())),
            (json!(0), Where::Directory("etc".into())),
            (json!(""), Where::Directory("etc".into())),
            (json!(3), Where::Number(3)),
            (json!("/dev/sda2"), Where::Named("/dev/sda2".into())),
            (json!("LABEL=root"), Where::Named("LABEL=root".into())),
        ] {
            let file = one(json!({"path": "/etc/x", "partition": partition, "content": ""})).unwrap();
            assert_eq!(file.partition, wanted, "{partition}");
        }
    }

    #[test]
    fn urls_are_filled_in_with_the_node() {
        let file =
            one(json!({"path": "/etc/x", "content": "http://h/{node[uuid]}/{ports[0][address]}"})).unwrap();
        let url = "http://h/n-1/52:54:00:00:00:01".to_owned();
        assert!(file.action == Action::Write(Content::Url(url)), "{file:?}");
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_and_nothing_secret() {
        let error = read(
            json!([{"path": "/etc/a", "content": "c2VjcmV0", "colour": 1, "mode": "0644"}]),
            json!({"files": [{"path": "/x", "content": ""}, {"content": "QQ=="}, 7]}),
        )
        .unwrap_err();
        assert!(matches!(error, Error::InvalidParameters { .. }));
        let text = error.to_string();
        for word in [
            "file 1 (/etc/a)",
            "colour",
            "mode must be",
            "file 2 (/x)",
            "needs a partition",
            "file 3",
            "file 4",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("c2VjcmV0"), "{text}");
    }

    #[test]
    fn entries_that_make_no_sense_are_refused() {
        for (entry, word) in [
            (json!({"path": "/etc/", "content": ""}), "name a file"),
            (json!({"path": "/", "content": "", "partition": 1}), "name a file"),
            (json!({"path": "/etc/../../x", "content": ""}), "leads out"),
            (json!({"path": "../x/y", "content": ""}), "leads out"),
            (json!({"path": 5, "content": ""}), "needs a path"),
            (json!({"path": "/etc/x", "content": "QQ==", "deleted": true}), "with deleted"),
            (json!({"path": "/etc/x"}), "needs content"),
            (json!({"path": "/etc/x", "content": "%%%"}), "base64"),
            (json!({"path": "/etc/x", "content": "file:///etc/shadow"}), "http"),
            (json!({"path": "/etc/x", "content": "http://h/{node[nothing]}"}), "nothing"),
            (json!({"path": "/etc/x", "content": "", "mode": true}), "mode"),
            (json!({"path": "/etc/x", "content": "", "mode": 4096}), "mode"),
            (json!({"path": "/etc/x", "content": "", "owner": -2}), "owner"),
            (json!({"path": "/etc/x", "content": "", "group": "root"}), "group"),
            (json!({"path": "/etc/x", "content": "", "partition": [1]}), "partition"),
            (json!({"path": "/etc/x", "content": "", "deleted": "yes"}), "deleted"),
        ] {
            let error = one(entry.clone()).unwrap_err();
            assert!(error.contains(word), "{entry}: {error}");
        }
        for (properties, arguments) in [
            (json!({}), json!({})),
            (json!([]), json!({"files": "x"})),
            (json!([]), json!({"verify_ca": "x"})),
        ] {
            assert!(matches!(read(properties, arguments), Err(Error::InvalidParameters { .. })));
        }
        assert!(matches!(read(json!([]), json!({"file": []})), Err(Error::Arguments { .. })));
    }
}
