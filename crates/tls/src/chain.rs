//! Finds a chain from a server's certificate to a trust anchor, by the rules that OpenSSL applies to servers (RFC 5280, without
//! revocation and without policies).
//!
//! Where it differs from webpki, as sites need it: a server's own certificate may say CA:TRUE; extensions for policies may be
//! critical; an authority of version 1 may be an anchor; the validity of anchors counts. Any certificate of the file of anchors ends a
//! chain, as `X509_V_FLAG_PARTIAL_CHAIN` of OpenSSL has it (Python from 3.13 on).

use std::cell::Cell;

use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::asn1_rs::oid;
use x509_parser::extensions::{GeneralName, NameConstraints, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::names::{self, Distinguished};
use crate::rejection::Cause;
use crate::signature::Key;

/// Longest chain, the server's certificate and the anchor included.
const LONGEST: usize = 10;
/// Most certificates of a server that are looked at.
const MOST_SHOWN: usize = 32;
/// Most signatures that are verified for one chain: a server could show certificates that all seem to sign each other.
const MOST_SIGNATURES: u32 = 100;

/// A certificate that ends a chain.
pub(crate) struct Anchor {
    subject: Distinguished,
    der: CertificateDer<'static>,
}

impl Anchor {
    /// None when it cannot be read.
    pub(crate) fn new(der: CertificateDer<'static>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let subject = names::distinguished(certificate.subject());
        Some(Self { subject, der })
    }
}

/// From when to when a chain is good, Unix seconds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

/// When a chain must be good.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// At this time, Unix seconds.
    At(i64),
    /// At any time at all.
    Ever,
}

/// What a server shows, and whom it claims to be.
pub(crate) struct Shown<'a> {
    pub(crate) leaf: &'a CertificateDer<'a>,
    pub(crate) above: &'a [CertificateDer<'a>],
    pub(crate) host: &'a ServerName<'a>,
}

/// Judges what a server shows. `pinning`: whether one of the anchors may be the server's certificate itself.
pub(crate) fn judge(
    anchors: &[Anchor],
    pinning: bool,
    shown: &Shown<'_>,
    when: When,
) -> Result<Period, Cause> {
    let leaf = Link::read(shown.leaf)?;
    let server = leaf.rules.as_ref().map_err(Clone::clone)?;
    Key::read(&leaf.certificate.tbs_certificate.subject_pki)?;
    let above = shown.above.iter().take(MOST_SHOWN).filter_map(|der| Link::read(der).ok()).collect();
    let search = Search { anchors, above, host: shown.host, when, left: Cell::new(MOST_SIGNATURES) };
    if pinning && anchors.iter().any(|anchor| anchor.der == *shown.leaf) {
        return search.finish(&[&leaf]);
    }
    if !server.is_for_servers || !server.may_serve {
        return Err(Cause::Unfit("is not for servers (extendedKeyUsage or keyUsage)".into()));
    }
    let mut cause = Cause::UnknownIssuer;
    search.extend(&[&leaf], &mut cause).ok_or(cause)
}

/// A certificate that may become part of a chain.
struct Link<'a> {
    der: &'a [u8],
    certificate: X509Certificate<'a>,
    subject: Distinguished,
    issuer: Distinguished,
    /// The error says why it cannot be part of any chain.
    rules: Result<Rules, Cause>,
}

/// What the extensions of a certificate say.
struct Rules {
    authority: Authority,
    /// How many authorities may stand below it, the server's certificate not counted.
    path_limit: Option<u32>,
    /// Whether `extendedKeyUsage` allows servers, or says nothing.
    is_for_servers: bool,
    /// Whether `keyUsage` and Netscape's certificate type allow a server, or say nothing.
    may_serve: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Authority {
    Yes,
    No,
    /// It does not say so, but is of a kind that could not: good as an anchor alone.
    AsAnchor,
}

impl<'a> Link<'a> {
    fn read(der: &'a CertificateDer<'_>) -> Result<Self, Cause> {
        let unreadable = || Cause::Unreadable("it".into());
        let (behind, certificate) = X509Certificate::from_der(der).map_err(|_| unreadable())?;
        if !behind.is_empty() {
            return Err(unreadable());
        }
        let subject = names::distinguished(certificate.subject());
        let issuer = names::distinguished(certificate.issuer());
        let rules = Rules::read(&certificate, subject == issuer);
        Ok(Self { der, certificate, subject, issuer, rules })
    }

    fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    fn shown(&self) -> String {
        let text: String = self.certificate.subject().to_string();
        text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn alternative_names(&self) -> &[GeneralName<'a>] {
        let found =
            self.certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.as_slice()),
                _ => None,
            });
        found.unwrap_or_default()
    }

    fn constraints(&self) -> Option<&NameConstraints<'a>> {
        self.certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::NameConstraints(constraints) => Some(constraints),
            _ => None,
        })
    }

    fn period(&self) -> Period {
        let validity = self.certificate.validity();
        Period { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() }
    }
}

