//! Text from machines on a terminal. An agent chooses the words of its events and errors, so control characters in them are
//! shown as escapes: they can neither move the cursor nor set a title nor forge a line.

use std::fmt::Write as _;

/// Returns `text` with every control character, and every character that changes the direction of writing, as `\u{1b}`.
/// Line ends stay where `lines` is set.
fn escaped(text: &str, lines: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        let harmless = !(letter.is_control() || is_direction(letter)) || (lines && letter == '\n');
        if harmless {
            shown.push(letter);
        } else if write!(shown, "{}", letter.escape_unicode()).is_err() {
            return shown; // writing to a String does not fail
        }
    }
    shown
}

/// Marks that reorder what is shown (UAX 9).
const fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns one line for a terminal.
pub fn line(text: &str) -> String {
    escaped(text, false)
}

/// Returns lines for a terminal.
pub fn lines(text: &str) -> String {
    escaped(text, true)
}

/// Returns JSON for a terminal. JSON's writer escapes only the control characters below U+0020.
pub fn json(value: &impl serde::Serialize) -> String {
    // Values here are plain data: they always serialise.
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() || is_direction(letter) {
            // All of these are below U+10000.
            let written = write!(shown, "\\u{:04x}", u32::from(letter));
            if written.is_err() {
                return shown; // as above
            }
        } else {
            shown.push(letter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_as_escapes() {
        assert_eq!(line("ok: \u{1b}[2J\u{7}\u{9b}1m\r\nx"), "ok: \\u{1b}[2J\\u{7}\\u{9b}1m\\u{d}\\u{a}x");
        assert_eq!(lines("a\nb\tc"), "a\nb\\u{9}c");
        assert_eq!(line("\u{202e}abc"), "\\u{202e}abc");
        assert_eq!(line("Grüße, 日本"), "Grüße, 日本");
    }

    #[test]
    fn json_stays_json_and_has_no_raw_control_characters() {
        let value = serde_json::json!({ "text": "\u{9b}2J\u{7f}\u{1b}\u{202e}" });
        let text = json(&value);
        assert!(!text.chars().any(char::is_control), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
