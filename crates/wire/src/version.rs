//! Ironic API microversions.

use std::fmt;
use std::str::FromStr;

/// An API version such as 1.68, compared as numbers (1.9 < 1.62).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Microversion {
    /// The number before the dot.
    pub major: u16,
    /// The number after it.
    pub minor: u16,
}

impl Microversion {
    /// Version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// The request and reply header that carries the version.
    pub const HEADER: &str = "X-OpenStack-Ironic-API-Version";
    /// Used when detection fails.
    pub const FALLBACK: Self = Self::new(1, 31);
    /// First version with lookup and heartbeat.
    pub const RAMDISK: Self = Self::new(1, 22);
    /// First version whose heartbeat takes `agent_version`.
    pub const AGENT_VERSION: Self = Self::new(1, 36);
    /// First version with agent tokens, and the newest that lookup asks for.
    pub const AGENT_TOKEN: Self = Self::new(1, 62);
    /// First version whose heartbeat takes `agent_verify_ca`, and the newest that heartbeats ask for.
    pub const AGENT_VERIFY_CA: Self = Self::new(1, 68);
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The text is not `x.y` with two small numbers.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidMicroversion;

impl fmt::Display for InvalidMicroversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an API version is two numbers with a dot between them, such as 1.68")
    }
}

impl std::error::Error for InvalidMicroversion {}

impl FromStr for Microversion {
    type Err = InvalidMicroversion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, minor) = text.trim().split_once('.').ok_or(InvalidMicroversion)?;
        let number = |part: &str| part.parse().map_err(|_| InvalidMicroversion);
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let parsed: Microversion = "1.115".parse().unwrap();
        assert!(parsed > Microversion::AGENT_VERIFY_CA);
        assert!(Microversion::new(1, 9) < Microversion::AGENT_TOKEN);
        assert_eq!(parsed.to_string(), "1.115");
        for bad in ["", "1", "1.", "a.b", "1.2.3", "1.70000"] {
            assert_eq!(bad.parse::<Microversion>(), Err(InvalidMicroversion), "{bad}");
        }
    }
}
