//! The step `erase_pstore`: empties the store in which firmware keeps the kernel's crash records.
//! Source: data plane page, 7.5.

use std::fs;
use std::path::Path;

use hwm::{Context, Error};

/// **Deletes every record** of the mounted pstore. A machine without one has nothing to delete, and succeeds.
pub(crate) fn erase(cx: &Context) -> Result<(), Error> {
    let mounts = fs::read_to_string(cx.host.path("/proc/mounts"))
        .map_err(|error| Error::other("reading /proc/mounts", error))?;
    let Some(directory) = mounts.lines().find_map(mount_point) else {
        tracing::info!("no pstore is mounted: nothing to erase");
        return Ok(());
    };
    let names =
        cx.host.names(directory).map_err(|error| Error::other(format!("reading {directory}"), error))?;
    for name in names {
        let path = format!("{directory}/{name}");
        tracing::info!(path, "deleting a crash record");
        remove(&cx.host.path(&path)).map_err(|error| Error::other(format!("deleting {path}"), error))?;
    }
    Ok(())
}

/// Where a line of `/proc/mounts` mounts a pstore: `pstore /sys/fs/pstore pstore rw 0 0`.
fn mount_point(line: &str) -> Option<&str> {
    let mut fields = line.split(' ');
    let (_, directory, kind) = (fields.next()?, fields.next()?, fields.next()?);
    (kind == "pstore").then_some(directory)
}

/// Links are deleted, not followed.
fn remove(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;

    #[test]
    fn records_and_directories_of_records_go_and_nothing_beside_them() {
        let machine = Fixture::new()
            .file("/proc/mounts", "proc /proc proc rw 0 0\npstore /sys/fs/pstore pstore rw 0 0\n")
            .file("/sys/fs/pstore/dmesg-efi-1", "panic")
            .file("/sys/fs/pstore/older/dmesg-efi-2", "panic")
            .file("/sys/fs/kept", "kept")
            .link("/sys/fs/pstore/link", "../kept");
        let cx = Context::new(machine.host(), events::Events::default());
        erase(&cx).unwrap();
        assert!(cx.host.names("/sys/fs/pstore").unwrap().is_empty());
        assert_eq!(cx.host.attribute("/sys/fs/kept").as_deref(), Some("kept"));
    }

    #[test]
    fn without_a_mounted_pstore_nothing_is_touched() {
        let machine = Fixture::new()
            .file("/proc/mounts", "tmpfs /sys/fs/pstore tmpfs rw 0 0\n")
            .file("/sys/fs/pstore/x", "x");
        let cx = Context::new(machine.host(), events::Events::default());
        erase(&cx).unwrap();
        assert!(cx.host.attribute("/sys/fs/pstore/x").is_some());
    }
}
