//! A gzipped tar in memory, bounded in every member and as a whole, and without secrets in any member.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::secrets::Secrets;

/// All members together, before they are packed, in bytes.
const LIMIT: usize = 32 * 1024 * 1024;

/// A tar being gzipped. An error is kept until the end.
pub(super) struct Archive {
    tar: tar::Builder<GzEncoder<Vec<u8>>>,
    error: Option<io::Error>,
    longest_member: usize,
    room: usize,
    secrets: Secrets,
}

impl Archive {
    /// An empty one. Of a member that is longer than this many bytes the end is kept. `secrets` are hidden in every member.
    pub(super) fn new(longest_member: usize, secrets: &Secrets) -> Self {
        let gzip = GzEncoder::new(Vec::new(), Compression::fast());
        Self {
            tar: tar::Builder::new(gzip),
            error: None,
            longest_member,
            room: LIMIT,
            secrets: secrets.clone(),
        }
    }

    /// Adds a member, if it is not empty and there is room.
    pub(super) fn add(&mut self, name: &str, bytes: Vec<u8>) {
        // Before anything is cut off: the rest of a secret would not be recognised.
        let bytes = self.secrets.hide(&bytes);
        let start = bytes.len().saturating_sub(self.longest_member);
        let Some(bytes) = bytes.get(start..).filter(|bytes| !bytes.is_empty()) else { return };
        let Some(room) = self.room.checked_sub(bytes.len()) else {
            tracing::warn!(member = name, "the logs are full: left out");
            return;
        };
        self.room = room;
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64); // usize fits u64 on every target of this agent
        header.set_mode(0o600);
        header.set_mtime(unix_now());
        if let Err(error) = self.tar.append_data(&mut header, name, bytes) {
            self.error.get_or_insert(error);
        }
    }

    /// The bytes.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut gzip = self.tar.into_inner()?;
        gzip.flush()?;
        gzip.finish()
    }
}

fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const MEMBER_LIMIT: usize = 2 * 1024 * 1024;

    #[test]
    fn an_archive_holds_its_members_and_the_end_of_what_is_too_long() {
        let mut archive = Archive::new(MEMBER_LIMIT, &Secrets::default());
        archive.add("small", b"text".to_vec());
        archive.add("empty", Vec::new());
        let mut long = vec![b'a'; MEMBER_LIMIT];
        long.extend(b"the end");
        archive.add("long", long);
        let bytes = archive.finish().unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut members = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            members.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(members.len(), 2);
        assert_eq!(members[0], ("small".to_owned(), b"text".to_vec()));
        assert_eq!(members[1].1.len(), MEMBER_LIMIT);
        assert!(members[1].1.ends_with(b"the end"));
    }

    #[test]
    fn the_whole_is_bounded_too() {
        let mut archive = Archive::new(LIMIT, &Secrets::default());
        for name in ["first", "second"] {
            archive.add(name, vec![0; LIMIT / 2 + 1]);
        }
        archive.add("small", b"still fits".to_vec());
        let bytes = archive.finish().unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let names: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["first", "small"]);
    }
}
