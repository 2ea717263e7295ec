//! What the text of one hint asks for: its operator and the value behind it. Which of a disk's values it is held against is the
//! caller's business. Source: data plane page, 2.3.

/// What a value is held against.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    /// Bytes of the disk against a number of GiB.
    Size(Compare, u64),
    /// From, whether from is included, to, whether to is included; in GiB.
    SizeRange(u64, bool, u64, bool),
    Rotational(bool),
    /// The value, lower case, against this text.
    Text(Compare, String),
    /// Every one of these is a part of the value.
    Contains(Vec<String>),
    AnyOf(Vec<String>),
    /// What Ironic accepts and never matches.
    Never,
}

/// How a value stands to the wanted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Compare {
    pub(super) fn holds<T: PartialOrd + ?Sized>(self, a: &T, b: &T) -> bool {
        match self {
            Self::Equal => a == b,
            Self::NotEqual => a != b,
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
        }
    }
}

/// Operators, longest first, so that `<=` is not read as `<`.
const SIZE_OPERATORS: [(&str, Compare); 7] = [
    ("==", Compare::Equal),
    ("!=", Compare::NotEqual),
    ("<=", Compare::LessOrEqual),
    (">=", Compare::GreaterOrEqual),
    ("=", Compare::GreaterOrEqual),
    ("<", Compare::Less),
    (">", Compare::Greater),
];
const TEXT_OPERATORS: [(&str, Compare); 6] = [
    ("s==", Compare::Equal),
    ("s!=", Compare::NotEqual),
    ("s<=", Compare::LessOrEqual),
    ("s>=", Compare::GreaterOrEqual),
    ("s<", Compare::Less),
    ("s>", Compare::Greater),
];

/// The test for a size, in GiB.
pub(super) fn parse_size(text: &str) -> Result<Test, String> {
    let text = text.to_ascii_lowercase();
    if let Some(range) = text.strip_prefix("<range-in>") {
        return parse_range(range);
    }
    if text.starts_with("<or>") {
        for choice in text.split("<or>").skip(1) {
            positive_gib(choice)?;
        }
        return Ok(Test::Never);
    }
    if text.starts_with("<in>") || text.starts_with("<all-in>") {
        return Err("compares text, and a size is a number".into());
    }
    for (operator, compare) in SIZE_OPERATORS {
        if let Some(rest) = text.strip_prefix(operator) {
            return Ok(Test::Size(compare, positive_gib(rest)?));
        }
    }
    Ok(Test::Size(Compare::Equal, positive_gib(&text)?))
}

fn positive_gib(text: &str) -> Result<u64, String> {
    match text.trim().parse::<u64>() {
        Ok(gib) if gib > 0 => Ok(gib),
        _ => Err("a size is a whole number of GiB greater than 0".into()),
    }
}

/// `[ 10 20 ]`; a round bracket leaves the bound itself out.
fn parse_range(text: &str) -> Result<Test, String> {
    let fail =
        || "a range reads `<range-in> [ 10 20 ]` in GiB, with `(` or `)` to leave a bound out".to_owned();
    let text = text.trim();
    let (from_included, rest) = match (text.strip_prefix('['), text.strip_prefix('(')) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(fail()),
    };
    let (to_included, rest) = match (rest.strip_suffix(']'), rest.strip_suffix(')')) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(fail()),
    };
    let mut bounds = rest.split_whitespace().map(str::parse::<u64>);
    match (bounds.next(), bounds.next(), bounds.next()) {
        (Some(Ok(from)), Some(Ok(to)), None) if from <= to => {
            Ok(Test::SizeRange(from, from_included, to, to_included))
        }
        _ => Err(fail()),
    }
}

/// The test for any text.
pub(super) fn parse_text(text: &str) -> Result<Test, String> {
    let text = text.trim().to_lowercase();
    let value = |text: &str| match text.trim() {
        "" => Err("has no value".to_owned()),
        text => Ok(text.to_owned()),
    };
    if text.starts_with("<in>") {
        return Ok(Test::Contains(text.split("<in>").skip(1).map(value).collect::<Result<_, _>>()?));
    }
    if text.starts_with("<or>") {
        return Ok(Test::AnyOf(text.split("<or>").skip(1).map(value).collect::<Result<_, _>>()?));
    }
    if text.starts_with("<all-in>") || text.starts_with("<range-in>") {
        return Err("this operator does not work on text; use `<in>` or `<or>`".into());
    }
    for (operator, compare) in TEXT_OPERATORS {
        if let Some(rest) = text.strip_prefix(operator) {
            return Ok(Test::Text(compare, value(rest)?));
        }
    }
    if SIZE_OPERATORS.iter().any(|(operator, _)| text.starts_with(operator)) {
        return Err(
            "this operator compares numbers; text is compared with `s==`, `s!=`, `<in>` or `<or>`".into()
        );
    }
    Ok(Test::Text(Compare::Equal, value(&text)?))
}

/// The many words for yes and no that Ironic knows.
pub(super) fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Ok(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

/// Text as Ironic compares it for order: letters, digits and `_.-~/` stay, every other byte becomes `%XX`.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
