//! From what the conductor or a URL gives to the bytes of a file system image (data plane page, 4.1).

use std::io::Read;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use flate2::bufread::GzDecoder;

use crate::Error;
use crate::probe::probe;

/// Largest config drive, unpacked: 64 MiB, as in Ironic.
pub const LIMIT_BYTES: u64 = 64 << 20;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Decodes a config drive: base64 of gzip of an image (what Ironic sends), gzip of an image, or the image itself.
///
/// What is packed is taken as it is: the operator may know why it holds no file system that is known here, and a warning says
/// so. What is not packed must be a known file system; anything may come from a URL, an error page too. Line breaks and other
/// foreign characters in base64, missing padding, several gzip members and zeroes after them are accepted.
///
/// # Errors
/// Text that is no base64, damaged gzip data, more than [`LIMIT_BYTES`], nothing at all.
pub fn decode(data: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
    let data = data.as_ref();
    if data.starts_with(&GZIP_MAGIC) {
        return packed(data);
    }
    if probe(data).is_some() {
        return bounded(data.to_vec());
    }
    let decoded = from_base64(data)?;
    if decoded.starts_with(&GZIP_MAGIC) {
        return packed(&decoded);
    }
    if probe(&decoded).is_none() {
        return Err(Error::config_drive(
            "it is neither gzip nor a file system (expected ISO 9660 or vfat labelled config-2, as such or packed by gzip)",
        ));
    }
    bounded(decoded)
}

/// Strictly, but for blanks and padding; else, as Ironic's agent decodes, without all that is no base64. The latter finds bytes
/// in any text, so only gzip counts.
fn from_base64(data: &[u8]) -> Result<Vec<u8>, Error> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let only = |wanted: fn(&u8) -> bool| data.iter().copied().filter(wanted).collect::<Vec<u8>>();
    let text = only(|byte| !byte.is_ascii_whitespace());
    if text.is_empty() {
        return Err(Error::config_drive("it is empty"));
    }
    engine.decode(&text).or_else(|error| {
        let bare = only(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
        engine.decode(&bare).ok().filter(|bytes| bytes.starts_with(&GZIP_MAGIC)).ok_or_else(|| {
            Error::config_drive(format!("it is neither an image nor gzip nor base64: {error}"))
        })
    })
}

fn packed(data: &[u8]) -> Result<Vec<u8>, Error> {
    let image = bounded(gunzip(data)?)?;
    if image.is_empty() {
        return Err(Error::config_drive("nothing is packed in its gzip data"));
    }
    if probe(&image).is_none() {
        tracing::warn!(
            bytes = image.len(),
            "the config drive holds no file system that is known here; it is written as it is"
        );
    }
    Ok(image)
}

/// Member after member; zeroes may follow, as tapes and disks leave them.
fn gunzip(data: &[u8]) -> Result<Vec<u8>, Error> {
    let damaged =
        |reason: &dyn std::fmt::Display| Error::config_drive(format!("its gzip data is damaged: {reason}"));
    let mut image = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let room = LIMIT_BYTES.saturating_sub(length(&image));
        let mut member = GzDecoder::new(rest).take(room + 1);
        member.read_to_end(&mut image).map_err(|error| damaged(&error))?;
        if length(&image) > LIMIT_BYTES {
            return Ok(image);
        }
        rest = member.into_inner().into_inner();
        while let [0, after @ ..] = rest {
            rest = after;
        }
        if !rest.is_empty() && !rest.starts_with(&GZIP_MAGIC) {
            return Err(damaged(&format!("{} bytes of something else follow it", rest.len())));
        }
    }
    Ok(image)
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn bounded(image: Vec<u8>) -> Result<Vec<u8>, Error> {
    if length(&image) > LIMIT_BYTES {
        return Err(Error::config_drive("it is larger than 64 MiB"));
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
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
