//! JSON as ironic-python-agent writes it: ASCII only, no charset in the content type, no newline at the end.
//!
//! A step that is echoed to the conductor may hold a config drive of tens of megabytes. [`Pieces`] is JSON text that is
//! written once and shared from then on: by the history, and by every reply that shows it.

use std::io::{self, Write};

use axum::body::Bytes;
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

/// Counts what is written.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A value as ASCII JSON. Its memory is taken once: a large one, growing by doubling, would be there twice for a moment.
pub fn to_ascii(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut length = Length(0);
    value.serialize(&mut Serializer::with_formatter(&mut length, Ascii))?;
    let mut bytes = Vec::with_capacity(length.0);
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Ascii))?;
    Ok(bytes)
}

/// Up to this length copying a piece is cheaper than sharing it, in bytes.
const SHORT: usize = 4096;

/// JSON text in pieces. Clones share the long ones.
#[derive(Clone, Debug, Default)]
pub struct Pieces(Vec<Bytes>);

impl Pieces {
    /// The pieces of a value. What can not be written as JSON (no value that was read from JSON) is null.
    pub fn of(value: &impl Serialize) -> Self {
        match to_ascii(value) {
            Ok(bytes) => Self(vec![bytes.into()]),
            Err(error) => {
                tracing::error!(%error, "a value can not be written as JSON");
                Self(vec![Bytes::from_static(b"null")])
            }
        }
    }

    /// The pieces themselves.
    pub fn into_inner(self) -> Vec<Bytes> {
        self.0
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole text, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.concat()
    }
}

/// Puts JSON text together: short pieces are copied into one, long ones are shared.
#[derive(Debug, Default)]
pub struct Assembly {
    done: Vec<Bytes>,
    tail: Vec<u8>,
}

impl Assembly {
    /// Adds text.
    pub fn text(&mut self, text: &[u8]) {
        self.tail.extend_from_slice(text);
    }

    /// Adds what was put together before.
    pub fn pieces(&mut self, pieces: &Pieces) {
        for piece in &pieces.0 {
            if piece.len() <= SHORT {
                self.tail.extend_from_slice(piece);
                continue;
            }
            self.close();
            self.done.push(piece.clone());
        }
    }

    /// The result.
    pub fn finish(mut self) -> Pieces {
        self.close();
        Pieces(self.done)
    }

    fn close(&mut self) {
        if !self.tail.is_empty() {
            self.done.push(std::mem::take(&mut self.tail).into());
        }
    }
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

    #[test]
    fn long_pieces_are_shared_and_short_ones_joined() {
        let long = Pieces::of(&"x".repeat(2 * SHORT));
        let mut assembly = Assembly::default();
        assembly.text(b"[");
        assembly.pieces(&Pieces::of(&7));
        assembly.text(b",");
        assembly.pieces(&long);
        assembly.text(b"]");
        let all = assembly.finish();
        let starts = |pieces: &Pieces| pieces.0.iter().map(|piece| piece.as_ptr()).collect::<Vec<_>>();
        assert_eq!(all.0.len(), 3);
        assert_eq!(starts(&all)[1], starts(&long)[0], "the long piece was copied");
        let read: (u8, String) = serde_json::from_slice(&all.to_vec()).unwrap();
        assert_eq!((read.0, read.1.len()), (7, 2 * SHORT));
        assert_eq!(all.len(), 2 * SHORT + 6);
        assert!(!all.is_empty() && Pieces::default().is_empty());
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
