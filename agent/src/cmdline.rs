//! The kernel command line: `key=value` words, the last one wins. Read once, by the start-up story.
//!
//! Source: ironic-python-agent `utils.py` (agent protocol page, 5.3): words are split at white space, only those with `=`
//! count, there is no quoting and no decoding. Bare words are kept apart for questions such as "is `quiet` set".

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
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => {
                    parsed.values.insert(key.into(), value.into());
                    parsed.repeated.push((key.into(), value.into()));
                }
                None => parsed.flags.push(word.into()),
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

    /// Every key with its last value, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
