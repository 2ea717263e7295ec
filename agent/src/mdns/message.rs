//! DNS messages, as far as finding a service needs them (RFC 1035, 2782, 6762, 6763). Pure; the bytes are anybody's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// More records than this nobody needs to describe a service.
const MOST_RECORDS: u16 = 128;
/// The most steps that a compressed name may take.
const MOST_LABELS: usize = 64;
/// The longest name, in bytes.
const LONGEST_NAME: usize = 255;

/// What is asked for, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    A = 1,
    Ptr = 12,
    Txt = 16,
    Aaaa = 28,
    Srv = 33,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// An address of a host.
    Address(IpAddr),
    /// An instance of a service.
    Instance(String),
    /// Where a service is served.
    Service { port: u16, target: String },
    /// More about a service; keys in small letters.
    Text(BTreeMap<String, String>),
}

/// A record of an answer. Names are in small letters, without the dot at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub name: String,
    pub data: Data,
}

/// A question for several kinds of records of one name. `None` when it is no name.
pub(super) fn query(id: u16, name: &str, kinds: &[Kind]) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(u16::try_from(kinds.len()).ok()?.to_be_bytes());
    bytes.extend([0; 6]);
    for kind in kinds {
        for label in name.trim_end_matches('.').split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
            bytes.push(length);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend((*kind as u16).to_be_bytes());
        bytes.extend(1_u16.to_be_bytes()); // the Internet; an answer to us alone is what a foreign port asks for by itself
    }
    Some(bytes)
}

/// The records of an answer; `None` when it is none, or a damaged one.
pub(super) fn answer(bytes: &[u8]) -> Option<Vec<Record>> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    if word(2)? & 0x8000 == 0 {
        return None; // a question
    }
    let mut reader = Reader { bytes, at: 12 };
    for _ in 0..word(4)?.min(MOST_RECORDS) {
        reader.name()?;
        reader.take(4)?;
    }
    let count = word(6)?.saturating_add(word(8)?).saturating_add(word(10)?);
    let mut records = Vec::new();
    for _ in 0..count.min(MOST_RECORDS) {
        let name = reader.name()?;
        let kind = reader.word()?;
        reader.take(6)?; // class, time to live
        let length = usize::from(reader.word()?);
        let start = reader.at;
        let data = reader.data(kind, length);
        reader.at = start.checked_add(length).filter(|end| *end <= bytes.len())?;
        if let Some(data) = data {
            records.push(Record { name, data });
        }
    }
    Some(records)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A name, which may go on elsewhere in the message.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut after = None;
        let mut at = self.at;
        for _ in 0..MOST_LABELS {
            let length = *self.bytes.get(at)?;
            match length {
                0 => {
                    self.at = after.unwrap_or(at + 1);
                    return Some(name.to_ascii_lowercase());
                }
                1..64 => {
                    let end = at + 1 + usize::from(length);
                    let label = String::from_utf8_lossy(self.bytes.get(at + 1..end)?);
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(&label);
                    at = end;
                }
                192.. => {
                    let low = *self.bytes.get(at + 1)?;
                    after = after.or(Some(at + 2));
                    at = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                }
                64..192 => return None,
            }
            if name.len() > LONGEST_NAME {
                return None;
            }
        }
        None // it runs in a circle
    }

    fn data(&mut self, kind: u16, length: usize) -> Option<Data> {
        const A: u16 = Kind::A as u16;
        const PTR: u16 = Kind::Ptr as u16;
        const TXT: u16 = Kind::Txt as u16;
        const AAAA: u16 = Kind::Aaaa as u16;
        const SRV: u16 = Kind::Srv as u16;
        match kind {
            A => Some(Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(self.take(length)?).ok()?).into())),
            AAAA => {
                Some(Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(self.take(length)?).ok()?).into()))
            }
            PTR => self.name().map(Data::Instance),
            SRV => {
                self.take(4)?; // priority, weight: one service is enough
                Some(Data::Service { port: self.word()?, target: self.name()? })
            }
            TXT => self.take(length).map(|bytes| Data::Text(text(bytes))),
            _ => None,
        }
    }
}

