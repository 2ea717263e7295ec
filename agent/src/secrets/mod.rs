//! The secrets that this process knows, and texts without them.
//!
//! A text is masked in two ways. By value: what is known to be secret is replaced wherever it stands, plain, percent-encoded,
//! escaped as in JSON, or in base64. By place: what stands behind a name such as `agent_token=` or between `://` and `@` is
//! replaced whatever it is. The second way covers values that nobody reported, that were cut, or that are too short for the
//! first.
//!
//! A value of less than 4 bytes is never replaced by value: the log would lose every `a`. One of less than 8 bytes is replaced
//! where it is a word by itself.
//!
//! Called by `logging` for each line, by the `log` extension for each member of its archive, and by `config` for what it shows.

mod place;
mod value;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use crate::cmdline::Cmdline;
pub use place::{hide_by_place, is_secret_name};
use value::Matcher;

/// What stands for a secret.
pub const HIDDEN: &str = "***";
/// Shortest value that is looked for, in bytes.
const SHORTEST: usize = 4;
/// Longest value that is looked for, in bytes. Longer ones (config drives) are never written to a log.
const LONGEST: usize = 8192;
/// Most values that are kept; a conductor that sends more than that in one boot is broken.
const MOST: usize = 4096;
/// Words that stand for "no secret" or "a secret that is hidden already".
const NO_SECRETS: [&str; 8] = ["true", "false", "none", "null", "<...>", "(hidden)", "<secret>", "default"];

/// The secrets that are known; clones share them.
#[derive(Clone, Default)]
pub struct Secrets(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    values: BTreeSet<String>,
    matcher: Matcher,
}

impl Secrets {
    /// Remembers a value. Too short and too long ones are left out.
    pub fn add(&self, value: &str) {
        self.add_all([value.to_owned()]);
    }

    /// Remembers the secrets in a URL: its password, and the values of a signed query.
    pub fn add_url(&self, text: &str) {
        self.add_all(of_text(text));
    }

    /// Remembers the secrets among the words of a kernel command line, an environment or a parameter file: the values of
    /// secret names, and those in URLs.
    pub fn add_words<'a>(&self, words: impl IntoIterator<Item = &'a str>) {
        let mut found = Vec::new();
        for word in words {
            found.extend(of_text(word));
            if let Some((name, value)) = word.split_once('=') {
                of_named(name, value, &mut found);
            }
        }
        self.add_all(found);
    }

    /// Remembers the secrets of a kernel command line, with the parameters of virtual media in it.
    pub fn add_cmdline(&self, cmdline: &Cmdline) {
        let mut found = Vec::new();
        for (name, value) in cmdline.iter() {
            of_named(name, value, &mut found);
        }
        self.add_all(found);
    }

    /// Remembers the secrets of a configuration file.
    pub fn add_file(&self, text: &str) {
        let mut found = Vec::new();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            of_named(name.trim(), value.trim(), &mut found);
        }
        self.add_all(found);
    }

    /// Remembers the secrets at any depth of a JSON object.
    pub fn add_json(&self, name: &str, value: &Value) {
        let mut found = Vec::new();
        of_json(name, value, &mut found);
        self.add_all(found);
    }

    /// The text without any secret.
    pub fn hide(&self, text: &[u8]) -> Vec<u8> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        hide_by_place(&known.matcher.hide(text))
    }

    fn add_all(&self, values: impl IntoIterator<Item = String>) {
        let values: Vec<_> = values.into_iter().filter(|value| is_worth_hiding(value)).collect();
        if values.is_empty() {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.values.len();
        for value in values {
            if known.values.len() < MOST {
                known.values.insert(value);
            }
        }
        if known.values.len() != before {
            known.matcher = Matcher::new(&known.values);
        }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secrets>")
    }
}

fn is_worth_hiding(value: &str) -> bool {
    (SHORTEST..=LONGEST).contains(&value.len())
        && !value.bytes().all(|byte| byte == b'*')
        && !NO_SECRETS.iter().any(|word| word.eq_ignore_ascii_case(value))
}

fn of_named(name: &str, value: &str, found: &mut Vec<String>) {
    found.extend(of_text(value));
    if is_secret_name(name) {
        found.push(value.trim_matches(['"', '\'']).to_owned());
        found.push(value.to_owned());
        // `Basic dXNlcjpwYXNz`: the word behind the scheme is the secret.
        found.extend(value.split_once(' ').map(|(_, rest)| rest.to_owned()));
    }
}

