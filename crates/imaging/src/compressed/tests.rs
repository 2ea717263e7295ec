//! What is a compressed file, whatever the pieces in which it comes.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;

const ALL: [Compression; 4] = [Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2];

fn member(compression: Compression, content: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::fast();
    match compression {
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => ::zstd::encode_all(content, 1).unwrap(),
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Bzip2 => {
            let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// A file that comes in pieces of these lengths, one after the other and over again.
struct Pieces<'f> {
    file: &'f [u8],
    lengths: Vec<usize>,
    turn: usize,
    left: usize,
}

impl<'f> Pieces<'f> {
    fn new(file: &'f [u8], lengths: &[usize]) -> Self {
        Self { file, lengths: lengths.to_vec(), turn: 0, left: 0 }
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            self.left = self.lengths[self.turn % self.lengths.len()].min(self.file.len());
            self.turn += 1;
        }
        Ok(&self.file[..self.left])
    }

    fn consume(&mut self, amount: usize) {
        self.file = &self.file[amount..];
        self.left -= amount;
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        unreachable!("decompressors read by fill_buf")
    }
}

type Decoded = (Vec<u8>, Option<Trailer>);

/// The trailer that is ignored, or an error.
type Expected = Result<Option<Trailer>, ()>;

fn decode(compression: Compression, file: &[u8], lengths: &[usize]) -> io::Result<Decoded> {
    let mut decoder = compression.open(Pieces::new(file, lengths), 1 << 24)?;
    let mut content = Vec::new();
    decoder.read_to_end(&mut content)?;
    Ok((content, decoder.trailer()))
}

fn skippable(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&[0x53, 0x2a, 0x4d, 0x18], &length.to_le_bytes()[..], content].concat()
}

#[test]
fn what_follows_a_member_is_taken_as_by_the_program() {
    use Compression::{Bzip2, Gzip, Xz, Zstd};
    let garbage = |bytes| Ok(Some(Trailer { bytes, zero: false }));
    let zeroes = |bytes| Ok(Some(Trailer { bytes, zero: true }));
    let cases: &[(Compression, &[u8], Expected)] = &[
        (Gzip, b"", Ok(None)),
        (Gzip, b"\0", zeroes(1)),
        (Gzip, &[0; 5000], zeroes(5000)),
        (Gzip, b"\0\0x", garbage(3)),
        (Gzip, b"{\"metadata_version\":\"1.1\"}", garbage(26)),
        (Gzip, b"x", Err(())),
        (Gzip, b"\x1f\x8b", Err(())),
        (Gzip, b"\x1f\x8b\x07abc", Err(())),
        (Gzip, b"\x1f\x9dabcdef", Err(())),
        (Bzip2, b"x", garbage(1)),
        (Bzip2, &[0; 512], zeroes(512)),
        (Bzip2, b"BZ0", garbage(3)),
        (Bzip2, b"BZh0", garbage(4)),
        (Bzip2, b"B", Err(())),
        (Bzip2, b"BZh", Err(())),
        (Bzip2, b"BZh9abc", Err(())),
        (Xz, &[0; 8], Ok(None)),
        (Xz, &[0; 6], Err(())),
        (Xz, b"garbage of some length", Err(())),
        (Xz, b"x", Err(())),
        (Zstd, &[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], Ok(None)),
        (Zstd, &[0x50, 0x2a, 0x4d, 0x18, 5, 0, 0, 0, 1], Err(())),
        (Zstd, &[0; 8], Err(())),
        (Zstd, b"x", Err(())),
        (Zstd, b"garbage of some length", Err(())),
    ];
    let content = vec![7; 3000];
    for (compression, tail, expected) in cases {
        let file = [member(*compression, &content), tail.to_vec()].concat();
        for lengths in [&[usize::MAX][..], &[1], &[2, 3]] {
            let found = decode(*compression, &file, lengths);
            let shown = format!("{compression} {:?} {found:?}", &tail[..tail.len().min(9)]);
            match expected {
                Ok(trailer) => assert!(found.unwrap() == (content.clone(), *trailer), "{shown}"),
                Err(()) => assert!(found.is_err(), "{shown}"),
            }
        }
    }
}

#[test]
fn skippable_frames_belong_to_zstd_unless_lz4_follows() {
    let zstd = ::zstd::bulk::compress(b"disk", 1).unwrap();
    let lz4 = [0x04, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7];
    let two = [skippable(b"abc"), skippable(b"")].concat();
    assert_eq!(Compression::detect(&[&two[..], &zstd].concat()), Some(Compression::Zstd));
    assert_eq!(Compression::detect(&[&two[..], &lz4].concat()), None);
    assert_eq!(
        Compression::detect(&skippable(&[0; 5000])[..100]),
        Some(Compression::Zstd),
        "not to be seen yet"
    );
    assert_eq!(Compression::Zstd.least_size(&[&two[..], &zstd].concat()), Some(4));
}

#[test]
fn a_later_frame_is_held_to_the_memory_limit_as_the_first_is() {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(b"second").unwrap();
    let file = [member(Compression::Zstd, b"first"), encoder.finish().unwrap()].concat();
    let error = decode(Compression::Zstd, &file, &[usize::MAX]).unwrap_err();
    let needed = error.get_ref().and_then(|cause| cause.downcast_ref::<NeedsMemory>()).unwrap();
    assert_eq!(needed.0 >> 20, 128);
}

proptest! {
    #[test]
    fn members_padding_and_trailers_of_any_lengths_come_out_the_same_in_any_pieces(
        which in 0..4usize,
        contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 1..6),
        padding in proptest::collection::vec(0..40usize, 6),
        garbage in proptest::collection::vec(2..255u8, 0..20),
        lengths in proptest::collection::vec(1..300usize, 1..8),
    ) {
        let compression = ALL[which];
        let mut file = Vec::new();
        for (content, padding) in contents.iter().zip(&padding) {
            file.extend(match compression {
                Compression::Zstd if padding % 2 == 1 => skippable(&vec![9; *padding]),
                // Padding comes behind a stream.
                Compression::Xz if !file.is_empty() => vec![0; padding * 4],
                Compression::Gzip | Compression::Zstd | Compression::Xz | Compression::Bzip2 => Vec::new(),
            });
            file.extend(member(compression, content));
        }
        let has_trailer = matches!(compression, Compression::Gzip | Compression::Bzip2);
        let tail = if has_trailer && garbage.len() > 1 { [vec![0; padding[5]], garbage].concat() } else { vec![] };
        file.extend(&tail);
        let (content, trailer) = decode(compression, &file, &lengths).unwrap();
        prop_assert!(content == contents.concat());
        let expected = (!tail.is_empty()).then_some(Trailer { bytes: tail.len() as u64, zero: false });
        prop_assert_eq!(trailer, expected);
    }

    #[test]
    fn a_member_that_breaks_off_is_an_error_in_any_pieces(
        which in 0..4usize,
        cut in 1..100_000usize,
        lengths in proptest::collection::vec(1..300usize, 1..8),
    ) {
        let compression = ALL[which];
        let (first, second) = (member(compression, &[1; 900]), member(compression, b"second"));
        let cut = 1 + cut % (second.len() - 1);
        let error = decode(compression, &[&first, &second[..cut]].concat(), &lengths).unwrap_err();
        prop_assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{} cut after {}", compression, cut);
        prop_assert!(decode(compression, &second[..cut], &lengths).is_err());
    }
}
