//! Heads of answers: the status line and the fields, as servers write them. Pure.
//!
//! RFC 9112 says what a head is. Servers and scripts behind them write other things too, and curl and requests take them: a
//! line that is not a field is left out, white space around names is removed, a folded line continues the one before it,
//! bytes beyond ASCII stay in the value. What is read this way decides only which bytes come; the digest decides whether
//! they are the image. What decides where the body ends is read strictly, see [`Framing::of`].

/// The status and the fields of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Minor version: 0 for HTTP/1.0, where a connection ends with its answer.
    minor: u8,
    pub(crate) fields: Fields,
    /// Whether every line was a legal one. After an illegal one the connection is not used again.
    is_legal: bool,
}

/// Fields in the order of their lines, with names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, Vec<u8>)>);

impl Fields {
    /// Returns the value of the first field of this name (in lower case).
    pub(crate) fn get<'f>(&'f self, name: &'f str) -> Option<&'f [u8]> {
        self.all(name).next()
    }

    /// As [`Fields::get`], as text: UTF-8, else Latin-1.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(text)
    }

    /// Returns the values of all fields of this name (in lower case).
    pub(crate) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f [u8]> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// Returns the members of the comma-separated lists in all fields of this name, in lower case and without parameters.
    pub(crate) fn tokens(&self, name: &str) -> Vec<String> {
        let mut tokens = Vec::new();
        for value in self.all(name) {
            let value = text(value);
            let members = value.split(',').map(|member| member.split(';').next().unwrap_or_default());
            tokens.extend(members.map(|token| token.trim().trim_matches('"').to_ascii_lowercase()));
        }
        tokens.retain(|token| !token.is_empty());
        tokens
    }

    #[cfg(test)]
    pub(crate) fn of(fields: &[(&str, &str)]) -> Self {
        Self(fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect())
    }
}

/// Reads bytes as UTF-8, else as Latin-1.
pub(crate) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

impl Head {
    /// Reads the lines of a head, without their ends and without the empty line. `None` where the first is not a status line
    /// of HTTP/1.
    pub(crate) fn parse(lines: &[Vec<u8>]) -> Option<Self> {
        let (first, rest) = lines.split_first()?;
        let (minor, status) = status_line(first)?;
        let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
        let mut is_legal = true;
        // Whether the line before was a field, which a folded line continues.
        let mut continues = false;
        for line in rest {
            if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
                is_legal = false;
                if let Some((_, value)) = fields.last_mut().filter(|_| continues) {
                    value.push(b' ');
                    value.extend_from_slice(line.trim_ascii());
                }
                continue;
            }
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value): (&[u8], &[u8]) = match colon {
                Some(at) => line.split_at(at),
                None => (&[], &[]),
            };
            is_legal &= !name.is_empty() && name.iter().all(|byte| is_of_name(*byte));
            let name = name.trim_ascii();
            continues = !name.is_empty() && name.iter().all(|byte| is_of_name(*byte));
            if continues {
                let value = value.get(1..).unwrap_or_default().trim_ascii().to_vec();
                fields.push((text(name).to_ascii_lowercase(), value));
            }
        }
        Some(Self { status, minor, fields: Fields(fields), is_legal })
    }

    /// Returns whether the connection may carry another request after this answer.
    pub(crate) fn keeps_connection(&self) -> bool {
        let tokens = self.fields.tokens("connection");
        let says = |wanted: &str| tokens.iter().any(|token| token == wanted);
        self.is_legal && !says("close") && (self.minor >= 1 || says("keep-alive"))
    }
}

/// Characters of a token (RFC 9110 section 5.6.2).
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `HTTP/1.1 200 OK`; the reason may be missing, and the space before it.
fn status_line(line: &[u8]) -> Option<(u8, u16)> {
    let line = text(line);
    let (version, rest) = line.trim().split_once(|c: char| c.is_ascii_whitespace())?;
    let minor = match version.to_ascii_uppercase().strip_prefix("HTTP/1")? {
        "" => 0,
        minor => minor.strip_prefix('.')?.parse().ok()?,
    };
    let status = rest.trim_start().split(|c: char| c.is_ascii_whitespace()).next()?;
    let status = Some(status).filter(|status| status.len() == 3)?.parse().ok()?;
    (100..=999).contains(&status).then_some((minor, status))
}

/// Where the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// In chunks that say their length.
    Chunked,
    /// Where the connection ends.
    Close,
}

