//! The step `erase_pstore`: empties the stores in which a machine keeps the kernel's crash records.
//! Source: data plane page, 7.5.
//!
//! The kernel serves one store at a time through pstore. Records may lie in others: variables of UEFI are deleted by their
//! names too, and a store that cannot be reached is an error.

use std::fs;
use std::path::Path;

use hwm::{Context, Error};
use sys::Host;

use super::firmware;

const PLACE: &str = "/sys/fs/pstore";
/// End of the names of the kernel's crash records among the variables of UEFI (`LINUX_EFI_CRASH_GUID`).
const CRASH_RECORD: &str = "-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0";
/// The usual table that announces a store for error records (ACPI 6.5, 18.5).
const ERST_TABLE: &str = "/sys/firmware/acpi/tables/ERST";

/// A place where crash records can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    /// Variables of UEFI.
    Variables,
    /// The platform's error record store, by ACPI.
    Erst,
    /// Memory that outlives a reboot.
    Memory,
}

impl Store {
    /// Returns the stores that this machine has.
    fn of(host: &Host) -> Vec<Self> {
        let reserved = host.names("/proc/device-tree/reserved-memory").unwrap_or_default();
        let devices = host.names("/sys/bus/platform/devices").unwrap_or_default();
        let has_memory = reserved.iter().chain(&devices).any(|name| name.starts_with("ramoops"));
        [
            (Self::Variables, host.is_uefi()),
            (Self::Erst, host.path(ERST_TABLE).exists()),
            (Self::Memory, has_memory),
        ]
        .into_iter()
        .filter_map(|(store, is_there)| is_there.then_some(store))
        .collect()
    }

    /// The kernel module that gives pstore this store; `None` where it is always built in.
    fn module(self) -> Option<&'static str> {
        match self {
            Self::Variables => Some("efi_pstore"),
            Self::Erst => None,
            Self::Memory => Some("ramoops"),
        }
    }

    /// The names under which it registers with pstore, over the kernel's versions.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Variables => &["efi_pstore", "efi"],
            Self::Erst => &["erst"],
            Self::Memory => &["ramoops"],
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Variables => "the variables of UEFI (efivarfs, or kernel module efi_pstore)",
            Self::Erst => {
                "the ACPI error record store (ERST, built into the kernel and not switched off by erst_disable)"
            }
            Self::Memory => "the memory kept over a reboot (kernel module ramoops)",
        }
    }
}

/// **Deletes every crash record** that the machine keeps: loads the module of its store, mounts pstore and efivarfs where they are
/// not mounted, and empties them. A machine without any such store has nothing to delete, and succeeds.
///
/// # Errors
/// A store that is there and cannot be reached, with what is missing; a record that cannot be deleted.
pub(crate) fn erase(cx: &Context) -> Result<(), Error> {
    let host = &cx.host;
    let stores = Store::of(host);
    // One store at a time is served. Variables come last: they can be reached without pstore.
    for module in stores.iter().rev().filter_map(|store| store.module()) {
        if backend(host).is_none() {
            firmware::load_module(host, module);
        }
    }
    let served = backend(host);
    let mut missing: Vec<String> = Vec::new();
    let mounted = firmware::mount(host, "pstore", "pstore", PLACE);
    let directory = firmware::mount_point(host, "pstore")
        .map_err(|error| Error::other("reading /proc/mounts", error))?
        .unwrap_or_else(|| PLACE.to_owned());
    match &mounted {
        Ok(_) => empty(host, &directory)?,
        Err(error) if !stores.is_empty() || served.is_some() => missing.push(format!("pstore ({error})")),
        Err(_) => {}
    }
    let is_served = |store: Store| {
        mounted.is_ok() && served.as_deref().is_some_and(|served| store.names().contains(&served))
    };
    let mut unreached: Vec<Store> = stores.into_iter().filter(|store| !is_served(*store)).collect();
    if host.is_uefi() {
        match delete_variables(host) {
            Ok(()) => unreached.retain(|store| *store != Store::Variables),
            Err(Unreachable(reason)) if unreached.contains(&Store::Variables) => missing.push(reason),
            Err(Unreachable(reason)) => tracing::debug!(reason, "no look at the variables themselves"),
        }
    }
    if unreached.is_empty() {
        return Ok(());
    }
    let stores: Vec<&str> = unreached.into_iter().map(Store::text).collect();
    let used = served.map(|name| format!("; pstore serves `{name}`")).unwrap_or_default();
    let missing =
        if missing.is_empty() { String::new() } else { format!("; missing: {}", missing.join(", ")) };
    Err(Error::Failed {
        message: format!(
            "crash records may remain in {}, which this kernel does not reach{used}{missing}; use a ramdisk whose kernel does",
            stores.join(" and in ")
        ),
    })
}

/// Which store the kernel serves through pstore.
fn backend(host: &Host) -> Option<String> {
    host.attribute("/sys/module/pstore/parameters/backend").filter(|name| name != "(null)")
}

fn empty(host: &Host, directory: &str) -> Result<(), Error> {
    let names = || host.names(directory).map_err(|error| Error::other(format!("reading {directory}"), error));
    for name in names()? {
        let path = format!("{directory}/{name}");
        tracing::info!(path, "deleting a crash record");
        remove(&host.path(&path)).map_err(|error| Error::other(format!("deleting {path}"), error))?;
    }
    match names()?.first() {
        None => Ok(()),
        Some(name) => Err(Error::Failed {
            message: format!("the crash record {directory}/{name} is there again after it was deleted"),
        }),
    }
}

