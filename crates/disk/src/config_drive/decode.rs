//! From what the conductor or a URL gives to the bytes of a file system image (data plane page, 4.1).
//!
//! A config drive may take a good part of a small machine's memory, so it is decoded as it is read: measured first, then put into
//! memory of exactly its size.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read};

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::read::DecoderReader;
use flate2::bufread::GzDecoder;

use crate::Error;
use crate::probe::probe;

/// Largest config drive, unpacked: 64 MiB, as in Ironic.
pub const LIMIT_BYTES: u64 = 64 << 20;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Decodes a config drive as [`decode_within`] does, whatever memory there is.
///
/// # Errors
/// As there.
pub fn decode<'a>(data: impl Into<Cow<'a, [u8]>>) -> Result<Vec<u8>, Error> {
    decode_within(data, u64::MAX)
}

/// Decodes a config drive: base64 of gzip of an image (what Ironic sends), gzip of an image, or the image itself. It takes
/// `memory` bytes at the most, all of them for the result.
///
/// What is packed is taken as it is: the operator may know why it holds no file system that is known here, and a warning says
/// so. What is not packed must be a known file system; anything may come from a URL, an error page too. Line breaks and other
/// foreign characters in base64, missing padding, several gzip members and zeroes after them are accepted.
///
/// # Errors
/// Text that is not base64, damaged gzip data, more than [`LIMIT_BYTES`] or `memory`, nothing at all.
pub fn decode_within<'a>(data: impl Into<Cow<'a, [u8]>>, memory: u64) -> Result<Vec<u8>, Error> {
    let data = data.into();
    if data.starts_with(&GZIP_MAGIC) {
        return packed(|| &*data, memory);
    }
    if probe(&*data).is_some() {
        check(length(&data), memory)?;
        return Ok(data.into_owned());
    }
    let text = Text::of(&data)?;
    let mut start = Vec::new();
    let read = text.open().take(2).read_to_end(&mut start);
    read.map_err(|error| not_base64(&error))?;
    if start == GZIP_MAGIC {
        return packed(|| BufReader::new(text.open()), memory);
    }
    let bytes = measure(text.open()).map_err(|error| not_base64(&error))?;
    check(bytes, memory)?;
    let image = collect(text.open(), bytes).map_err(|error| not_base64(&error))?;
    if probe(&image).is_none() {
        return Err(Error::config_drive(
            "it is neither gzip nor a file system (expected ISO 9660 or vfat labelled config-2, as such or packed by gzip)",
        ));
    }
    Ok(image)
}

/// Base64, and which characters of it count.
struct Text<'a> {
    bytes: &'a [u8],
    counts: fn(u8) -> bool,
    engine: GeneralPurpose,
}

impl<'a> Text<'a> {
    /// Strictly, but for blanks and padding; else, as Ironic's agent decodes, without all that is not base64. The latter finds
    /// bytes in any text, so only gzip counts.
    fn of(bytes: &'a [u8]) -> Result<Self, Error> {
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
        let strict = Self { bytes, counts: |byte| !byte.is_ascii_whitespace(), engine: engine.clone() };
        if !bytes.iter().any(|byte| (strict.counts)(*byte)) {
            return Err(Error::config_drive("it is empty"));
        }
        let Err(error) = measure(strict.open()) else { return Ok(strict) };
        let counts = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        let lenient = Self { bytes, counts, engine };
        let mut start = [0; 2];
        let is_gzip = measure(lenient.open()).is_ok()
            && lenient.open().read_exact(&mut start).is_ok()
            && start == GZIP_MAGIC;
        if is_gzip { Ok(lenient) } else { Err(not_base64(&error)) }
    }

    /// The decoded bytes, from the first on.
    fn open(&self) -> impl Read {
        let letters = Letters { bytes: self.bytes, counts: self.counts };
        DecoderReader::new(letters, &self.engine)
    }
}

/// The characters of a text that count.
struct Letters<'a> {
    bytes: &'a [u8],
    counts: fn(u8) -> bool,
}

impl Read for Letters<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        let mut looked_at = 0;
        for byte in self.bytes {
            if count >= space.len() {
                break;
            }
            looked_at += 1;
            if (self.counts)(*byte)
                && let Some(slot) = space.get_mut(count)
            {
                *slot = *byte;
                count += 1;
            }
        }
        self.bytes = self.bytes.get(looked_at..).unwrap_or_default();
        Ok(count)
    }
}

fn not_base64(error: &io::Error) -> Error {
    Error::config_drive(format!("it is neither an image nor gzip nor base64: {error}"))
}

/// Unpacks what `open` gives, from its first byte on each time.
fn packed<R: BufRead>(open: impl Fn() -> R, memory: u64) -> Result<Vec<u8>, Error> {
    let most = LIMIT_BYTES.min(memory).saturating_add(1);
    let bytes = measure(Members::new(open()).take(most)).map_err(|error| damaged(&error))?;
    if bytes == 0 {
        return Err(Error::config_drive("nothing is packed in its gzip data"));
    }
    check(bytes, memory)?;
    let image = collect(Members::new(open()), bytes).map_err(|error| damaged(&error))?;
    if probe(&image).is_none() {
        tracing::warn!(
            bytes = image.len(),
            "the config drive holds no file system that is known here; it is written as it is"
        );
    }
    Ok(image)
}

fn damaged(error: &io::Error) -> Error {
    Error::config_drive(format!("its gzip data is damaged: {error}"))
}

