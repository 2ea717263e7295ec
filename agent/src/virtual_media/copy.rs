//! Copies configuration from the disc into the ramdisk.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use disk::{Device, Files};
use sys::Host;

use super::{Error, LARGEST_FILE};

/// The folders whose files are copied, to the same place below `/`.
const FOLDERS: [&str; 2] = ["etc/ironic-python-agent", "etc/ironic-python-agent.d"];
/// The most files of one folder.
const MOST_FILES: usize = 256;

/// Copies the plain files of both folders and returns their places.
pub(super) fn configuration(
    host: &Host,
    device: &str,
    files: &Files<'_, Device>,
) -> Result<Vec<String>, Error> {
    let mut copied = Vec::new();
    for folder in FOLDERS {
        let failed = |path: &str, source: Box<dyn std::error::Error + Send + Sync>| Error::Copy {
            device: device.to_owned(),
            path: path.to_owned(),
            source,
        };
        let names = files.names(folder).map_err(|error| failed(folder, error.into()))?;
        for name in names.into_iter().flatten().take(MOST_FILES) {
            let path = format!("{folder}/{name}");
            let bytes = files.read(&path, LARGEST_FILE).map_err(|error| failed(&path, error.into()))?;
            let target = format!("/{path}");
            write(host, folder, &target, &bytes.unwrap_or_default())
                .map_err(|error| failed(&target, error.into()))?;
            copied.push(target);
        }
    }
    Ok(copied)
}

/// Writes a file that nobody else may read: there may be passwords in it.
fn write(host: &Host, folder: &str, target: &str, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(host.path(format!("/{folder}")))?;
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(host.path(target))?;
    file.write_all(bytes)
}
