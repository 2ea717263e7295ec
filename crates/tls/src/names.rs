//! Names in certificates: which hosts one is for (RFC 6125 as OpenSSL applies it), when two distinguished names are the same, and
//! which names an authority may sign for (RFC 5280, 4.2.1.10).

use std::net::IpAddr;

use rustls::pki_types::ServerName;
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::{GeneralName, GeneralSubtree, NameConstraints};
use x509_parser::x509::X509Name;

/// A distinguished name in a form in which equal names are equal: text without regard to case, to the kind of string, and to
/// repeated blanks.
pub(crate) type Distinguished = Vec<Vec<(Vec<u8>, Vec<u8>)>>;

/// The comparable form of a name.
pub(crate) fn distinguished(name: &X509Name<'_>) -> Distinguished {
    let attribute = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        let value = attribute.attr_value();
        let text = match value.header.tag() {
            Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::T61String | Tag::VisibleString => {
                Some(String::from_utf8_lossy(value.data).into_owned())
            }
            Tag::BmpString => {
                let units = value.data.chunks_exact(2).map(|pair| {
                    u16::from_be_bytes([
                        pair.first().copied().unwrap_or(0),
                        pair.last().copied().unwrap_or(0),
                    ])
                });
                Some(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
            }
            _ => None,
        };
        let value = match text {
            Some(text) => {
                text.to_ascii_lowercase().split_ascii_whitespace().collect::<Vec<_>>().join(" ").into_bytes()
            }
            None => [&[0xff], value.data].concat(), // never the same as a text
        };
        (attribute.attr_type().as_bytes().to_vec(), value)
    };
    let relative = |relative: &x509_parser::x509::RelativeDistinguishedName<'_>| {
        let mut attributes: Vec<_> = relative.iter().map(attribute).collect();
        attributes.sort();
        attributes
    };
    name.iter_rdn().map(relative).collect()
}

/// Whether a certificate with these alternative names is for the host. The common name does not count.
pub(crate) fn is_for(names: &[GeneralName<'_>], host: &ServerName<'_>) -> bool {
    match host {
        ServerName::DnsName(host) => names.iter().any(|name| match name {
            GeneralName::DNSName(pattern) => matches(pattern, host.as_ref()),
            _ => false, // the library's enum; other names say nothing about a host
        }),
        ServerName::IpAddress(address) => {
            let address = IpAddr::from(*address);
            names.iter().any(|name| match name {
                GeneralName::IPAddress(octets) => address_of(octets) == Some(address),
                _ => false, // as above
            })
        }
        _ => false, // rustls' enum, open to new kinds
    }
}

/// Whether a pattern such as `*.example.com` stands for a host. The star is one whole label, the first, and two more must
/// follow.
fn matches(pattern: &str, host: &str) -> bool {
    let (pattern, host) =
        (pattern.strip_suffix('.').unwrap_or(pattern), host.strip_suffix('.').unwrap_or(host));
    if host.is_empty() {
        return false;
    }
    match pattern.strip_prefix("*.") {
        Some(parent) => {
            parent.contains('.')
                && !parent.contains('*')
                && host
                    .split_once('.')
                    .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
        }
        None => !pattern.contains('*') && pattern.eq_ignore_ascii_case(host),
    }
}

fn address_of(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// Whether an authority with these constraints may sign for a certificate of this subject and these alternative names.
pub(crate) fn may_sign(
    constraints: &NameConstraints<'_>,
    subject: &X509Name<'_>,
    names: &[GeneralName<'_>],
) -> bool {
    let subject = GeneralName::DirectoryName(subject.clone());
    let is_empty = matches!(&subject, GeneralName::DirectoryName(name) if name.iter_rdn().next().is_none());
    let own = (!is_empty).then_some(&subject);
    names.iter().chain(own).all(|name| {
        let of_kind = |trees: &Option<Vec<GeneralSubtree<'_>>>| -> Vec<bool> {
            trees.iter().flatten().filter_map(|tree| is_within(name, &tree.base)).collect()
        };
        let permitted = of_kind(&constraints.permitted_subtrees);
        let excluded = of_kind(&constraints.excluded_subtrees);
        let unknown = is_unknown_kind(name, constraints);
        !unknown && !excluded.contains(&true) && (permitted.is_empty() || permitted.contains(&true))
    })
}

/// Whether a name lies within a subtree; none when they are of different kinds.
fn is_within(name: &GeneralName<'_>, base: &GeneralName<'_>) -> Option<bool> {
    match (name, base) {
        (GeneralName::DNSName(name), GeneralName::DNSName(base)) => Some(is_below(name, base)),
        (GeneralName::IPAddress(address), GeneralName::IPAddress(base)) => {
            let (network, mask) = base.split_at_checked(address.len()).unwrap_or_default();
            let inside = mask.len() == address.len()
                && address.iter().zip(network).zip(mask).all(|((a, n), m)| a & m == n & m);
            Some(inside)
        }
        (GeneralName::DirectoryName(name), GeneralName::DirectoryName(base)) => {
            Some(distinguished(name).starts_with(&distinguished(base)))
        }
        _ => None,
    }
}

/// Constraints of a kind that is not understood here, and a name of that kind: not allowed.
fn is_unknown_kind(name: &GeneralName<'_>, constraints: &NameConstraints<'_>) -> bool {
    let is_known =
        matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_) | GeneralName::DirectoryName(_));
    let trees = constraints.permitted_subtrees.iter().chain(&constraints.excluded_subtrees).flatten();
    !is_known
        && trees.into_iter().any(|tree| std::mem::discriminant(&tree.base) == std::mem::discriminant(name))
}

fn is_below(name: &str, base: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let base = base.strip_suffix('.').unwrap_or(base).to_ascii_lowercase();
    match name.strip_suffix(&base) {
        _ if base.is_empty() => true,
        Some("") => true,
        Some(rest) => base.starts_with('.') || rest.ends_with('.'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_the_first_label_and_nothing_else() {
        for (pattern, host, wanted) in [
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "A.EXAMPLE.com.", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.com", "example.com", false),
            ("*", "host", false),
            ("a*.example.com", "ab.example.com", false),
            ("a.*.com", "a.b.com", false),
            ("*.*.com", "a.b.com", false),
            ("host_1.example", "host_1.example", true),
            ("", "", false),
        ] {
            assert_eq!(matches(pattern, host), wanted, "{pattern} {host}");
        }
    }

    #[test]
    fn a_domain_holds_itself_and_what_lies_below() {
        for (name, base, wanted) in [
            ("a.example.com", "example.com", true),
            ("example.com", "Example.com", true),
            ("badexample.com", "example.com", false),
            ("a.example.com", ".example.com", true),
            ("example.com", ".example.com", false),
            ("anything", "", true),
        ] {
            assert_eq!(is_below(name, base), wanted, "{name} {base}");
        }
    }
}