/// gzip, member after member; zeroes may follow, as tapes and disks leave them.
struct Members<R: BufRead> {
    /// None while a member is changed for the next.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Members<R> {
    fn new(source: R) -> Self {
        Self { member: Some(GzDecoder::new(source)) }
    }

    /// Goes on to the next member; false where there is none.
    fn next(&mut self) -> io::Result<bool> {
        let Some(member) = self.member.take() else { return Ok(false) };
        let mut rest = member.into_inner();
        loop {
            let bytes = rest.fill_buf()?;
            let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
            let first = bytes.get(zeroes).copied();
            let is_at_end = bytes.is_empty();
            rest.consume(zeroes);
            match first {
                Some(byte) if byte == GZIP_MAGIC[0] => break,
                Some(_) => {
                    let left = measure(rest)?;
                    return Err(io::Error::other(format!("{left} bytes of something else follow it")));
                }
                None if is_at_end => return Ok(false),
                None => {}
            }
        }
        self.member = Some(GzDecoder::new(rest));
        Ok(true)
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if space.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            match member.read(space)? {
                0 if !self.next()? => break,
                0 => {}
                count => return Ok(count),
            }
        }
        Ok(0)
    }
}

/// How many bytes there are.
fn measure(mut from: impl Read) -> io::Result<u64> {
    io::copy(&mut from, &mut io::sink())
}

/// All bytes, of which there are so many, in memory of that size.
fn collect(mut from: impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    let mut image = Vec::new();
    let length = usize::try_from(bytes).map_err(io::Error::other)?;
    image.try_reserve_exact(length).map_err(io::Error::other)?;
    image.resize(length, 0);
    from.read_exact(&mut image)?;
    Ok(image)
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn check(bytes: u64, memory: u64) -> Result<(), Error> {
    if bytes > LIMIT_BYTES {
        return Err(Error::config_drive("it is larger than 64 MiB"));
    }
    if bytes > memory {
        return Err(Error::config_drive(format!(
            "it needs more memory than the {} MiB that this machine has to spare for it; use a smaller one, or a machine with \
             more memory",
            memory >> 20
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn image() -> Vec<u8> {
        let mut image = vec![0u8; 40_000];
        image[0x8001..0x8006].copy_from_slice(b"CD001");
        image
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_form_of_the_same_image_is_read() {
        let base64 = STANDARD.encode(gzip(&image()));
        let wrapped: String =
            base64.as_bytes().chunks(76).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect();
        let (first, second) = (gzip(&image()[..100]), gzip(&image()[100..]));
        for form in [
            image(),
            gzip(&image()),
            [first, second].concat(),
            base64.clone().into_bytes(),
            base64.trim_end_matches('=').as_bytes().to_vec(),
            wrapped.into_bytes(),
            STANDARD.encode(image()).into_bytes(),
            [gzip(&image()), vec![0; 1000]].concat(),
            format!("\"{base64}\"").into_bytes(),
        ] {
            assert_eq!(decode(&form).unwrap(), image());
        }
    }

    #[test]
    fn what_is_no_config_drive_is_refused() {
        let huge = gzip(&vec![0u8; usize::try_from(LIMIT_BYTES).unwrap() + 1]);
        let cut = gzip(&image());
        let followed = [gzip(&image()), b"\0\0trailer".to_vec()].concat();
        let two_halves = [gzip(&vec![0u8; 40 << 20]), gzip(&vec![0u8; 40 << 20])].concat();
        let mut flipped = gzip(&image());
        let at = flipped.len() - 6;
        flipped[at] ^= 1;
        for (form, text) in [
            (b"".to_vec(), "empty"),
            (b"{\"user\": \"data\"}".to_vec(), "neither"),
            (STANDARD.encode(b"just text").into_bytes(), "neither gzip nor a file system"),
            (b"<html>404</html>".to_vec(), "neither"),
            (gzip(b""), "nothing is packed"),
            (followed, "7 bytes of something else"),
            (flipped, "damaged"),
            (huge, "larger than 64 MiB"),
            (two_halves, "larger than 64 MiB"),
            (cut[..cut.len() / 2].to_vec(), "damaged"),
        ] {
            let error = decode(&form).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn drive_that_does_not_fit_the_memory_is_refused_in_every_form() {
        let image = image();
        let memory = length(&image);
        for form in [
            image.clone(),
            gzip(&image),
            STANDARD.encode(gzip(&image)).into_bytes(),
            STANDARD.encode(&image).into_bytes(),
        ] {
            assert_eq!(decode_within(&form, memory).unwrap(), image);
            let error = decode_within(&form, memory - 1).unwrap_err().to_string();
            assert!(error.contains("memory"), "{error}");
        }
    }

    #[test]
    fn decoded_drive_takes_exactly_its_size() {
        for form in [gzip(&image()), STANDARD.encode(gzip(&image())).into_bytes()] {
            let decoded = decode(&form).unwrap();
            assert_eq!(decoded.capacity(), decoded.len());
        }
    }

    #[test]
    fn what_is_packed_is_taken_even_if_nothing_is_known_of_it() {
        for form in [gzip(b"just text"), STANDARD.encode(gzip(b"just text")).into_bytes()] {
            assert_eq!(decode(form).unwrap(), b"just text");
        }
    }

    proptest! {
        #[test]
        fn junk_is_decoded_without_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&data);
        }
    }
}