/// Why the variables could not be looked at.
struct Unreachable(String);

/// **Deletes the variables that hold crash records**, whichever store pstore serves.
fn delete_variables(host: &Host) -> Result<(), Unreachable> {
    let unreachable = |error: std::io::Error| Unreachable(format!("efivarfs ({error})"));
    let _mounted = firmware::variables(host).map_err(unreachable)?;
    let names = host.names(firmware::VARIABLES).map_err(unreachable)?;
    for name in names.iter().filter(|name| name.starts_with("dump-") && name.ends_with(CRASH_RECORD)) {
        let path = host.path(format!("{}/{name}", firmware::VARIABLES));
        tracing::info!(variable = name, "deleting a crash record");
        if let Err(error) = host.kernel().set_immutable(&path, false) {
            tracing::debug!(variable = name, %error, "cannot clear the immutable mark of a variable");
        }
        fs::remove_file(&path)
            .map_err(|error| Unreachable(format!("deleting the variable {name} ({error})")))?;
    }
    Ok(())
}

/// Links are deleted, not followed.
fn remove(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use std::sync::Arc;
    use sys::fake::{Call, FakeRunner, RecordingKernel};

    const BACKEND: &str = "/sys/module/pstore/parameters/backend";

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
    fn a_machine_without_any_store_succeeds_and_nothing_is_touched() {
        let machine = Fixture::new()
            .file("/proc/mounts", "tmpfs /sys/fs/other tmpfs rw 0 0\n")
            .file("/sys/fs/other/x", "x");
        let cx = Context::new(machine.host(), events::Events::default());
        erase(&cx).unwrap();
        assert!(cx.host.attribute("/sys/fs/other/x").is_some());
    }

    /// What mounting each file system shows: its type and names.
    type Shown = (&'static str, &'static [&'static str]);

    /// A machine that mounts nothing by itself, and whose file systems hold these names once they are mounted.
    fn unmounted(machine: &Fixture, shown: &'static [Shown]) -> (Context, Arc<RecordingKernel>) {
        let mut kernel = RecordingKernel::default();
        kernel.fill = Some(Box::new(move |request| {
            let names = shown.iter().filter(|(kind, _)| *kind == request.filesystem);
            for name in names.flat_map(|(_, names)| *names) {
                fs::write(request.target.join(name), "panic").unwrap();
            }
        }));
        let (kernel, root) = (Arc::new(kernel), machine.host().path("/"));
        let host = Host::new(root, Arc::new(FakeRunner::default()), kernel.clone());
        (Context::new(host, events::Events::default()), kernel)
    }

    fn uefi() -> Fixture {
        Fixture::new()
            .file("/proc/mounts", "proc /proc proc rw 0 0\n")
            .file("/proc/filesystems", "nodev\tpstore\nnodev\tefivarfs\n")
            .directory("/sys/fs/pstore")
            .directory("/sys/firmware/efi/efivars")
    }

    const RECORD: &str = "dump-type0-1-1-1700000000-C-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0";
    const OTHER: &str = "BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c";

    #[test]
    fn stores_that_nobody_mounted_are_mounted_emptied_and_unmounted() {
        let machine = uefi().file(BACKEND, "efi_pstore\n");
        let (cx, kernel) =
            unmounted(&machine, &[("pstore", &["dmesg-efi_pstore-1"]), ("efivarfs", &[RECORD, OTHER])]);
        erase(&cx).unwrap();
        assert!(cx.host.names("/sys/fs/pstore").unwrap().is_empty());
        assert_eq!(cx.host.names("/sys/firmware/efi/efivars").unwrap(), [OTHER]);
        let count = |wanted: fn(&Call) -> bool| kernel.calls().iter().filter(|call| wanted(call)).count();
        assert_eq!(count(|call| matches!(call, Call::Mount(_))), 2);
        assert_eq!(count(|call| matches!(call, Call::Unmount(_))), 2);
    }

    #[test]
    fn variables_are_emptied_while_pstore_serves_another_store() {
        let machine = uefi().file(BACKEND, "erst\n").file(ERST_TABLE, "ERST");
        let (cx, _) = unmounted(&machine, &[("pstore", &["dmesg-erst-1"]), ("efivarfs", &[RECORD])]);
        erase(&cx).unwrap();
        assert!(cx.host.names("/sys/firmware/efi/efivars").unwrap().is_empty());
    }

    #[test]
    fn a_store_that_cannot_be_reached_fails_the_step_and_is_named() {
        for (machine, part) in [
            (uefi().file(ERST_TABLE, "ERST").file(BACKEND, "(null)\n"), "ERST"),
            (
                Fixture::new().file("/proc/mounts", "").directory("/sys/firmware/efi"),
                "efivarfs (the kernel has no",
            ),
            (uefi().directory("/sys/bus/platform/devices/ramoops.0"), "ramoops"),
            (
                Fixture::new().file("/proc/mounts", "").file(ERST_TABLE, "ERST"),
                "pstore (the kernel has no /sys/fs/pstore",
            ),
        ] {
            let (cx, _) = unmounted(&machine, &[]);
            let error = erase(&cx).unwrap_err().to_string();
            assert!(error.starts_with("crash records may remain in ") && error.contains(part), "{error}");
        }
    }
}
