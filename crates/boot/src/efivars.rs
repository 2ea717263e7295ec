//! The firmware's boot entries, through the files of efivarfs.
//!
//! Each file holds a word of attributes and the variable's data, and must be written in one call (kernel documentation,
//! `filesystems/efivarfs`). The kernel marks most variables immutable against accidents; the mark is cleared for those
//! written or deleted here.

use std::fs::OpenOptions;
use std::io::{self, Write};

use sys::Host;

use crate::{Error, LoadOption, device_path};

const DIRECTORY: &str = "/sys/firmware/efi/efivars";
/// `EFI_GLOBAL_VARIABLE`.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, for boot services, for the running system.
const ATTRIBUTES: u32 = 7;

/// One `Boot####`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootEntry {
    /// The number in the variable's name.
    pub number: u16,
    /// Its content.
    pub option: LoadOption,
    /// Its device path in words, as `efibootmgr -v` prints it.
    pub path_text: String,
    /// Whether Ironic counts it: see [`device_path::is_bootable`].
    pub is_bootable: bool,
}

/// All readable boot entries by number.
pub fn current_entries(host: &Host) -> Result<Vec<BootEntry>, Error> {
    let missing = || Error::NoVariables { path: DIRECTORY.into() };
    let names = host.names(DIRECTORY).map_err(|_| missing())?;
    if names.is_empty() {
        return Err(missing());
    }
    let mut entries = Vec::new();
    for number in names.iter().filter_map(|name| entry_number(name)) {
        let Some(data) = read(host, &entry_name(number))? else { continue };
        let Some(option) = LoadOption::parse(&data) else {
            tracing::warn!(number, "boot entry can not be read; leaving it alone");
            continue;
        };
        let (path_text, is_bootable) =
            (device_path::text(&option.path), device_path::is_bootable(&option.path));
        entries.push(BootEntry { number, option, path_text, is_bootable });
    }
    entries.sort_by_key(|entry| entry.number);
    Ok(entries)
}

/// `BootOrder`; empty when it is not set.
pub fn boot_order(host: &Host) -> Result<Vec<u16>, Error> {
    let data = read(host, "BootOrder")?.unwrap_or_default();
    Ok(data.chunks_exact(2).filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?))).collect())
}

/// **Deletes** a boot entry from the firmware, and from `BootOrder`.
pub fn delete_entry(host: &Host, number: u16) -> Result<(), Error> {
    let name = entry_name(number);
    delete_variable(host, &name).map_err(|error| Error::write("deleting", &name, error))?;
    let order = boot_order(host)?;
    let rest: Vec<u16> = order.iter().copied().filter(|other| *other != number).collect();
    if rest != order {
        set_boot_order(host, &rest)?;
    }
    Ok(())
}

/// **Adds** a boot entry to the firmware under the first free number and puts it first in `BootOrder`. Where the order can not
/// be written, the entry is taken back: nothing would ever start it, and it would take up room.
pub fn add_entry(host: &Host, option: &LoadOption) -> Result<u16, Error> {
    let used: Vec<u16> = host
        .names(DIRECTORY)
        .map_err(|_| Error::NoVariables { path: DIRECTORY.into() })?
        .iter()
        .filter_map(|name| entry_number(name))
        .collect();
    let number = (0..=u16::MAX).find(|number| !used.contains(number)).ok_or(Error::NoFreeNumber)?;
    let data = option.encode().ok_or_else(|| Error::TooLong { label: option.description.clone() })?;
    write(host, &entry_name(number), &data)?;
    let mut order = vec![number];
    order.extend(boot_order(host)?.into_iter().filter(|other| *other != number));
    set_boot_order(host, &order).inspect_err(|_| {
        if let Err(error) = delete_variable(host, &entry_name(number)) {
            tracing::warn!(number, %error, "a boot entry that is in no boot order was left behind");
        }
    })?;
    Ok(number)
}

fn set_boot_order(host: &Host, order: &[u16]) -> Result<(), Error> {
    let data: Vec<u8> = order.iter().flat_map(|number| number.to_le_bytes()).collect();
    write(host, "BootOrder", &data)
}

fn entry_name(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// The number in a file name `Boot0001-<global GUID>`.
fn entry_number(file: &str) -> Option<u16> {
    let digits = file.strip_suffix(GLOBAL)?.strip_suffix('-')?.strip_prefix("Boot")?;
    (digits.len() == 4).then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

fn file(name: &str) -> String {
    format!("{DIRECTORY}/{name}-{GLOBAL}")
}

/// A variable's data without the attributes; `None` when there is no such variable.
fn read(host: &Host, name: &str) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(host.path(file(name))) {
        Ok(bytes) => Ok(bytes.get(4..).map(<[u8]>::to_vec)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { name: name.into(), source }),
    }
}

fn write(host: &Host, name: &str, data: &[u8]) -> Result<(), Error> {
    let fail = |error| Error::write("writing", name, error);
    let path = host.path(file(name));
    let is_new = !path.exists();
    if data.is_empty() {
        // A variable without data does not exist.
        return delete_variable(host, name).map_err(fail);
    }
    if !is_new {
        allow_change(host, name);
    }
    let mut bytes = ATTRIBUTES.to_le_bytes().to_vec();
    bytes.extend(data);
    // Not truncated: efivarfs replaces the variable as a whole, and takes an emptied file for a deleted variable.
    let mut handle = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(fail)?;
    // One call: the kernel hands each write to the firmware as a complete variable.
    let written = handle.write(&bytes).map_err(|error| {
        // The file of a variable that the firmware did not take would still hold its number.
        if is_new && let Err(left) = std::fs::remove_file(&path) {
            tracing::debug!(name, error = %left, "an empty EFI variable was left behind");
        }
        fail(error)
    })?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if handle.metadata().map_err(fail)?.len() > length {
        handle.set_len(length).map_err(fail)?; // an ordinary file system keeps the old tail; efivarfs never does
    }
    drop(handle);
    if written != bytes.len() || read(host, name)?.as_deref() != Some(data) {
        return Err(Error::NotKept { name: name.into() });
    }
    Ok(())
}

/// One that is not there is as good as deleted.
fn delete_variable(host: &Host, name: &str) -> io::Result<()> {
    allow_change(host, name);
    match std::fs::remove_file(host.path(file(name))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Clears the immutable mark. Best effort: where it can not be cleared, the write that follows says what is wrong.
fn allow_change(host: &Host, name: &str) {
    if let Err(error) = host.kernel().set_immutable(&host.path(file(name)), false) {
        tracing::debug!(name, %error, "can not clear the immutable mark of an EFI variable");
    }
}
