//! The types of options: how each is read from text and shown to a person.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use disk::AllowList;
use imaging::{PublicKey, TrustedKeys};
use serde_json::Value;
use tls::Version as TlsVersion;
use wire::{Microversion, Secret};

use crate::secrets::hide_by_place;

/// A type that an option can have.
pub(super) trait OptionValue: Sized {
    /// What the text should be, for error messages.
    const EXPECTED: &'static str;
    /// The same for one who gave this text.
    fn expected(text: &str) -> &'static str {
        let _ = text;
        Self::EXPECTED
    }
    /// Reads trimmed text.
    fn parse(text: &str) -> Option<Self>;
    /// Reads JSON: a text, or a number or truth value that the text would say.
    fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text.trim()),
            Value::Bool(_) | Value::Number(_) => Self::parse(&value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
    /// The value for a person; secrets are hidden.
    fn show(&self) -> String;
}

/// A comma-separated list of `http(s)://` URLs, without trailing slashes; or the word `mdns`, until that is resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Urls(pub Vec<String>);

/// The word that stands for "look for it on the local network".
pub(super) const MDNS: &str = "mdns";

impl Urls {
    /// Whether the URL is still to be looked for on the local network.
    pub fn is_mdns(&self) -> bool {
        self.0 == [MDNS]
    }
}

impl std::ops::Deref for Urls {
    type Target = Vec<String>;

    fn deref(&self) -> &Vec<String> {
        &self.0
    }
}

impl PartialEq<Vec<String>> for Urls {
    fn eq(&self, other: &Vec<String>) -> bool {
        self.0 == *other
    }
}

impl OptionValue for Urls {
    const EXPECTED: &'static str = "a comma-separated list of http:// or https:// URLs, or `mdns`";
    fn parse(text: &str) -> Option<Self> {
        if text == MDNS {
            return Some(Self(vec![MDNS.into()]));
        }
        let parts =
            text.split(',').map(|part| part.trim().trim_end_matches('/')).filter(|part| !part.is_empty());
        let urls: Vec<_> = parts.map(str::to_owned).collect();
        urls.iter().all(|url| is_http_url(url)).then_some(Self(urls))
    }
    fn expected(text: &str) -> &'static str {
        if text.split(',').any(has_bare_address) { BRACKETS } else { Self::EXPECTED }
    }
    fn show(&self) -> String {
        self.0.join(",")
    }
}

/// What is wrong with a URL such as `http://2001:db8::1:6385`: where does the address end?
const BRACKETS: &str = "a URL; put the address in brackets, as in http://[2001:db8::1]:6385";

fn is_http_url(url: &str) -> bool {
    let is_http = url.starts_with("http://") || url.starts_with("https://");
    is_http && reqwest::Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(|host| !host.is_empty()))
}

/// Whether an IPv6 address stands in the place of a URL's host without brackets.
fn has_bare_address(url: &str) -> bool {
    let url = url.trim();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    !host.starts_with('[') && host.matches(':').count() > 1
}

/// URLs separated by commas to which inspection data are sent, or the word `mdns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackUrls(pub String);

impl std::ops::Deref for CallbackUrls {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl OptionValue for CallbackUrls {
    const EXPECTED: &'static str = Urls::EXPECTED;
    fn parse(text: &str) -> Option<Self> {
        (!text.split(',').any(has_bare_address)).then(|| Self(text.into()))
    }
    fn expected(text: &str) -> &'static str {
        Urls::expected(text)
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The URL of an HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    /// The URL, which may hold a password.
    pub fn url(&self) -> &str {
        &self.0
    }

    /// The same for a person, without user and password.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&hide_by_place(self.0.as_bytes())).into_owned()
    }
}

impl std::fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl OptionValue for ProxyUrl {
    const EXPECTED: &'static str = "the http:// or https:// URL of a proxy";
    fn parse(text: &str) -> Option<Self> {
        is_http_url(text).then(|| Self(text.into()))
    }
    fn expected(text: &str) -> &'static str {
        if has_bare_address(text) { BRACKETS } else { Self::EXPECTED }
    }
    fn show(&self) -> String {
        self.shown()
    }
}

/// The disks that may be written; none means that there is no list. An empty text is an error: a list that was lost on the
/// way must not mean "all disks".
#[derive(Clone, Debug, Default)]
pub struct Disks(pub Option<AllowList>);