impl Framing {
    /// Returns how the body of `head` ends.
    ///
    /// # Errors
    /// The head contradicts itself, or names a coding that this client does not know; as a clause.
    pub(crate) fn of(head: &Head) -> Result<Self, String> {
        if head.status < 200 || matches!(head.status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        let mut codings = head.fields.tokens("transfer-encoding");
        codings.retain(|coding| coding != "identity");
        match codings.as_slice() {
            [] => {}
            // As RFC 9112 section 6.3 says, a Content-Length beside it does not count.
            codings if codings.iter().all(|coding| coding == "chunked") => return Ok(Framing::Chunked),
            codings => return Err(format!("transfer encoding {:?} is not supported", codings.join(", "))),
        }
        let mut lengths = Vec::new();
        for value in head.fields.all("content-length") {
            lengths.extend(text(value).split(',').filter_map(content_length));
        }
        lengths.dedup();
        match lengths.as_slice() {
            [] => Ok(Framing::Close),
            [length] => Ok(Framing::Length(*length)),
            _ => Err("the answer has several Content-Lengths, which differ".to_owned()),
        }
    }
}

/// A length, with a plus sign or not. What is not a number counts as no length: the body then ends with the connection.
fn content_length(text: &str) -> Option<u64> {
    let digits = text.trim();
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// Reads the length in the first line of a chunk; what follows it is the chunk's extension. `None` where it has none.
pub(crate) fn chunk_length(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| matches!(byte, b';' | b' ' | b'\t' | b'\r')).find(|part| !part.is_empty());
    let digits = std::str::from_utf8(digits?).ok()?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Head {
        let lines: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
        Head::parse(&lines).unwrap_or_else(|| panic!("{text:?} is not read"))
    }

    #[test]
    fn status_lines_of_every_server_are_read() {
        for (line, status, minor) in [
            ("HTTP/1.1 200 OK", 200, 1),
            ("HTTP/1.1 200", 200, 1),
            ("HTTP/1.1 200 ", 200, 1),
            ("HTTP/1.0 404 Not Found", 404, 0),
            ("http/1.1  206  Partial", 206, 1),
            ("HTTP/1.9 200 OK", 200, 9),
            ("HTTP/1.1\t200\tOK", 200, 1),
        ] {
            let head = head(line);
            assert_eq!((head.status, head.minor), (status, minor), "{line:?}");
        }
        for line in [
            "HTTP/2 200",
            "HTTP/1.1",
            "HTTP/1.1 20",
            "HTTP/1.1 2000",
            "HTTP/1.1 OK",
            "",
            "<html>",
            "ICY 200 OK",
        ] {
            assert_eq!(Head::parse(&[line.as_bytes().to_vec()]), None, "{line:?}");
        }
        assert_eq!(Head::parse(&[]), None);
    }

    #[test]
    fn lines_that_are_no_fields_are_left_out_and_the_others_are_read() {
        let head = head(
            "HTTP/1.1 200 OK\nServer : Apache\nPHP Warning:  in Unknown on line 0\n: empty\njunk\n  folded junk\n\
             X-Long: one\n two\n\tthree\nContent-Length:5\nEtag:\t\"a\"  \nX-Name: caf\u{e9}\n",
        );
        let fields = &head.fields;
        assert_eq!(fields.text("server").as_deref(), Some("Apache"));
        assert_eq!(fields.text("x-long").as_deref(), Some("one two three"));
        assert_eq!(fields.text("content-length").as_deref(), Some("5"));
        assert_eq!(fields.text("etag").as_deref(), Some("\"a\""));
        assert_eq!(fields.text("x-name").as_deref(), Some("caf\u{e9}"));
        assert_eq!(fields.0.len(), 5, "{fields:?}");
        assert!(!head.keeps_connection());
        let latin = [b"HTTP/1.1 200 OK".to_vec(), b"X: caf\xe9".to_vec()];
        assert_eq!(Head::parse(&latin).unwrap().fields.text("x").as_deref(), Some("caf\u{e9}"));
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        for (fields, framing) in [
            ("Content-Length: 5", Ok(Framing::Length(5))),
            ("Content-Length: +5", Ok(Framing::Length(5))),
            ("Content-Length: 5\nContent-Length: 5", Ok(Framing::Length(5))),
            ("Content-Length: 5, 5", Ok(Framing::Length(5))),
            ("Content-Length: 5\nContent-Length: 6", Err(())),
            ("Content-Length: -1", Ok(Framing::Close)),
            ("Content-Length: five", Ok(Framing::Close)),
            ("Content-Length:", Ok(Framing::Close)),
            ("Content-Length: 99999999999999999999999", Ok(Framing::Close)),
            ("", Ok(Framing::Close)),
            ("Transfer-Encoding: Chunked", Ok(Framing::Chunked)),
            ("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", Ok(Framing::Chunked)),
            ("Transfer-Encoding: identity, chunked\nContent-Length: 7", Ok(Framing::Chunked)),
            ("Transfer-Encoding: identity\nContent-Length: 7", Ok(Framing::Length(7))),
            ("Transfer-Encoding: gzip, chunked", Err(())),
        ] {
            assert_eq!(
                Framing::of(&head(&format!("HTTP/1.1 200 OK\n{fields}"))).map_err(drop),
                framing,
                "{fields:?}"
            );
        }
        assert_eq!(Framing::of(&head("HTTP/1.1 304 x\nContent-Length: 9")), Ok(Framing::Length(0)));
    }

    #[test]
    fn chunk_lengths_are_read_with_and_without_extensions() {
        for (line, length) in [
            ("1000", Some(0x1000)),
            ("aF;name=value", Some(0xaf)),
            ("400   ", Some(0x400)),
            (" 0 ; x", Some(0)),
            ("ffffffffffffffff", Some(u64::MAX)),
            ("10000000000000000", None),
            ("", None),
            (";x", None),
            ("0x10", None),
            ("+5", None),
            ("-5", None),
        ] {
            assert_eq!(chunk_length(line.as_bytes()), length, "{line:?}");
        }
    }

    #[test]
    fn a_connection_is_kept_only_where_both_sides_may() {
        for (text, keeps) in [
            ("HTTP/1.1 200 OK", true),
            ("HTTP/1.1 200 OK\nConnection: Close", false),
            ("HTTP/1.1 200 OK\nConnection: upgrade, close", false),
            ("HTTP/1.0 200 OK", false),
            ("HTTP/1.0 200 OK\nConnection: Keep-Alive", true),
        ] {
            assert_eq!(head(text).keeps_connection(), keeps, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_head_panics(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut all = vec![b"HTTP/1.1 200 OK".to_vec()];
            all.extend(lines.iter().cloned());
            if let Some(head) = Head::parse(&all) {
                let _ = Framing::of(&head);
            }
            let _ = Head::parse(&lines);
            for line in &lines {
                let _ = chunk_length(line);
            }
        }
    }
}
