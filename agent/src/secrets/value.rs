//! Finds known values in a text, in each of the forms that they may have there. One pass, whatever the number of values.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::{HIDDEN, SHORTEST};

/// Values below this length are replaced only where they are a word by themselves, in bytes.
const ANYWHERE: usize = 8;
/// Shortest piece of base64 that identifies a value, in characters.
const BASE64: usize = 8;
/// Longest base64 word that is replaced as a whole because a secret is in it, in characters.
const LONGEST_WORD: usize = 16 * 1024;

/// One form of one value.
struct Form {
    bytes: Vec<u8>,
    /// Whether the neighbours must not be letters or digits.
    is_word: bool,
    /// Whether the whole word of base64 around it goes as well.
    is_base64: bool,
}

/// All forms of all values, by their first four bytes.
#[derive(Default)]
pub(super) struct Matcher {
    forms: HashMap<[u8; SHORTEST], Vec<Form>>,
}

impl Matcher {
    /// Of values that are each at least [`SHORTEST`] bytes long.
    pub(super) fn new(values: &BTreeSet<String>) -> Self {
        let mut matcher = Self::default();
        for value in values {
            for bytes in plain_forms(value) {
                let is_word = bytes.len() < ANYWHERE;
                matcher.insert(Form { bytes, is_word, is_base64: false });
            }
            for piece in base64_pieces(value.as_bytes()) {
                matcher.insert(Form { bytes: piece, is_word: false, is_base64: true });
            }
        }
        for forms in matcher.forms.values_mut() {
            forms.sort_by_key(|form| std::cmp::Reverse(form.bytes.len())); // the longest one wins
        }
        matcher
    }

    fn insert(&mut self, form: Form) {
        if let Some(start) = form.bytes.first_chunk() {
            self.forms.entry(*start).or_default().push(form);
        }
    }

    /// The text with [`HIDDEN`] in the place of each value.
    pub(super) fn hide(&self, text: &[u8]) -> Vec<u8> {
        let mut hidden = Vec::with_capacity(text.len());
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(form) = self.form_at(text, at) else {
                hidden.extend(rest.first());
                at += 1;
                continue;
            };
            let mut length = form.bytes.len();
            if form.is_base64 {
                let before =
                    hidden.iter().rev().take(LONGEST_WORD).take_while(|byte| is_of_base64(**byte)).count();
                hidden.truncate(hidden.len().saturating_sub(before));
                let behind = rest.iter().skip(length).take(LONGEST_WORD);
                length += behind.take_while(|byte| is_of_base64(**byte) || **byte == b'=').count();
            }
            hidden.extend_from_slice(HIDDEN.as_bytes());
            at += length;
        }
        hidden
    }

    fn form_at(&self, text: &[u8], at: usize) -> Option<&Form> {
        let rest = text.get(at..)?;
        let forms = self.forms.get(rest.first_chunk::<SHORTEST>()?)?;
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        let is_part = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        forms.iter().find(|form| {
            let stands_alone = || !is_part(before) && !is_part(rest.get(form.bytes.len()));
            rest.starts_with(&form.bytes) && (!form.is_word || stands_alone())
        })
    }
}

fn is_of_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// The value as it is, in URLs, in JSON, and in the kernel's messages.
fn plain_forms(value: &str) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::from([value.to_owned()]);
    let (mut upper, mut lower, mut kernel, mut json) =
        (String::new(), String::new(), String::new(), String::new());
    for byte in value.bytes() {
        // Writing to a string cannot fail.
        let _ = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                write!(upper, "{0}", char::from(byte)).and(write!(lower, "{0}", char::from(byte)))
            }
            _ => write!(upper, "%{byte:02X}").and(write!(lower, "%{byte:02x}")),
        };
        let _ = match byte {
            b'\\' | 0..=31 | 127.. => write!(kernel, "\\x{byte:02x}"),
            _ => write!(kernel, "{}", char::from(byte)),
        };
    }
    let mut units = [0_u16; 2];
    for c in value.chars() {
        let _ = match c {
            '"' | '\\' => write!(json, "\\{c}"),
            '\n' => write!(json, "\\n"),
            '\t' => write!(json, "\\t"),
            ' '..='~' => write!(json, "{c}"),
            _ => c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(json, "\\u{unit:04x}")),
        };
    }
    forms.extend([
        upper.replace("%20", "+"),
        upper.replace("%2F", "/"),
        upper,
        lower,
        kernel,
        json.replace('/', "\\/"),
        json,
    ]);
    let quoted = serde_json::to_string(value).unwrap_or_default();
    forms.extend(quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).map(str::to_owned));
    // What a Python program or a Rust one shows of a text.
    let shown = format!("{value:?}");
    forms.extend(shown.strip_prefix('"').and_then(|text| text.strip_suffix('"')).map(str::to_owned));
    forms.into_iter().filter(|form| form.len() >= SHORTEST).map(String::into_bytes).collect()
}

/// What is the same in the base64 of every text that holds the value: for each of the three places where it may begin.
fn base64_pieces(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut pieces = BTreeSet::new();
    for before in 0..3_usize {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(value);
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&bytes).into_bytes();
            // The first characters hold bits of what stands before, the last one bits of what stands behind.
            let start = (before * 8).div_ceil(6);
            let end = bytes.len() * 8 / 6;
            pieces.extend(text.get(start..end).filter(|piece| piece.len() >= BASE64).map(<[u8]>::to_vec));
        }
    }
    pieces
}

/// The text with its `%XX` resolved; what is no such escape stays.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        let escaped = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
