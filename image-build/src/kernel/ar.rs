//! Reads an `ar` archive, the outer shell of a `.deb`, as a stream (ar(5), the common format without long names).

use std::io::{self, Read};

/// Walks the members of an archive in order.
pub struct Archive<R> {
    input: R,
    left_in_member: u64,
    padding: bool,
}

/// What the archive says of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, without padding or the trailing slash some writers add.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
}

impl<R: Read> Archive<R> {
    /// Reads the magic. An error of kind `InvalidData` when this is not an ar archive.
    pub fn open(mut input: R) -> io::Result<Archive<R>> {
        let mut magic = [0u8; 8];
        input.read_exact(&mut magic).map_err(|_| invalid("shorter than an ar archive's magic"))?;
        if &magic != b"!<arch>\n" {
            return Err(invalid("no ar archive: the first bytes are not \"!<arch>\""));
        }
        Ok(Archive { input, left_in_member: 0, padding: false })
    }

    /// Goes to the next member, skipping what is left of this one. `None` at the end.
    pub fn next_member(&mut self) -> io::Result<Option<Member>> {
        let skip = self.left_in_member.saturating_add(u64::from(self.padding));
        let skipped = io::copy(&mut (&mut self.input).take(skip), &mut io::sink())?;
        if skipped < self.left_in_member {
            return Err(invalid("the ar archive ends inside a member: the file is truncated"));
        }
        let mut header = [0u8; 60];
        let mut have = 0;
        while let Some(rest) = header.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest)? {
                0 if have == 0 => return Ok(None),
                0 => return Err(invalid("the ar archive ends inside a header: the file is truncated")),
                count => have = have.saturating_add(count),
            }
        }
        let field = |from: usize, to: usize| {
            header.get(from..to).and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::trim)
        };
        if header.get(58..60) != Some(b"`\n") {
            return Err(invalid("damaged ar member header"));
        }
        let name = field(0, 16)
            .ok_or_else(|| invalid("ar member name is not text"))?
            .trim_end_matches('/')
            .to_owned();
        let length = field(48, 58)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| invalid("ar member length is not a number"))?;
        self.left_in_member = length;
        self.padding = length % 2 == 1;
        Ok(Some(Member { name, length }))
    }
}

impl<R: Read> Read for Archive<R> {
    /// Reads from the current member, up to its end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.input).take(self.left_in_member).read(buffer)?;
        self.left_in_member = self.left_in_member.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
pub(crate) mod sample {
    /// An ar archive with these members.
    pub(crate) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = b"!<arch>\n".to_vec();
        for (name, data) in members {
            out.extend_from_slice(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", data.len()).as_bytes(),
            );
            out.extend_from_slice(data);
            if data.len() % 2 == 1 {
                out.push(b'\n');
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_come_in_order_whether_read_or_skipped() {
        let file = sample::archive(&[("debian-binary", b"2.0\n"), ("odd", b"abc"), ("last/", b"end")]);
        let mut archive = Archive::open(&file[..]).unwrap();
        assert_eq!(archive.next_member().unwrap().unwrap().name, "debian-binary");
        assert_eq!(archive.next_member().unwrap().unwrap().name, "odd");
        let mut text = String::new();
        archive.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        assert_eq!(archive.next_member().unwrap().unwrap(), Member { name: "last".to_owned(), length: 3 });
        assert_eq!(archive.next_member().unwrap(), None);
    }

    #[test]
    fn a_cut_archive_is_an_error_not_an_end() {
        let file = sample::archive(&[("member", b"0123456789")]);
        let mut archive = Archive::open(&file[..file.len() - 3]).unwrap();
        archive.next_member().unwrap();
        assert!(archive.next_member().unwrap_err().to_string().contains("truncated"));
    }

    proptest! {
        #[test]
        fn junk_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut file = b"!<arch>\n".to_vec();
            file.extend_from_slice(&junk);
            let mut archive = Archive::open(&file[..]).unwrap();
            while let Ok(Some(_)) = archive.next_member() {}
        }
    }
}