/// `key=value` strings (RFC 6763, 6). Of a key that stands twice the first counts.
fn text(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let Some(string) = rest.get(..usize::from(length)) else { break };
        bytes = rest.get(usize::from(length)..).unwrap_or_default();
        let string = String::from_utf8_lossy(string);
        let (key, value) = string.split_once('=').unwrap_or((&string, ""));
        if !key.is_empty() {
            values.entry(key.to_ascii_lowercase()).or_insert_with(|| value.to_owned());
        }
    }
    values
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer, without compression.
    pub(in super::super) fn encode(id: u16, records: &[Record]) -> Vec<u8> {
        let name = |name: &str| {
            let mut bytes = Vec::new();
            for label in name.split('.') {
                bytes.push(u8::try_from(label.len()).unwrap());
                bytes.extend(label.as_bytes());
            }
            bytes.push(0);
            bytes
        };
        let mut bytes = [id.to_be_bytes(), [0x84, 0], [0, 0]].concat();
        bytes.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
        bytes.extend([0; 4]);
        for record in records {
            let (kind, data) = match &record.data {
                Data::Address(IpAddr::V4(v4)) => (Kind::A, v4.octets().to_vec()),
                Data::Address(IpAddr::V6(v6)) => (Kind::Aaaa, v6.octets().to_vec()),
                Data::Instance(target) => (Kind::Ptr, name(target)),
                Data::Service { port, target } => {
                    (Kind::Srv, [&[0; 4], port.to_be_bytes().as_slice(), &name(target)].concat())
                }
                Data::Text(values) => {
                    let string = |(key, value): (&String, &String)| {
                        let string = format!("{key}={value}");
                        [&[u8::try_from(string.len()).unwrap()], string.as_bytes()].concat()
                    };
                    (Kind::Txt, values.iter().flat_map(string).collect())
                }
            };
            bytes.extend(name(&record.name));
            bytes.extend((kind as u16).to_be_bytes());
            bytes.extend([0x80, 1, 0, 0, 0, 60]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }

    #[test]
    fn compressed_names_are_followed() {
        let mut bytes = vec![0, 7, 0x84, 0, 0, 1, 0, 2, 0, 0, 0, 0];
        bytes.extend(b"\x03Api\x05local\0\0\x21\0\x01"); // the question, at 12
        bytes.extend(b"\xc0\x0c\0\x21\0\x01\0\0\0\x3c\0\x0b\0\0\0\0\x18\xf1\x02h1\xc0\x10"); // SRV, target h1.local
        bytes.extend(b"\xc0\x0c\0\x10\0\x01\0\0\0\x3c\0\x0e\x0dPath=/v1/a=b;");
        let records = answer(&bytes).unwrap();
        assert_eq!(records[0].name, "api.local");
        assert_eq!(records[0].data, Data::Service { port: 6385, target: "h1.local".into() });
        assert_eq!(records[1].data, Data::Text([("path".to_owned(), "/v1/a=b;".to_owned())].into()));
    }

    #[test]
    fn circles_and_cut_messages_end() {
        let mut circle = vec![0, 7, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0xc0, 0x0c];
        assert_eq!(answer(&circle), None);
        circle[2] = 0;
        assert_eq!(answer(&circle), None, "a question");
        assert_eq!(answer(&[]), None);
    }

    #[test]
    fn a_query_asks_for_every_kind() {
        let bytes = query(0x1234, "a.local.", &[Kind::Srv, Kind::Txt]).unwrap();
        assert_eq!(
            bytes,
            b"\x12\x34\0\0\0\x02\0\0\0\0\0\0\x01a\x05local\0\0\x21\0\x01\x01a\x05local\0\0\x10\0\x01"
        );
        assert_eq!(query(0, "a..b", &[Kind::A]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), patch in 0_usize..100) {
            let _ = answer(&[&[0, 0, 0x84, 0, 0, 1, 0, 9, 0, 0, 0, 0], bytes.as_slice()].concat());
            let service = Record { name: "a.b".into(), data: Data::Service { port: 1, target: "c.d".into() } };
            let mut valid = encode(1, &[service.clone(), service]);
            let at = patch.min(valid.len() - 1);
            valid[at] = bytes.first().copied().unwrap_or_default();
            let _ = answer(&valid);
        }

        #[test]
        fn what_is_written_is_read(port: u16, target in "[a-z]{1,20}(\\.[a-z]{1,20}){0,3}", value in "[ -~]{0,40}") {
            let records = [
                Record { name: "x.local".into(), data: Data::Service { port, target } },
                Record { name: "x.local".into(), data: Data::Text([("key".to_owned(), value)].into()) },
                Record { name: "x.local".into(), data: Data::Address("2001:db8::1".parse().unwrap()) },
            ];
            prop_assert_eq!(answer(&encode(9, &records)), Some(records.to_vec()));
        }
    }
}