impl Rules {
    fn read(certificate: &X509Certificate<'_>, is_self_issued: bool) -> Result<Self, Cause> {
        if certificate.signature_algorithm != certificate.tbs_certificate.signature {
            return Err(Cause::Unreadable(
                "its signature algorithm, which stands in it twice and differs".into(),
            ));
        }
        let is_old = certificate.version() == X509Version::V1;
        let mut rules = Self {
            authority: if is_old && is_self_issued { Authority::AsAnchor } else { Authority::No },
            path_limit: None,
            is_for_servers: true,
            may_serve: true,
        };
        let (mut says_authority, mut may_sign) = (None, None);
        let mut seen = Vec::new();
        for extension in certificate.extensions() {
            let id = &extension.oid;
            if seen.contains(&id) {
                return Err(Cause::Unreadable(format!("its extension {id}, which stands in it twice")));
            }
            seen.push(id);
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(basic) => {
                    says_authority = Some(basic.ca);
                    rules.path_limit = basic.path_len_constraint;
                }
                ParsedExtension::KeyUsage(usage) => {
                    may_sign = Some(usage.key_cert_sign());
                    rules.may_serve &=
                        usage.digital_signature() || usage.key_encipherment() || usage.key_agreement();
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    // The last two are "server gated cryptography", which OpenSSL takes as well.
                    let gated = [oid!(2.16.840.1.113730.4.1), oid!(1.3.6.1.4.1.311.10.3.3)];
                    rules.is_for_servers =
                        usage.server_auth || usage.other.iter().any(|other| gated.contains(other));
                }
                ParsedExtension::NSCertType(kind) => rules.may_serve &= kind.ssl_server(),
                ParsedExtension::SubjectAlternativeName(_)
                | ParsedExtension::NameConstraints(_)
                | ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::SubjectKeyIdentifier(_)
                | ParsedExtension::CertificatePolicies(_)
                | ParsedExtension::PolicyMappings(_)
                | ParsedExtension::PolicyConstraints(_)
                | ParsedExtension::InhibitAnyPolicy(_)
                | ParsedExtension::CRLDistributionPoints(_) => {}
                // What decides about trust must be readable, critical or not.
                ParsedExtension::ParseError { .. } if extension.critical || decides(extension) => {
                    return Err(Cause::Unreadable(format!("its extension {id}")));
                }
                _ if extension.critical => return Err(Cause::Extension(id.to_string())),
                _ => {}
            }
        }
        rules.authority = match (says_authority, may_sign) {
            (Some(false), _) | (_, Some(false)) => Authority::No,
            (Some(true), None | Some(true)) => Authority::Yes,
            (None, Some(true)) => Authority::AsAnchor,
            (None, None) => rules.authority,
        };
        Ok(rules)
    }
}

fn decides(extension: &x509_parser::extensions::X509Extension<'_>) -> bool {
    let deciding = [oid!(2.5.29.15), oid!(2.5.29.17), oid!(2.5.29.19), oid!(2.5.29.30), oid!(2.5.29.37)];
    deciding.contains(&extension.oid)
}

struct Search<'a> {
    anchors: &'a [Anchor],
    above: Vec<Link<'a>>,
    host: &'a ServerName<'a>,
    when: When,
    /// Signatures that may still be verified.
    left: Cell<u32>,
}

