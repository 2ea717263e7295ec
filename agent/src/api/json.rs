//! JSON as ironic-python-agent writes it: ASCII only, no charset in the content type, no newline at the end.

use std::io::{self, Write};

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// Escapes what is not ASCII.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut units = [0_u16; 2];
        for character in fragment.chars() {
            if character.is_ascii() {
                write!(writer, "{character}")?;
            } else {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// A value as ASCII JSON.
pub(super) fn to_ascii(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Ascii))?;
    Ok(bytes)
}

/// A reply with a JSON body.
pub(super) fn reply(status: StatusCode, value: &impl Serialize) -> Response {
    match to_ascii(value) {
        Ok(body) => reply_bytes(status, body),
        Err(error) => {
            tracing::error!(%error, "a reply can not be written as JSON");
            let body = br#"{"faultcode":"Server","faultstring":"500 Internal Server Error"}"#;
            reply_bytes(StatusCode::INTERNAL_SERVER_ERROR, body.to_vec())
        }
    }
}

/// A reply with a body that is JSON already.
pub(super) fn reply_bytes(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_not_ascii_is_escaped_as_python_does() {
        let bytes = to_ascii(&json!({"k": "a\"ü\n😀"})).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), r#"{"k":"a\"\u00fc\n\ud83d\ude00"}"#);
    }

    proptest! {
        #[test]
        fn any_text_survives_and_is_ascii(text in any::<String>()) {
            let bytes = to_ascii(&Value::String(text.clone())).unwrap();
            prop_assert!(bytes.is_ascii());
            prop_assert_eq!(serde_json::from_slice::<String>(&bytes).unwrap(), text);
        }
    }
}