impl OptionValue for Disks {
    const EXPECTED: &'static str = "a list of disks such as `sda,serial:ABC*,by-path:pci-0000:00*`";
    fn parse(text: &str) -> Option<Self> {
        AllowList::parse(text).ok().map(|list| Self(Some(list)))
    }
    fn show(&self) -> String {
        self.0.as_ref().map_or_else(|| "-".into(), ToString::to_string)
    }
}

/// Keys whose signatures of images count; the words that stand in the second line of minisign's `.pub` files.
#[derive(Clone, Debug, Default)]
pub struct ImageKeys(pub TrustedKeys);

impl OptionValue for ImageKeys {
    const EXPECTED: &'static str =
        "a comma-separated list of minisign's public keys, each 56 characters that begin with RW";
    fn parse(text: &str) -> Option<Self> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let keys: Vec<PublicKey> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
        // An empty list is an error: a key that was lost on the way must not mean that none is asked for.
        (!keys.is_empty()).then_some(Self(TrustedKeys(keys)))
    }
    fn show(&self) -> String {
        match self.0.0.as_slice() {
            [] => "-".into(),
            keys => keys.iter().map(|key| key.id().to_string()).collect::<Vec<_>>().join(","),
        }
    }
}

/// The elliptic curve of the generated certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

/// Where metrics go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsBackend {
    /// Nowhere.
    Noop,
    /// To a statsd server.
    Statsd,
    /// Kept, for whoever asks.
    Collector,
}

/// The program that runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerRunner {
    /// `podman`.
    Podman,
    /// `docker`.
    Docker,
}

impl ContainerRunner {
    /// The name of the program.
    pub fn program(self) -> &'static str {
        match self {
            ContainerRunner::Podman => "podman",
            ContainerRunner::Docker => "docker",
        }
    }
}

/// Seconds that may have a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FractionalSeconds(pub Duration);

impl std::ops::Deref for FractionalSeconds {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl OptionValue for FractionalSeconds {
    const EXPECTED: &'static str = "a number of seconds";
    fn parse(text: &str) -> Option<Self> {
        Duration::try_from_secs_f64(text.parse().ok()?).ok().map(Self)
    }
    fn show(&self) -> String {
        self.0.as_secs_f64().to_string()
    }
}

/// A limit of at least one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimit(pub Duration);

impl std::ops::Deref for TimeLimit {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl OptionValue for TimeLimit {
    const EXPECTED: &'static str = "a whole number of seconds from 1 on";
    fn parse(text: &str) -> Option<Self> {
        Duration::parse(text).filter(|limit| !limit.is_zero()).map(Self)
    }
    fn show(&self) -> String {
        self.0.show()
    }
}

/// The priority of a step: 0 to 99.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority(pub u32);

impl OptionValue for Priority {
    const EXPECTED: &'static str = "a number from 0 to 99";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number| *number < 100).map(Self)
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// How the conductor reaches the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// In the clear.
    Http,
    /// With TLS.
    Https,
}

impl Protocol {
    /// The URL scheme.
    pub fn scheme(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Https => "https",
        }
    }
}

macro_rules! choices {
    ($type:ty, $expected:literal, $($text:literal => $value:path),+) => {
        impl OptionValue for $type {
            const EXPECTED: &'static str = $expected;
            fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some($value),)+
                    _ => None,
                }
            }
            fn show(&self) -> String {
                match self {
                    $($value => $text.into(),)+
                }
            }
        }
    };
}

choices!(TlsVersion, "`1.2` or `1.3`", "1.2" => TlsVersion::V1_2, "1.3" => TlsVersion::V1_3);
choices!(
    Curve, "`p256`, `p384` or `p521`",
    "p256" => Curve::P256, "p384" => Curve::P384, "p521" => Curve::P521
);
choices!(
    MetricsBackend, "`noop`, `statsd` or `collector`",
    "noop" => MetricsBackend::Noop, "statsd" => MetricsBackend::Statsd, "collector" => MetricsBackend::Collector
);
choices!(
    ContainerRunner, "`podman` or `docker`",
    "podman" => ContainerRunner::Podman, "docker" => ContainerRunner::Docker
);
choices!(Protocol, "`http` or `https`", "http" => Protocol::Http, "https" => Protocol::Https);

