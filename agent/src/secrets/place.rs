//! Hides what stands where secrets stand, whatever it is: behind the name of one, in the user part and the query of a URL, in
//! an `Authorization` header. Needs no list of values.

use super::HIDDEN;

/// A name is that of a secret when it holds one of these.
const SECRET_NAMES: [&str; 16] = [
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "credential",
    "creds",
    "authorization",
    "private_key",
    "private-key",
    "api_key",
    "apikey",
    "access_key",
    "community",
    "admin_pass",
    "adminpass",
];
/// Parts of the names of query parameters that let their holder in.
const SIGNING_NAMES: [&str; 6] = ["sig", "key", "policy", "auth", "sas", "hmac"];
/// Headers whose whole value is secret.
const HEADERS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "x-auth-token",
    "x-subject-token",
    "x-amz-security-token",
    "cookie",
    "set-cookie",
];
/// Values that say whether there is a secret, and are none.
const PLAIN_VALUES: [&str; 9] = ["true", "false", "none", "null", "yes", "no", "0", "1", "***"];

/// Whether a parameter, option or key of this name holds a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // Whether one is needed is no secret.
    !name.ends_with("required") && SECRET_NAMES.iter().any(|word| name.contains(word))
}

/// Whether a parameter of a URL's query lets its holder in.
pub(super) fn is_signing_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    is_secret_name(name) || SIGNING_NAMES.iter().any(|word| lower.contains(word))
}

/// The text with [`HIDDEN`] in each place where secrets stand.
pub fn hide_by_place(text: &[u8]) -> Vec<u8> {
    let mut hidden = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        hidden.push(*byte);
        at += 1;
        let rest = text.get(at..).unwrap_or_default();
        let place = match byte {
            b'=' => behind_equals(&hidden, rest),
            b':' if rest.starts_with(b"//") => in_url(rest),
            b':' => behind_colon(&hidden, rest),
            b' ' | b'\0' => behind_word(&hidden, rest),
            b'?' => query(&hidden, rest),
            _ => None,
        };
        let Some(Place { before, length }) = place else { continue };
        let Some(value) = rest.get(before..before.saturating_add(length)) else { continue };
        if PLAIN_VALUES.iter().any(|plain| plain.as_bytes().eq_ignore_ascii_case(value)) {
            continue;
        }
        hidden.extend(rest.iter().take(before));
        hidden.extend_from_slice(HIDDEN.as_bytes());
        at = at.saturating_add(before).saturating_add(length);
    }
    hidden
}

/// Where a secret stands in the rest of a text.
struct Place {
    /// Bytes before it.
    before: usize,
    /// Its own bytes; at least one.
    length: usize,
}

impl Place {
    fn new(before: usize, length: usize) -> Option<Self> {
        (length > 0).then_some(Self { before, length })
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn length_while(text: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|byte| wanted(**byte)).count()
}

/// The name that a text ends with.
fn last_name(text: &[u8]) -> String {
    let name: Vec<_> = text.iter().rev().take(100).take_while(|byte| is_of_name(**byte)).copied().collect();
    name.into_iter().rev().map(char::from).collect()
}

/// `name=value`, `name = value`, `name="a value"`.
fn behind_equals(done: &[u8], rest: &[u8]) -> Option<Place> {
    let name = done.strip_suffix(b"=")?.trim_ascii_end();
    if !is_secret_name(&last_name(name)) {
        return None;
    }
    let blanks = length_while(rest, |byte| byte == b' ' || byte == b'\t');
    let value = rest.get(blanks..)?;
    if let Some(quote @ (b'"' | b'\'')) = value.first() {
        return Place::new(blanks + 1, length_while(value.get(1..)?, |byte| byte != *quote && byte != b'\n'));
    }
    let ends = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b'\0' | b'"' | b'\'' | b'&' | b'`');
    Place::new(blanks, length_while(value, |byte| !ends(byte)))
}

/// `"name": "value"` of JSON and Python, also inside of a text of JSON; and headers.
fn behind_colon(done: &[u8], rest: &[u8]) -> Option<Place> {
    let blanks = length_while(rest, |byte| byte == b' ');
    let done = done.strip_suffix(b":")?.trim_ascii_end();
    let unquoted = match done {
        [before @ .., b'"' | b'\''] => before,
        _ => {
            let is_header = HEADERS.contains(&last_name(done).to_ascii_lowercase().as_str());
            return Place::new(blanks, length_while(rest.get(blanks..)?, |byte| byte != b'\n'))
                .filter(|_| is_header);
        }
    };
    let name = unquoted.iter().rposition(|byte| *byte != b'\\').and_then(|last| unquoted.get(..=last))?;
    if !is_secret_name(&last_name(name)) {
        return None;
    }
    let value = rest.get(blanks..)?;
    let slashes = length_while(value, |byte| byte == b'\\');
    let quote = *value.get(slashes).filter(|byte| matches!(byte, b'"' | b'\''))?;
    let inner = value.get(slashes + 1..)?;
    // It ends at the next quote that is escaped as often as the first.
    let mut before = 0;
    for (length, byte) in inner.iter().enumerate() {
        if *byte == quote && before <= slashes {
            return Place::new(blanks + slashes + 1, length - before);
        }
        before = if *byte == b'\\' { before + 1 } else { 0 };
    }
    Place::new(blanks + slashes + 1, inner.len())
}

