//! Questions and answers on the wire (RFC 1035, 4). Every byte of an answer is distrusted.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const CLASS_INTERNET: u16 = 1;
const TYPE_CNAME: u16 = 5;
const FLAG_RECURSE: u16 = 0x0100;
const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const HEADER: usize = 12;
/// Most aliases that are followed within one answer.
const MOST_ALIASES: usize = 16;

/// The kind of address that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    fn number(self) -> u16 {
        match self {
            Family::V4 => 1,  // A
            Family::V6 => 28, // AAAA
        }
    }
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It does not fit into a packet: ask by TCP.
    Truncated,
    /// Addresses; or none, and the name that stands for the one asked for, where the answer ends in an alias.
    Found {
        addresses: Vec<IpAddr>,
        alias: Option<String>,
    },
    NoSuchName,
    Code(u8),
}

/// The parts of a name, each of 1 to 63 bytes; `None` when it cannot stand in a question.
pub(crate) fn labels(name: &str) -> Option<Vec<&[u8]>> {
    let is_label =
        |label: &&[u8]| (1..=63).contains(&label.len()) && label.iter().all(|byte| byte.is_ascii_graphic());
    let labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
    labels.iter().all(is_label).then_some(labels)
}

/// A question with this id. `None` for what is no name.
pub(crate) fn question(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(HEADER + name.len() + 6);
    for word in [id, FLAG_RECURSE, 1, 0, 0, 0] {
        packet.extend(word.to_be_bytes());
    }
    for label in labels(name)? {
        packet.push(u8::try_from(label.len()).ok()?);
        packet.extend(label);
    }
    packet.push(0);
    packet.extend(family.number().to_be_bytes());
    packet.extend(CLASS_INTERNET.to_be_bytes());
    Some(packet)
}

/// Reads the answer to a question. `None` when the packet is not an answer to it: another one may still come.
pub(crate) fn answer(packet: &[u8], id: u16, name: &str, family: Family) -> Option<Answer> {
    let (flags, questions, answers) = (word(packet, 2)?, word(packet, 4)?, word(packet, 6)?);
    if word(packet, 0)? != id || flags & FLAG_RESPONSE == 0 {
        return None;
    }
    let code = u8::try_from(flags & 0x0f).ok()?;
    let mut at = HEADER;
    if questions == 1 {
        let (asked, after) = name_at(packet, at)?;
        let is_ours = asked.eq_ignore_ascii_case(name)
            && word(packet, after)? == family.number()
            && word(packet, after.checked_add(2)?)? == CLASS_INTERNET;
        if !is_ours {
            return None;
        }
        at = after.checked_add(4)?;
    } else if code == 0 || questions > 1 {
        return None; // a server that does not understand a question need not repeat it; one that answers has to
    }
    match code {
        0 if flags & FLAG_TRUNCATED != 0 => Some(Answer::Truncated),
        0 => Some(records(packet, at, answers, name, family)),
        3 => Some(Answer::NoSuchName),
        code => Some(Answer::Code(code)),
    }
}

/// Collects the addresses of a name, by way of its aliases. What is damaged ends the reading.
fn records(packet: &[u8], mut at: usize, count: u16, name: &str, family: Family) -> Answer {
    let mut aliases: BTreeMap<String, String> = BTreeMap::new();
    let mut found: Vec<(String, IpAddr)> = Vec::new();
    for _ in 0..count {
        let Some(record) = record(packet, at) else { break };
        at = record.end;
        let owner = record.owner.to_ascii_lowercase();
        match (record.kind, family, record.data) {
            (TYPE_CNAME, _, _) => {
                if let Some((target, _)) = name_at(packet, record.start) {
                    aliases.entry(owner).or_insert(target);
                }
            }
            (1, Family::V4, &[a, b, c, d]) => found.push((owner, Ipv4Addr::new(a, b, c, d).into())),
            (28, Family::V6, data) => {
                if let Ok(octets) = <[u8; 16]>::try_from(data) {
                    found.push((owner, Ipv6Addr::from(octets).into()));
                }
            }
            (_, Family::V4 | Family::V6, _) => {}
        }
    }
    let (mut wanted, mut alias) = (name.to_ascii_lowercase(), None);
    for _ in 0..MOST_ALIASES {
        let Some(target) = aliases.get(&wanted) else { break };
        wanted = target.to_ascii_lowercase();
        alias = Some(target.clone());
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (owner, address) in found {
        if owner == wanted && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Answer::Found { addresses, alias }
}

struct Record<'a> {
    owner: String,
    kind: u16,
    data: &'a [u8],
    /// Where its data begin and end in the packet.
    start: usize,
    end: usize,
}

fn record(packet: &[u8], at: usize) -> Option<Record<'_>> {
    let (owner, after) = name_at(packet, at)?;
    let kind = word(packet, after)?;
    // The class (2 bytes) and how long it may be kept (4) are of no interest.
    let length = usize::from(word(packet, after.checked_add(8)?)?);
    let start = after.checked_add(10)?;
    let end = start.checked_add(length)?;
    Some(Record { owner, kind, data: packet.get(start..end)?, start, end })
}

