//! One log line as it may reach a terminal or a file: without control characters, so that no text from outside can move a
//! cursor or pass for a line of its own, and of bounded length. Pure but for [`CleanWriter`].

use std::borrow::Cow;
use std::io::{self, Write};

/// Longest line in bytes; the rest is left out.
const LINE: usize = 16 << 10;

/// Whether the line's own colours may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    /// They may: a terminal.
    Keep,
    /// There are none.
    None,
}

/// Returns the line with every control character escaped but tabs, a line end at its end and, where they may stay, colours.
pub(crate) fn clean(line: &[u8], colours: Colours) -> Cow<'_, [u8]> {
    let (body, end) = match line.strip_suffix(b"\n") {
        Some(body) => (body, "\n"),
        None => (line, ""),
    };
    let is_harmless = |byte: &u8| (byte.is_ascii() && !byte.is_ascii_control()) || *byte == b'\t';
    if body.len() <= LINE && body.iter().all(is_harmless) {
        return Cow::Borrowed(line);
    }
    let left_out = body.len().saturating_sub(LINE);
    let text = String::from_utf8_lossy(body.get(..LINE).unwrap_or(body));
    let mut shown = String::with_capacity(text.len() + 64);
    let mut rest = text.as_ref();
    while let Some(character) = rest.chars().next() {
        let colour = if colours == Colours::Keep { colour_length(rest) } else { 0 };
        let length = colour.max(character.len_utf8());
        match character {
            _ if colour > 0 => shown.push_str(rest.get(..colour).unwrap_or_default()),
            '\t' => shown.push('\t'),
            control if control.is_control() => shown.extend(control.escape_default()),
            other => shown.push(other),
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    if left_out > 0 {
        shown.push_str(&format!("... ({left_out} bytes left out)"));
    }
    shown.push_str(end);
    Cow::Owned(shown.into_bytes())
}

/// Length of the colour that a text begins with, in bytes: `ESC [ 1 ; 31 m` and nothing else. 0 where there is none.
fn colour_length(text: &str) -> usize {
    let Some(body) = text.strip_prefix("\u{1b}[") else { return 0 };
    let is_parameter = |character: char| character.is_ascii_digit() || character == ';';
    let end = body.find(|character| !is_parameter(character)).filter(|end| *end <= 16);
    match end {
        Some(end) if body.get(end..=end) == Some("m") => 2 + end + 1,
        Some(_) | None => 0,
    }
}

/// Cleans what is written, one line a call.
pub(crate) struct CleanWriter<W> {
    pub(crate) to: W,
    pub(crate) colours: Colours,
}

impl<W: Write> Write for CleanWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.to.write_all(&clean(line, self.colours))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cleaned(line: &str, colours: Colours) -> String {
        String::from_utf8(clean(line.as_bytes(), colours).into_owned()).unwrap()
    }

    #[test]
    fn control_characters_of_a_log_line_are_escaped() {
        for (line, expected) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\u{1b}]0;title\u{7}\n", "\\u{1b}]0;title\\u{7}\n"),
            ("\u{1b}[2J\n", "\\u{1b}[2J\n"),
            ("one\ntwo\r\n", "one\\ntwo\\r\n"),
            ("gr\u{fc}n \u{9b}31m", "gr\u{fc}n \\u{9b}31m"),
            ("\u{1b}[31mred\u{1b}[0m", "\\u{1b}[31mred\\u{1b}[0m"),
        ] {
            assert_eq!(cleaned(line, Colours::None), expected);
        }
    }

    #[test]
    fn colours_stay_on_a_terminal_and_nothing_else() {
        let line = "\u{1b}[2m12:00\u{1b}[0m \u{1b}[1;31mred\u{1b}[0m \u{1b}[2J\u{1b}[1;1H\u{1b}]0;x\u{7}\n";
        let expected =
            "\u{1b}[2m12:00\u{1b}[0m \u{1b}[1;31mred\u{1b}[0m \\u{1b}[2J\\u{1b}[1;1H\\u{1b}]0;x\\u{7}\n";
        assert_eq!(cleaned(line, Colours::Keep), expected);
    }

    #[test]
    fn long_log_lines_are_cut() {
        let line = "x".repeat(20 << 20) + "\n";
        let shown = cleaned(&line, Colours::None);
        assert!(shown.len() < LINE + 64 && shown.ends_with("bytes left out)\n"), "{}", shown.len());
    }

    proptest! {
        #[test]
        fn whatever_is_logged_is_one_line(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let line = [line, b"\n".to_vec()].concat();
            let shown = String::from_utf8(clean(&line, Colours::None).into_owned()).unwrap();
            let body = shown.strip_suffix('\n').unwrap();
            prop_assert!(!body.contains(|c: char| c.is_control() && c != '\t'), "{body:?}");
        }
    }
}