impl Search<'_> {
    /// Looks for the issuer of the last certificate of a path: among the anchors first, then among what the server showed.
    /// What stands in the way is written to `cause`, unless something more telling stands there already.
    fn extend(&self, path: &[&Link<'_>], cause: &mut Cause) -> Option<Period> {
        let last = path.last()?;
        let mut note = |found: Cause| {
            if matches!(cause, Cause::UnknownIssuer) && !matches!(found, Cause::BadSignature) {
                *cause = found;
            }
        };
        for anchor in self.anchors.iter().filter(|anchor| anchor.subject == last.issuer) {
            let ended = Link::read(&anchor.der).and_then(|link| {
                self.check_issuer(&link, path, Authority::AsAnchor)?;
                self.finish(&[path, &[&link]].concat())
            });
            match ended {
                Ok(period) => return Some(period),
                Err(found) => note(found),
            }
        }
        if path.len() + 1 >= LONGEST {
            note(Cause::Unfit(format!("stands at the end of more than {LONGEST} others")));
            return None;
        }
        for link in &self.above {
            if link.subject != last.issuer || path.iter().any(|earlier| earlier.der == link.der) {
                continue;
            }
            match self.check_issuer(link, path, Authority::Yes) {
                Ok(()) => {
                    if let Some(period) = self.extend(&[path, &[link]].concat(), cause) {
                        return Some(period);
                    }
                }
                Err(found)
                    if matches!(cause, Cause::UnknownIssuer) && !matches!(found, Cause::BadSignature) =>
                {
                    *cause = found
                }
                Err(_) => {}
            }
        }
        None
    }

    /// Whether an authority may have issued, and has signed, the last certificate of a path.
    fn check_issuer(&self, issuer: &Link<'_>, path: &[&Link<'_>], least: Authority) -> Result<(), Cause> {
        let rules = issuer.rules.as_ref().map_err(Clone::clone)?;
        let Some(last) = path.last() else { return Err(Cause::UnknownIssuer) };
        // First of all, so that an authority which only has the same name is not blamed.
        let Some(left) = self.left.get().checked_sub(1) else {
            return Err(Cause::Unfit("comes with too many others".into()));
        };
        self.left.set(left);
        let (signed, by) = (&last.certificate, &issuer.certificate.tbs_certificate.subject_pki);
        Key::read(by)?.verifies_certificate(
            &signed.signature_algorithm,
            signed.tbs_certificate.as_ref(),
            &signed.signature_value.data,
        )?;
        if rules.authority == Authority::No
            || (rules.authority == Authority::AsAnchor && least == Authority::Yes)
        {
            return Err(Cause::Unfit(format!(
                "is signed by {}, which is not an authority (basicConstraints CA:TRUE or keyUsage keyCertSign is missing)",
                issuer.shown()
            )));
        }
        if !rules.is_for_servers {
            return Err(Cause::Unfit(format!(
                "is signed by {}, which is not for servers (extendedKeyUsage)",
                issuer.shown()
            )));
        }
        let between = path.iter().skip(1).filter(|link| !link.is_self_issued()).count();
        if rules.path_limit.is_some_and(|limit| u64::try_from(between).unwrap_or(u64::MAX) > u64::from(limit))
        {
            return Err(Cause::Unfit(format!(
                "stands further below {} than its pathlen allows",
                issuer.shown()
            )));
        }
        Ok(())
    }

    /// Judges a path from the server's certificate to an anchor by its names and its time.
    fn finish(&self, path: &[&Link<'_>]) -> Result<Period, Cause> {
        let leaf = path.first().ok_or(Cause::UnknownIssuer)?;
        if !names::is_for(leaf.alternative_names(), self.host) {
            return Err(Cause::WrongName);
        }
        for (position, authority) in path.iter().enumerate().skip(1) {
            let Some(constraints) = authority.constraints() else { continue };
            let below = path.iter().take(position).enumerate();
            for (place, link) in below.filter(|(place, link)| *place == 0 || !link.is_self_issued()) {
                let host = self.host.to_str();
                let called = match self.host {
                    // A star in the certificate could reach around an excluded name.
                    ServerName::DnsName(_) if place == 0 => vec![GeneralName::DNSName(&host)],
                    _ => Vec::new(),
                };
                let subject = link.certificate.subject();
                if !names::may_sign(constraints, subject, link.alternative_names())
                    || !names::may_sign(constraints, subject, &called)
                {
                    let whose = authority.shown();
                    return Err(Cause::Unfit(format!(
                        "has a name for which {whose} may not sign (nameConstraints)"
                    )));
                }
            }
        }
        let periods = || path.iter().map(|link| link.period());
        let from = periods().map(|period| period.from).max().unwrap_or(i64::MAX);
        let until = periods().map(|period| period.until).min().unwrap_or(i64::MIN);
        match self.when {
            When::At(now) if now < from => Err(Cause::NotYetValid { since: Some(from) }),
            When::At(now) if now > until => Err(Cause::Expired { until: Some(until) }),
            When::Ever if from > until => Err(Cause::Expired { until: Some(until) }),
            When::At(_) | When::Ever => Ok(Period { from, until }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An authority and a server's certificate of it.
    fn made() -> (CertificateDer<'static>, CertificateDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(vec!["authority".into()]).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        authority.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let root = authority.self_signed(&key).unwrap().der().clone();
        let issuer = rcgen::Issuer::new(authority, key);
        let own = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec!["ironic.example".into()]).unwrap();
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        (root, leaf.signed_by(&own, &issuer).unwrap().der().clone())
    }

    fn judged(
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        anchors: &[Anchor],
    ) -> Result<Period, Cause> {
        let host = ServerName::try_from("ironic.example").unwrap();
        judge(anchors, false, &Shown { leaf, above, host: &host }, When::Ever)
    }

    #[test]
    fn a_server_that_shows_many_certificates_of_one_name_costs_bounded_work() {
        let (root, leaf) = made();
        let anchors = [Anchor::new(root).unwrap()];
        let others: Vec<_> = (0..200).map(|_| made().0).collect();
        judged(&leaf, &others, &anchors).unwrap();
        let (_, stranger) = made();
        let started = std::time::Instant::now();
        assert!(judged(&stranger, &others, &anchors).is_err());
        assert!(started.elapsed().as_secs() < 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn one_changed_byte_of_a_certificate_is_never_accepted(at in any::<prop::sample::Index>(), change in 1..=255_u8) {
            let (root, leaf) = made();
            let anchors = [Anchor::new(root).unwrap()];
            prop_assert!(judged(&leaf, &[], &anchors).is_ok());
            let mut bytes = leaf.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            prop_assert!(judged(&bytes.into(), &[], &anchors).is_err());
            let longer = [leaf.as_ref(), &[change]].concat();
            prop_assert!(judged(&longer.into(), &[], &anchors).is_err());
        }

        #[test]
        fn any_bytes_are_no_certificate(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Anchor::new(bytes.clone().into()).is_none());
            prop_assert!(judged(&bytes.into(), &[], &[]).is_err());
        }
    }
}
