//! The oldest version of TLS that is spoken.

use rustls::SupportedProtocolVersion;

/// The oldest TLS version to speak; older ones than 1.2 do not exist here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2 and 1.3.
    #[default]
    V1_2,
    /// TLS 1.3 only.
    V1_3,
}

/// The versions that rustls may speak.
pub fn versions(least: Version) -> &'static [&'static SupportedProtocolVersion] {
    const ONLY_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    match least {
        Version::V1_2 => rustls::ALL_VERSIONS,
        Version::V1_3 => ONLY_1_3,
    }
}