/// The name at a place, and the place after it. Pointers lead backwards only, so that circles end.
fn name_at(packet: &[u8], at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let (mut at, mut after, mut lowest) = (at, None, at);
    loop {
        let length = *packet.get(at)?;
        match length {
            0 => return Some((name, after.unwrap_or(at.checked_add(1)?))),
            1..=63 => {
                let start = at.checked_add(1)?;
                let end = start.checked_add(usize::from(length))?;
                if !name.is_empty() {
                    name.push('.');
                }
                for byte in packet.get(start..end)? {
                    // A dot within a label would make another name of it.
                    name.push(if *byte == b'.' || !byte.is_ascii() { '\u{fffd}' } else { char::from(*byte) });
                }
                if name.len() > 1024 {
                    return None;
                }
                at = end;
            }
            0xc0.. => {
                let target = usize::from(word(packet, at)? & 0x3fff);
                after = after.or(at.checked_add(2));
                if target >= lowest {
                    return None;
                }
                (at, lowest) = (target, target);
            }
            _ => return None,
        }
    }
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    let bytes = packet.get(at..at.checked_add(2)?)?;
    <[u8; 2]>::try_from(bytes).ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: u16 = 0x1234;

    /// An answer with these records: owner (`None`: a pointer to the question), type, data.
    fn reply(name: &str, family: Family, flags: u16, records: &[(Option<&str>, u16, &[u8])]) -> Vec<u8> {
        let mut packet = question(ID, name, family).unwrap();
        packet[2..4].copy_from_slice(&(FLAG_RESPONSE | flags).to_be_bytes());
        packet[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        for (owner, kind, data) in records {
            match owner {
                None => packet.extend([0xc0, 12]),
                Some(owner) => packet.extend(wire(owner)),
            }
            packet.extend(kind.to_be_bytes());
            packet.extend([0, 1, 0, 0, 0, 60]);
            packet.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            packet.extend(*data);
        }
        packet
    }

    fn wire(name: &str) -> Vec<u8> {
        let question = question(0, name, Family::V4).unwrap();
        question[HEADER..question.len() - 4].to_vec()
    }

    fn found(addresses: &[&str], alias: Option<&str>) -> Answer {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Answer::Found { addresses, alias: alias.map(str::to_owned) }
    }

    #[test]
    fn addresses_are_found_through_aliases_in_any_order_and_others_are_left_out() {
        let target = wire("b.example");
        let packet = reply(
            "Ironic.lab",
            Family::V4,
            0,
            &[
                (Some("b.example"), 1, &[192, 0, 2, 7]),
                (Some("B.example"), 1, &[192, 0, 2, 8]),
                (None, TYPE_CNAME, &target),
                (Some("evil.example"), 1, &[6, 6, 6, 6]),
                (Some("b.example"), 28, &[1; 16]),
            ],
        );
        let answered = answer(&packet, ID, "ironic.LAB", Family::V4);
        assert_eq!(answered, Some(found(&["192.0.2.7", "192.0.2.8"], Some("b.example"))));
        let alone = reply("ironic.lab", Family::V6, 0, &[(None, TYPE_CNAME, &target)]);
        assert_eq!(answer(&alone, ID, "ironic.lab", Family::V6), Some(found(&[], Some("b.example"))));
    }

    #[test]
    fn codes_truncation_and_answers_to_other_questions_are_told_apart() {
        let with = |flags| answer(&reply("a.b", Family::V4, flags, &[]), ID, "a.b", Family::V4);
        assert_eq!(with(0), Some(found(&[], None)));
        assert_eq!(with(3), Some(Answer::NoSuchName));
        assert_eq!(with(5), Some(Answer::Code(5)));
        assert_eq!(with(FLAG_TRUNCATED), Some(Answer::Truncated));
        let packet = reply("a.b", Family::V4, 0, &[(None, 1, &[192, 0, 2, 7])]);
        assert_eq!(answer(&packet, ID + 1, "a.b", Family::V4), None);
        assert_eq!(answer(&packet, ID, "a.c", Family::V4), None);
        assert_eq!(answer(&packet, ID, "a.b", Family::V6), None);
        let mut asked = packet.clone();
        asked[2] = 0;
        assert_eq!(answer(&asked, ID, "a.b", Family::V4), None, "a question is no answer");
        let bare = [&ID.to_be_bytes()[..], &[0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(answer(&bare, ID, "a.b", Family::V4), Some(Answer::Code(1)), "no question to repeat");
    }

    #[test]
    fn aliases_in_a_circle_end() {
        let packet = reply(
            "a.b",
            Family::V4,
            0,
            &[(None, TYPE_CNAME, &wire("c.d")), (Some("c.d"), TYPE_CNAME, &wire("a.b"))],
        );
        assert!(matches!(
            answer(&packet, ID, "a.b", Family::V4),
            Some(Answer::Found { addresses, .. }) if addresses.is_empty()
        ));
    }

    #[test]
    fn only_names_can_be_asked_for() {
        for name in ["", ".", "a..b", "a b", "ä.example", &"x".repeat(64)] {
            assert_eq!(question(ID, name, Family::V4), None, "{name}");
        }
        assert!(question(ID, "_srv.under_score-7.example", Family::V4).is_some());
    }

    proptest! {
        #[test]
        fn any_packet_is_survived(mut packet in prop::collection::vec(any::<u8>(), 0..200)) {
            let head = question(ID, "a.b", Family::V4).unwrap();
            let _ = answer(&packet, ID, "a.b", Family::V4);
            packet.splice(0..0, head);
            packet[2..8].copy_from_slice(&[0x80, 0, 0, 1, 0, 9]);
            let _ = answer(&packet, ID, "a.b", Family::V4);
        }
    }
}