/// `--password VALUE`, `Bearer VALUE`, `Basic VALUE`.
fn behind_word(done: &[u8], rest: &[u8]) -> Option<Place> {
    let (_, done) = done.split_last()?;
    let word = last_name(done);
    let is_flag = word.starts_with("--") && is_secret_name(&word);
    let is_scheme = word == "Bearer" || word == "Basic";
    let length =
        length_while(rest, |byte| !byte.is_ascii_whitespace() && !matches!(byte, b'\0' | b'"' | b'\''));
    // `Basic` is also an English word.
    Place::new(0, length).filter(|_| (is_flag && !rest.starts_with(b"-")) || (is_scheme && length >= 8))
}

/// What stands before the `@` of a URL's host.
fn in_url(rest: &[u8]) -> Option<Place> {
    let ends = |byte: u8| {
        byte.is_ascii_whitespace() || matches!(byte, b'/' | b'?' | b'#' | b'"' | b'<' | b'>' | b'`' | b'\0')
    };
    let authority = rest.get(2..)?;
    let authority = authority.get(..length_while(authority, |byte| !ends(byte)))?;
    Place::new(2, authority.iter().rposition(|byte| *byte == b'@')?)
}

/// What stands behind the `?` of a URL.
fn query(done: &[u8], rest: &[u8]) -> Option<Place> {
    let ends = |byte: u8| {
        byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`' | b'\\' | b'\0')
    };
    let start = done.iter().rposition(|byte| ends(*byte)).map_or(0, |last| last + 1);
    let is_url = done.get(start..)?.windows(3).any(|three| three == b"://");
    Place::new(0, length_while(rest, |byte| !ends(byte))).filter(|_| is_url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> String {
        String::from_utf8(hide_by_place(text.as_bytes())).unwrap()
    }

    #[test]
    fn what_stands_behind_a_secret_name_is_hidden() {
        for (text, shown) in [
            ("quiet ipa-agent-token=ab b=c", "quiet ipa-agent-token=*** b=c"),
            ("parameters \"ipa-agent-token=ab\", will", "parameters \"ipa-agent-token=***\", will"),
            ("agent_token = ab\nnext = 1", "agent_token = ***\nnext = 1"),
            ("a=1\0FERRIC_SECRET=x\0b=2", "a=1\0FERRIC_SECRET=***\0b=2"),
            ("password=\"a b\" c", "password=\"***\" c"),
            ("podman pull --creds user:pw image", "podman pull --creds *** image"),
            ("tool --password pw --debug", "tool --password *** --debug"),
            (r#"{"agent_token": "ab", "n": 1}"#, r#"{"agent_token": "***", "n": 1}"#),
            (
                r#"{"body": "{\"agent_token\":\"a\\\"b\",\"n\":1}"}"#,
                r#"{"body": "{\"agent_token\":\"***\",\"n\":1}"}"#,
            ),
            ("{'ipmi_password': 'ab', 'n': 1}", "{'ipmi_password': '***', 'n': 1}"),
            ("authorization: Basic abc\nhost: h", "authorization: ***\nhost: h"),
            ("sent Bearer abcdefgh0 now", "sent Bearer *** now"),
        ] {
            assert_eq!(hidden(text), shown);
        }
    }

    #[test]
    fn user_and_query_of_a_url_are_hidden() {
        assert_eq!(
            hidden("calling https://u:p@w@h:6385/v1?sig=x&y=z: refused"),
            "calling https://***@h:6385/v1?*** refused"
        );
        assert_eq!(hidden("GET https://h/v1?a=b failed"), "GET https://h/v1?*** failed");
        assert_eq!(hidden("url=https://u@h,http://h2"), "url=https://***@h,http://h2");
        assert_eq!(hidden("mail me@h: what? really"), "mail me@h: what? really");
        assert_eq!(hidden("GET /v1/lookup?addresses=52:54"), "GET /v1/lookup?addresses=52:54");
    }

    #[test]
    fn ordinary_lines_stay_as_they_are() {
        for text in [
            "the conductor has forgotten this boot's token: power-cycle the node",
            "agent_token_required=true token=false",
            r#"{"agent_token_required": true, "token": null}"#,
            "Basic set-up of the network",
            "key=value == x",
            "password=",
            "https://h/a",
            "",
        ] {
            assert_eq!(hidden(text), text);
        }
    }
}
