//! The kernel command line: `key=value` words, the last one wins. This is its only reader.
//!
//! Words are told apart as the kernel does (`next_arg` in lib/cmdline.c): at white space outside double quotes. Quotes around a
//! value, or around the whole word, are not part of it: `key="a b"` and `"key=a b"` are the same. A quote elsewhere holds white
//! space together and stays. `--` ends the kernel's own words; what follows it is for init, which this program is, so it counts as
//! well. Nothing is decoded. Source for the rest: ironic-python-agent `utils.py` (agent protocol page, 5.3).
//! Bare words are kept apart for questions such as "is `quiet` set".

use std::collections::{BTreeMap, BTreeSet};

/// Who gave a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The boot loader.
    Kernel,
    /// The parameter file of virtual media.
    VirtualMedia,
}

/// A parsed command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cmdline {
    values: BTreeMap<String, String>,
    flags: Vec<String>,
    repeated: Vec<(String, String)>,
    from_media: BTreeSet<String>,
}

impl Cmdline {
    /// Parses the text of `/proc/cmdline`, or of a parameter file (one word a line).
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for word in words(text) {
            // The opening quote of the whole word goes, and with it the one at its end.
            let (whole, is_quoted) = match word.strip_prefix('"') {
                Some(rest) => (rest.strip_suffix('"').unwrap_or(rest), true),
                None => (word, false),
            };
            match whole.split_once('=') {
                // A word that begins with `=` has no key, and is a bare word to the kernel.
                Some((key, value)) if !key.is_empty() => {
                    let value = match value.strip_prefix('"') {
                        Some(inner) if is_quoted => inner, // the kernel takes one quote from the end, not two
                        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
                        None => value,
                    };
                    parsed.values.insert(key.into(), value.into());
                    parsed.repeated.push((key.into(), value.into()));
                }
                Some(_) | None => parsed.flags.push(whole.into()),
            }
        }
        parsed
    }

    /// Lets the values of a parameter file go before those that are there.
    pub fn override_with(&mut self, parameters: &Self) {
        for (key, value) in &parameters.values {
            self.values.insert(key.clone(), value.clone());
            self.repeated.retain(|(old, _)| old != key);
            self.from_media.insert(key.clone());
        }
        self.repeated.extend(parameters.repeated.iter().cloned());
    }

    /// Who gave a key's value.
    pub fn source(&self, key: &str) -> Source {
        if self.from_media.contains(key) { Source::VirtualMedia } else { Source::Kernel }
    }

    /// The last value of a key. An empty value counts as given.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Every value of a key that may stand several times (`console`, `ip`, `nameserver`), in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.repeated.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Whether a bare word is there.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// The bare words, in order.
    pub fn flags(&self) -> impl Iterator<Item = &str> {
        self.flags.iter().map(String::as_str)
    }

    /// Every key with its last value, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// The words of a text: parted by white space outside double quotes, with all their quotes. A quote that is not closed reaches
/// to the end.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    let is_gap = move |c: char| {
        inside ^= c == '"';
        !inside && c.is_whitespace()
    };
    text.split(is_gap).filter(|word| !word.is_empty() && *word != "--")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_are_read_as_the_kernel_reads_them() {
        for (text, key, value) in [
            (r#"ipa-x="a b""#, "ipa-x", "a b"),
            (r#""ipa-x=a b""#, "ipa-x", "a b"),
            (r#"ipa-x="""#, "ipa-x", ""),
            (r#"ipa-x="a=b c=d" y=1"#, "ipa-x", "a=b c=d"),
            (r#"ipa-x=a" "b"#, "ipa-x", r#"a" "b"#),
            (r#"ipa-x="a b"#, "ipa-x", "a b"),
            (r#""ipa-x=a b"#, "ipa-x", "a b"),
            (r#"q "ipa-x=a b" z"#, "ipa-x", "a b"),
            ("ipa-x=a\\ b", "ipa-x", "a\\"),
            (r#"ipa-x='a b'"#, "ipa-x", "'a"),
            (r#"root=/dev/sda -- ipa-x=1"#, "ipa-x", "1"),
        ] {
            assert_eq!(Cmdline::parse(text).get(key), Some(value), "{text}");
        }
        let flags = Cmdline::parse(r#"quiet "two words" -- =x"#);
        assert_eq!(flags.flags().collect::<Vec<_>>(), ["quiet", "two words", "=x"]);
        assert_eq!(Cmdline::parse(r#"ip="10.0.0.1:::24" ip="eth0:dhcp""#).all("ip").count(), 2);
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_words_without_quotes_stay_as_they_are(text in ".{0,80}", value in "[a-z0-9:,=/.-]{0,20}") {
            let _ = Cmdline::parse(&text);
            let line = format!("a key={value} b");
            let parsed = Cmdline::parse(&line);
            prop_assert_eq!(parsed.get("key"), Some(value.as_str()));
        }
    }

    #[test]
    fn last_value_wins_and_splitting_is_at_the_first_equals_sign() {
        let cmdline =
            Cmdline::parse("quiet ip=dhcp a=1 url=http://h/?x=y a=2 console=tty0 console=ttyS0,115200 e=\n");
        assert_eq!(cmdline.get("a"), Some("2"));
        assert_eq!(cmdline.get("url"), Some("http://h/?x=y"));
        assert_eq!(cmdline.get("e"), Some(""));
        assert_eq!(cmdline.get("quiet"), None);
        assert!(cmdline.has_flag("quiet"));
        assert_eq!(cmdline.all("console").collect::<Vec<_>>(), ["tty0", "ttyS0,115200"]);
    }

    #[test]
    fn a_parameter_file_replaces_values_whole_and_leaves_the_rest() {
        let mut cmdline = Cmdline::parse("quiet a=1 ip=eth0:dhcp ip=eth1:dhcp b=2");
        cmdline.override_with(&Cmdline::parse("ip=off\na=9\nverbose\n"));
        assert_eq!((cmdline.get("a"), cmdline.get("b")), (Some("9"), Some("2")));
        assert_eq!(cmdline.all("ip").collect::<Vec<_>>(), ["off"]);
        assert_eq!((cmdline.source("a"), cmdline.source("b")), (Source::VirtualMedia, Source::Kernel));
        assert!(cmdline.has_flag("quiet") && !cmdline.has_flag("verbose"));
    }
}
