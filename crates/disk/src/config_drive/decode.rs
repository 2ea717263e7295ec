//! From what the conductor or a URL gives to the bytes of a file system image (data plane page, 4.1).

use std::io::Read;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use flate2::read::MultiGzDecoder;

use crate::Error;
use crate::probe::probe;

/// Largest config drive, unpacked: 64 MiB, as in Ironic.
pub const LIMIT_BYTES: u64 = 64 << 20;

/// Decodes a config drive: base64 of gzip of an image (what Ironic sends), gzip of an image, or the image itself.
///
/// Line breaks in base64 and missing padding are accepted. Text that is no base64, and bytes that are no file system, are
/// an error: the original agent would write some of them to the disk.
pub fn decode(data: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
    let data = data.as_ref();
    if data.starts_with(&[0x1f, 0x8b]) {
        return checked(gunzip(data)?);
    }
    if probe(data).is_some() {
        return checked(data.to_vec());
    }
    let text: Vec<u8> = data.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if text.is_empty() {
        return Err(Error::config_drive("it is empty"));
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let decoded = engine.decode(&text).map_err(|error| {
        Error::config_drive(format!("it is neither an image nor gzip nor base64: {error}"))
    })?;
    match decoded.starts_with(&[0x1f, 0x8b]) {
        true => checked(gunzip(&decoded)?),
        false => checked(decoded),
    }
}

fn gunzip(data: &[u8]) -> Result<Vec<u8>, Error> {
    let mut image = Vec::new();
    MultiGzDecoder::new(data)
        .take(LIMIT_BYTES + 1)
        .read_to_end(&mut image)
        .map_err(|error| Error::config_drive(format!("its gzip data is damaged: {error}")))?;
    Ok(image)
}

fn checked(image: Vec<u8>) -> Result<Vec<u8>, Error> {
    if u64::try_from(image.len()).is_ok_and(|length| length > LIMIT_BYTES) {
        return Err(Error::config_drive("it is larger than 64 MiB"));
    }
    if probe(&image).is_none() {
        return Err(Error::config_drive(
            "it holds no file system (expected ISO 9660 or vfat labelled config-2)",
        ));
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
        ] {
            assert_eq!(decode(&form).unwrap(), image());
        }
    }

    #[test]
    fn what_is_no_config_drive_is_refused() {
        let huge = gzip(&vec![0u8; usize::try_from(LIMIT_BYTES).unwrap() + 1]);
        let cut = gzip(&image());
        for (form, text) in [
            (b"".to_vec(), "empty"),
            (b"{\"user\": \"data\"}".to_vec(), "neither"),
            (STANDARD.encode(b"just text").into_bytes(), "no file system"),
            (gzip(b"just text"), "no file system"),
            (huge, "larger than 64 MiB"),
            (cut[..cut.len() / 2].to_vec(), "damaged"),
        ] {
            let error = decode(&form).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn junk_is_decoded_without_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&data);
        }
    }
}