fn of_json(name: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| of_json(key, value, found)),
        // An item of a list belongs to the name of the list.
        Value::Array(items) => items.iter().for_each(|item| of_json(name, item, found)),
        Value::String(text) => of_named(name, text, found),
        Value::Number(number) if is_secret_name(name) => found.push(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The secrets in a text that may be a URL, a list of URLs, or an option of a container engine.
fn of_text(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() > LONGEST {
        return found;
    }
    for option in ["--creds", "--password"] {
        for (_, rest) in
            text.match_indices(option).filter_map(|(at, _)| text.split_at_checked(at + option.len()))
        {
            let value = rest.strip_prefix(['=', ' ']).unwrap_or_default();
            let value = value.split([' ', ',']).next().unwrap_or_default();
            found.push(value.to_owned());
            found.extend(value.split_once(':').map(|(_, password)| password.to_owned()));
        }
    }
    for (_, rest) in text.match_indices("://").filter_map(|(at, _)| text.split_at_checked(at + 3)) {
        let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
        let rest = rest.get(..end).unwrap_or_default();
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if let Some((user, _)) = authority.rsplit_once('@') {
            let password = user.split_once(':').map_or(user, |(_, password)| password);
            found.extend([password.to_owned(), value::percent_decoded(password)]);
        }
        let query = rest.split_once('?').map(|(_, query)| query).unwrap_or_default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            if place::is_signing_name(name) {
                found.extend([value.to_owned(), value::percent_decoded(value)]);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hidden(secrets: &Secrets, text: &str) -> String {
        String::from_utf8(secrets.hide(text.as_bytes())).unwrap()
    }

    #[test]
    fn a_known_value_is_hidden_in_every_form_that_a_log_may_hold() {
        let secrets = Secrets::default();
        let value = "p4ss/w\"rd\\ü+x&y";
        secrets.add(value);
        let json = serde_json::to_string(value).unwrap();
        let ascii = "p4ss/w\\\"rd\\\\\\u00fc+x&y";
        let percent = "p4ss%2Fw%22rd%5C%C3%BC%2Bx%26y";
        let kernel = "p4ss/w\"rd\\x5c\\xc3\\xbc+x&y";
        for form in [value, json.as_str(), ascii, percent, &percent.to_lowercase(), kernel] {
            let text = hidden(&secrets, &format!("before {form} after"));
            assert!(text.starts_with("before ") && text.ends_with(" after"), "{text}");
            assert!(!text.contains("p4ss"), "{form}: {text}");
        }
        use base64::Engine;
        for before in ["", "u:", "us:", "user:"] {
            for engine in
                [base64::engine::general_purpose::STANDARD, base64::engine::general_purpose::URL_SAFE]
            {
                let encoded = engine.encode(format!("{before}{value}"));
                let text = hidden(&secrets, &format!("header={encoded}; end"));
                assert_eq!(text, format!("header={HIDDEN}; end"), "{encoded}");
            }
        }
    }

    #[test]
    fn a_short_value_does_not_blank_the_log() {
        let secrets = Secrets::default();
        secrets.add_words(["ipa-agent-token=a", "x-password=ab", "y-password=abc"]);
        assert_eq!(hidden(&secrets, "a cab abc eth0"), "a cab abc eth0");
        assert_eq!(
            hidden(&secrets, "quiet ipa-agent-token=a b"),
            format!("quiet ipa-agent-token={HIDDEN} b")
        );
        secrets.add("root");
        assert_eq!(
            hidden(&secrets, "rootfs chroot user root; root=/dev/sda"),
            format!("rootfs chroot user {HIDDEN}; {HIDDEN}=/dev/sda")
        );
    }

    #[test]
    fn every_place_that_a_secret_comes_from_is_learnt() {
        let secrets = Secrets::default();
        secrets.add_words(["ipa-agent-token=OfTheKernel", "ipa-api-url=https://u:OfTheUrl@h:6385"]);
        let mut cmdline = Cmdline::parse("quiet");
        cmdline.override_with(&Cmdline::parse("ipa-agent-token=OfVirtualMedia"));
        secrets.add_cmdline(&cmdline);
        secrets
            .add_file("[DEFAULT]\nimage_server_password = OfTheFile\nunknown_secret=\"OfAnUnknownOption\"\n");
        secrets.add_words(["FERRIC_TOKEN=OfTheEnvironment", "https_proxy=http://u:OfTheProxy@p:3128"]);
        secrets.add_url("https://s3/x?X-Amz-Signature=OfTheQuery&X-Amz-Credential=OfThe%2FScope");
        secrets.add_words(["pull=--creds=user:OfThePull"]);
        secrets.add_json("", &json!({
            "config": {"agent_token": "OfTheLookup"},
            "step": {"args": {"image_info": {"image_server_password": "OfTheImage", "urls": ["http://u:OfAList@h/"],
                "image_request_authorization": "Bearer OfTheHeader"}}},
            "rescue_password": "OfTheRescue", "configdrive": {"user_data": "OfTheDrive", "meta_data": {"admin_pass": "OfTheMeta"}},
            "node": {"driver_info": {"snmp_community": "OfSnmp", "ipmi_password": 12345678}},
        }));
        for value in [
            "OfTheKernel",
            "OfTheUrl",
            "OfVirtualMedia",
            "OfTheFile",
            "OfAnUnknownOption",
            "OfTheEnvironment",
            "OfTheProxy",
            "OfTheQuery",
            "OfThe/Scope",
            "OfThe%2FScope",
            "OfThePull",
            "OfTheLookup",
            "OfTheImage",
            "OfAList",
            "OfTheHeader",
            "OfTheRescue",
            "OfTheMeta",
            "OfSnmp",
            "12345678",
        ] {
            assert_eq!(hidden(&secrets, &format!("x {value} y")), format!("x {HIDDEN} y"));
        }
        assert_eq!(format!("{secrets:?}"), "<secrets>");
    }

    #[test]
    fn words_that_are_no_secrets_stay() {
        let secrets = Secrets::default();
        secrets.add_json("", &json!({"agent_token": "******", "agent_token_required": true, "password": "true", "token": null}));
        assert_eq!(hidden(&secrets, "true null ******"), "true null ******");
    }
}
