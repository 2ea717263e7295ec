//! Firmware files that the chosen modules ask for, found below a folder laid out like `/lib/firmware`.

use std::collections::BTreeSet;
use std::path::Path;

use super::package::{Module, uncompressed};
use crate::{Error, Result};

/// The firmware that was found and that was not.
#[derive(Debug, Default)]
pub struct Firmware {
    /// Name below `/lib/firmware`, and content, uncompressed.
    pub found: Vec<(String, Vec<u8>)>,
    /// Names that modules may ask for and the folder does not have. Mostly harmless: many are for other revisions of a card.
    pub absent: Vec<String>,
}

/// Looks in `folder` for all that `modules` may ask for; `.xz`, `.zst` and `.gz` files are decompressed.
pub fn collect<'a>(folder: &Path, modules: impl Iterator<Item = &'a Module>) -> Result<Firmware> {
    if !folder.is_dir() {
        return Err(Error::bad(folder, "no such folder; give one laid out like /lib/firmware"));
    }
    let names: BTreeSet<&String> = modules.flat_map(|module| &module.info.firmware).collect();
    let mut firmware = Firmware::default();
    'names: for name in names {
        if name.split('/').any(|part| part == "..") || name.starts_with('/') {
            continue;
        }
        for ending in ["", ".xz", ".zst", ".gz"] {
            let path = folder.join(format!("{name}{ending}"));
            if path.is_file() {
                let bytes = std::fs::read(&path).map_err(Error::file("reading", &path))?;
                let bytes = uncompressed(ending, bytes).map_err(|problem| Error::bad(&path, problem))?;
                firmware.found.push((name.clone(), bytes));
                continue 'names;
            }
        }
        firmware.absent.push(name.clone());
    }
    Ok(firmware)
}

#[cfg(test)]
mod tests {
    use super::super::closure::sample::module;
    use super::*;

    #[test]
    fn only_what_modules_ask_for_is_taken_and_it_is_decompressed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bnx2")).unwrap();
        std::fs::write(folder.path().join("bnx2/a.fw"), b"plain").unwrap();
        std::fs::write(
            folder.path().join("b.bin.zst"),
            zstd::stream::encode_all(&b"squeezed"[..], 1).unwrap(),
        )
        .unwrap();
        std::fs::write(folder.path().join("unasked"), b"").unwrap();
        let modules = [module(
            "kernel/m.ko",
            &["firmware=bnx2/a.fw", "firmware=b.bin", "firmware=gone", "firmware=../../etc/shadow"],
        )];
        let firmware = collect(folder.path(), modules.iter()).unwrap();
        assert_eq!(
            firmware.found,
            [("b.bin".to_owned(), b"squeezed".to_vec()), ("bnx2/a.fw".to_owned(), b"plain".to_vec())]
        );
        assert_eq!(firmware.absent, ["gone"]);
    }
}
