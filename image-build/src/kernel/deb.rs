//! Opens a `.deb`: an ar archive that holds `control.tar.*` and `data.tar.*` (deb(5)). Streams; nothing is unpacked to disk here.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::ar::Archive;
use crate::{Error, Result};

/// What the package says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// Package name: `linux-image-6.1.0-56-amd64`.
    pub package: String,
    /// Package version: `6.1.192-2`.
    pub version: String,
    /// Debian's name of the machine: `amd64`.
    pub architecture: String,
}

/// One regular file of the package while it passes by; its content is read through `data`.
pub struct PassingFile<'a> {
    /// Path without leading `./`.
    pub path: String,
    /// Length in bytes.
    pub length: u64,
    /// The content.
    pub data: &'a mut dyn Read,
}

/// Reads the package at `path` once, from front to back, and shows each regular file to `visit`.
pub fn read(path: &Path, mut visit: impl FnMut(PassingFile<'_>) -> Result<()>) -> Result<Control> {
    let file = File::open(path).map_err(Error::file("opening", path))?;
    let not_a_deb = |error: io::Error| {
        Error::bad(
            path,
            format!("not a Debian package ({error}); give a linux-image-*.deb, or none to download one"),
        )
    };
    let mut archive = Archive::open(BufReader::with_capacity(1 << 20, file)).map_err(not_a_deb)?;
    let mut control = None;
    while let Some(member) = archive.next_member().map_err(not_a_deb)? {
        let damaged = |error: io::Error| {
            Error::bad(
                path,
                format!("reading {} ({error}); the package is damaged: download it again", member.name),
            )
        };
        if member.name.starts_with("control.tar") {
            let mut tar = tar::Archive::new(decompressor(&member.name, &mut archive).map_err(damaged)?);
            for entry in tar.entries().map_err(damaged)? {
                let mut entry = entry.map_err(damaged)?;
                if plain_path(&entry.path_bytes()) == "control" {
                    let mut text = String::new();
                    (&mut entry).take(1 << 20).read_to_string(&mut text).map_err(damaged)?;
                    control = Some(parse_control(&text));
                }
            }
        } else if member.name.starts_with("data.tar") {
            let mut tar = tar::Archive::new(decompressor(&member.name, &mut archive).map_err(damaged)?);
            for entry in tar.entries().map_err(damaged)? {
                let mut entry = entry.map_err(damaged)?;
                if entry.header().entry_type().is_file() {
                    let path = plain_path(&entry.path_bytes());
                    visit(PassingFile { path, length: entry.size(), data: &mut entry })?;
                }
            }
            return control
                .ok_or_else(|| Error::bad(path, "no control file in the package; give a linux-image-*.deb"));
        }
    }
    Err(Error::bad(path, "no data.tar in the package; give a linux-image-*.deb"))
}

fn decompressor<'a, R: Read + 'a>(name: &str, input: R) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match name.rsplit('.').next() {
        Some("xz") => Box::new(liblzma::read::XzDecoder::new_multi_decoder(input)),
        Some("zst") => Box::new(zstd::stream::read::Decoder::new(input)?),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(input)),
        Some("tar") => Box::new(input),
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "compressed in a way this program does not know",
            ));
        }
    })
}

fn plain_path(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_start_matches("./").trim_start_matches('/').to_owned()
}

fn parse_control(text: &str) -> Control {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    };
    Control { package: field("Package"), version: field("Version"), architecture: field("Architecture") }
}

#[cfg(test)]
pub(crate) mod sample {
    use std::io::Write;

    use super::super::ar;

    /// A package with these files; `compression` is the ending of its members: `xz`, `zst` or `gz`.
    pub(crate) fn package(name: &str, compression: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
        let control =
            format!("Package: {name}\nVersion: 1.2-3\nArchitecture: amd64\nDescription: Version: no\n");
        let control = squeeze(compression, tar_of(&[("./control", control.as_bytes())]));
        let data = squeeze(compression, tar_of(files));
        ar::sample::archive(&[
            ("debian-binary", b"2.0\n"),
            (&format!("control.tar.{compression}"), &control),
            (&format!("data.tar.{compression}"), &data),
        ])
    }

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append_data(&mut header, path, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn squeeze(compression: &str, data: Vec<u8>) -> Vec<u8> {
        match compression {
            "xz" => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(&data).unwrap();
                encoder.finish().unwrap()
            }
            "zst" => zstd::stream::encode_all(&data[..], 1).unwrap(),
            "gz" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&data).unwrap();
                encoder.finish().unwrap()
            }
            other => panic!("no such compression: {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_disk(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn files_and_control_are_read_whatever_the_compression() {
        for compression in ["xz", "zst", "gz"] {
            let deb = on_disk(&sample::package(
                "linux-image-x",
                compression,
                &[("./boot/vmlinuz-x", b"kernel"), ("./usr/a", b"")],
            ));
            let mut seen = Vec::new();
            let control = read(deb.path(), |file| {
                let mut text = String::new();
                file.data.read_to_string(&mut text).unwrap();
                seen.push((file.path, text));
                Ok(())
            })
            .unwrap();
            assert_eq!(
                control,
                Control {
                    package: "linux-image-x".into(),
                    version: "1.2-3".into(),
                    architecture: "amd64".into()
                }
            );
            assert_eq!(
                seen,
                [("boot/vmlinuz-x".to_owned(), "kernel".to_owned()), ("usr/a".to_owned(), String::new())]
            );
        }
    }

    #[test]
    fn something_else_is_refused_with_what_to_give_instead() {
        let error = read(on_disk(b"\x7fELF and so on").path(), |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("not a Debian package") && error.contains("linux-image-*.deb"), "{error}");
    }

    #[test]
    fn a_truncated_package_is_called_damaged() {
        let noise: Vec<u8> = (0..40_000u32)
            .map(|number| (number.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
            .collect();
        let whole = sample::package("linux-image-x", "xz", &[("./boot/vmlinuz-x", &noise)]);
        let error = read(on_disk(&whole[..whole.len() / 2]).path(), |file| {
            io::copy(file.data, &mut io::sink())
                .map_err(|error| Error::bad(Path::new("x"), format!("damaged: {error}")))?;
            Ok(())
        })
        .unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
