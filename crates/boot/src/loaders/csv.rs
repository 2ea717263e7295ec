//! The lines of a CSV file: `shimx64.efi,debian,,This is the boot entry for debian`. Pure.

/// Lines that are looked at: far more than any file has.
const LINES: usize = 64;
/// Longest label in characters. Firmware shows about as many.
const LABEL: usize = 256;

/// A line that may name a loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The first field, blanks included: the name of a file.
    pub(super) file: String,
    /// The second field, blanks included. `None` where there is none.
    pub(super) label: Option<String>,
}

/// Reads the lines that may name a loader; empty lines and lines without a first field are left out. UTF-16, little endian
/// unless a byte order mark says otherwise; a file that makes no sense as such is read as UTF-8.
pub(super) fn lines(bytes: &[u8]) -> Vec<Line> {
    let text = text(bytes);
    let lines = text.split(['\n', '\r', '\u{2028}']);
    lines.filter_map(line).take(LINES).collect()
}

fn text(bytes: &[u8]) -> String {
    let wide = match bytes {
        [0xff, 0xfe, body @ ..] => return utf16(body, u16::from_le_bytes),
        [0xfe, 0xff, body @ ..] => return utf16(body, u16::from_be_bytes),
        body => utf16(body, u16::from_le_bytes),
    };
    if wide.contains(|c: char| c.is_ascii_graphic()) {
        return wide;
    }
    let narrow = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(narrow) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        Ok(_) | Err(_) => utf16(bytes, u16::from_be_bytes),
    }
}

fn utf16(body: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units: Vec<u16> = body.chunks_exact(2).filter_map(|pair| Some(unit(pair.try_into().ok()?))).collect();
    String::from_utf16_lossy(&units)
}

fn line(text: &str) -> Option<Line> {
    let text = text.trim_matches(['\0', '\u{feff}']);
    let mut fields = text.splitn(4, ',');
    let file = fields.next().filter(|file| is_plain(file))?;
    // A path may lead into another directory of the partition, and never out of one.
    if file.split(['/', '\\']).any(|part| matches!(part.trim(), "." | "..")) {
        return None;
    }
    let label = fields.next().filter(|label| is_plain(label));
    Some(Line { file: file.to_owned(), label: label.map(|label| label.chars().take(LABEL).collect()) })
}

/// A NUL would end a name early, and control characters have no place in a menu.
fn is_plain(text: &str) -> bool {
    !text.trim().is_empty() && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wide(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    fn pairs(bytes: &[u8]) -> Vec<(String, Option<String>)> {
        lines(bytes).into_iter().map(|line| (line.file, line.label)).collect()
    }

    #[test]
    fn csv_files_are_read_in_every_byte_order() {
        let text = "shimx64.efi,debian,,This is, the boot entry\r\n\r\nsecond.efi,x\r\n";
        let expected = [
            ("shimx64.efi".to_owned(), Some("debian".to_owned())),
            ("second.efi".to_owned(), Some("x".to_owned())),
        ];
        assert_eq!(pairs(&wide(text, u16::to_le_bytes)), expected);
        assert_eq!(pairs(&wide(&format!("\u{feff}{text}"), u16::to_le_bytes)), expected);
        assert_eq!(pairs(&wide(&format!("\u{feff}{text}"), u16::to_be_bytes)), expected);
        assert_eq!(pairs(&wide(text, u16::to_be_bytes)), expected, "no mark");
        assert_eq!(pairs(text.as_bytes()), expected, "UTF-8");
        assert_eq!(pairs(format!("\u{feff}{text}").as_bytes()), expected);
        let odd = [wide(text, u16::to_le_bytes), vec![0]].concat();
        assert_eq!(pairs(&odd), expected, "half a character at the end");
    }

    #[test]
    fn lines_that_name_nothing_are_left_out_and_blanks_belong_to_the_fields() {
        let text = "\n,label\n \n..\\x.efi,l\na\0b,l\n a.efi, Label ,x\nbare.efi\nfile,\nsub\\b.efi,l\0";
        let label = |text: &str| Some(text.to_owned());
        let expected = [
            (" a.efi".to_owned(), label(" Label ")),
            ("bare.efi".to_owned(), None),
            ("file".to_owned(), None),
            ("sub\\b.efi".to_owned(), label("l")),
        ];
        assert_eq!(pairs(&wide(text, u16::to_le_bytes)), expected);
        assert_eq!(pairs(&wide(&"x.efi,l\n".repeat(1000), u16::to_le_bytes)).len(), LINES);
    }

    proptest! {
        #[test]
        fn junk_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            for line in lines(&bytes) {
                prop_assert!(!line.file.contains('\0') && !line.file.split(['/', '\\']).any(|part| part == ".."));
            }
        }
    }
}