macro_rules! numbers {
    ($($type:ty => $expected:literal),+) => { $(
        impl OptionValue for $type {
            const EXPECTED: &'static str = $expected;
            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+ };
}

numbers!(u16 => "a port number", u32 => "a number", NonZeroU32 => "a number from 1 on");

impl OptionValue for Duration {
    const EXPECTED: &'static str = "a whole number of seconds";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Duration::from_secs)
    }
    fn show(&self) -> String {
        self.as_secs().to_string()
    }
}

impl OptionValue for bool {
    const EXPECTED: &'static str = "true or false";
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl OptionValue for String {
    const EXPECTED: &'static str = "a text";
    fn parse(text: &str) -> Option<Self> {
        Some(text.into())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl OptionValue for PathBuf {
    const EXPECTED: &'static str = "a path";
    fn parse(text: &str) -> Option<Self> {
        Some(text.into())
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl OptionValue for Secret {
    const EXPECTED: &'static str = "a text";
    fn parse(text: &str) -> Option<Self> {
        Some(Secret::new(text))
    }
    fn show(&self) -> String {
        "(hidden)".into()
    }
}

impl OptionValue for tls::CipherSuites {
    const EXPECTED: &'static str = "an OpenSSL list that holds at least one suite of TLS 1.2 with ECDHE and AES-GCM or ChaCha20, \
                                    such as ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.names().collect::<Vec<_>>().join(":")
    }
}

impl OptionValue for Microversion {
    const EXPECTED: &'static str = "an API version such as 1.68";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl OptionValue for Vec<String> {
    const EXPECTED: &'static str = "a comma-separated list";
    fn parse(text: &str) -> Option<Self> {
        Some(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }
    fn from_json(value: &Value) -> Option<Self> {
        match value {
            // Not through text: an item may hold a comma.
            Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            Value::String(text) => Self::parse(text.trim()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        }
    }
    fn show(&self) -> String {
        self.join(",")
    }
}

/// An empty text unsets an optional value.
impl<T: OptionValue> OptionValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    fn expected(text: &str) -> &'static str {
        T::expected(text)
    }
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { T::parse(text).map(Some) }
    }
    fn from_json(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some(text) => Self::parse(text.trim()),
            None => T::from_json(value).map(Some),
        }
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "-".into(), OptionValue::show)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_without_brackets_is_refused_with_what_to_do() {
        for bare in [
            "http://2001:db8::139:6385",
            "https://2001:db8::139",
            "http://::1:6385/",
            "http://u:p@fe80::1:6385/v1",
            "http://h:6385,http://2001:db8::1",
            "http://::ffff:192.0.2.1",
            "http://fd00::1%25eth0:6385",
            "2001:db8::139:6385",
        ] {
            assert_eq!(Urls::parse(bare), None, "{bare}");
            assert!(Urls::expected(bare).contains("put the address in brackets"), "{bare}");
            assert!(<Option<CallbackUrls>>::expected(bare).contains("put the address in brackets"), "{bare}");
        }
        for other in ["http://", "ftp://h", "http://h:port", "http://[2001:db8::1"] {
            assert_eq!(Urls::parse(other), None, "{other}");
            assert!(!Urls::expected(other).contains("brackets"), "{other}");
        }
    }

    #[test]
    fn values_read_as_oslo_config_reads_them() {
        for yes in ["1", "True", "yes", "ON"] {
            assert_eq!(bool::parse(yes), Some(true), "{yes}");
        }
        assert_eq!(bool::parse("2"), None);
        assert_eq!(Urls::parse("http://a:1/, https://b//").unwrap().0, ["http://a:1", "https://b"]);
        assert!(Urls::parse("mdns").unwrap().is_mdns());
        assert_eq!(Urls::parse("http://a,mdns"), None);
        assert_eq!(Urls::parse("http://"), None);
        assert_eq!(Urls::parse("http://h:99999"), None);
        assert_eq!(Urls::parse("http://[2001:db8::139]:6385").unwrap().0, ["http://[2001:db8::139]:6385"]);
        assert_eq!(Vec::<String>::parse("raw, qcow2,,").unwrap(), ["raw", "qcow2"]);
        assert_eq!(<Option<u16>>::parse(""), Some(None));
        assert_eq!(NonZeroU32::parse("0"), None);
        assert_eq!(TlsVersion::parse("1.1"), None);
        assert_eq!(Duration::parse("-1"), None);
    }
}
