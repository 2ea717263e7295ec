//! The serial number of a disk behind USB, as udev's `usb_id` forms it from the USB descriptor, and that of an ATA disk in an enclosure,
//! as udev's `ata_id` reads it. `lsblk` and ironic-python-agent show the first of: serial number of the ATA disk, that of the
//! USB device, vendor and model.

use std::path::{Path, PathBuf};

use sys::Host;

/// What udev knows of a disk behind USB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UsbIdentity {
    /// `ID_SERIAL_SHORT`, else `ID_SERIAL`.
    pub(crate) serial: String,
    /// The world-wide name of the ATA disk in an enclosure, in hex.
    pub(crate) ata_name: Option<String>,
}

/// Reads the identity of a device below `/sys/block`; `None` where it is not behind USB.
pub(crate) fn read(host: &Host, name: &str) -> Option<UsbIdentity> {
    let leaf = std::fs::canonicalize(host.path(format!("/sys/block/{name}"))).ok()?;
    let usb = leaf.ancestors().find(|directory| is_usb(directory) && directory.join("idVendor").exists())?;
    if let Some(ata) = in_enclosure(host, name) {
        return Some(ata);
    }
    let text = |directory: &Path, file: &str| {
        let bytes = std::fs::read(directory.join(file)).ok()?;
        let text =
            String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
        (!text.is_empty()).then_some(text)
    };
    let unit = host.path(format!("/sys/block/{name}/device"));
    // A serial number with other characters does not count (usb_id, after Microsoft's rule for descriptors).
    let is_plain = |serial: &String| serial.chars().all(|c| (' '..='\u{7f}').contains(&c) && c != ',');
    let serial = text(usb, "serial").filter(is_plain).map(|serial| cleaned(&serial));
    let serial = serial.or_else(|| {
        let vendor =
            text(&unit, "vendor").or_else(|| text(usb, "manufacturer")).or_else(|| text(usb, "idVendor"))?;
        let model =
            text(&unit, "model").or_else(|| text(usb, "product")).or_else(|| text(usb, "idProduct"))?;
        let address = std::fs::canonicalize(&unit).ok()?;
        let address = address.file_name()?.to_str()?;
        let mut numbers = address.rsplit(':');
        let (unit, target) = (numbers.next()?, numbers.next()?);
        Some(format!("{}_{}-{target}:{unit}", cleaned(&vendor), cleaned(&model)))
    })?;
    Some(UsbIdentity { serial, ata_name: None })
}

/// The ATA disk behind a bridge that is not removable, where the bridge hands out its IDENTIFY data (VPD page 0x89, SAT-4, 12.4.2).
fn in_enclosure(host: &Host, name: &str) -> Option<UsbIdentity> {
    if host.attribute(format!("/sys/block/{name}/removable")).is_some_and(|value| value != "0") {
        return None;
    }
    let page = std::fs::read(host.path(format!("/sys/block/{name}/device/vpd_pg89"))).ok()?;
    let identify = page.get(60..572).filter(|_| page.get(1) == Some(&0x89))?;
    // Words are little-endian; characters lie in them high byte first.
    let characters: Vec<u8> =
        identify.get(20..40)?.chunks_exact(2).flat_map(|pair| pair.iter().rev().copied()).collect();
    let serial =
        cleaned(String::from_utf8_lossy(&characters).trim_matches(|c: char| c.is_whitespace() || c == '\0'));
    let word =
        |number: usize| Some(u16::from_le_bytes(identify.get(number * 2..number * 2 + 2)?.try_into().ok()?));
    let has_name = word(87)? & 0xc100 == 0x4100;
    let name: Option<Vec<String>> = (108..112).map(|number| Some(format!("{:04x}", word(number)?))).collect();
    let ata_name = name.map(|words| words.concat()).filter(|name| has_name && name.starts_with('5'));
    (!serial.is_empty()).then_some(UsbIdentity { serial, ata_name })
}

/// As udev writes such texts: blanks become one underscore, and so does each character that is not usual in names.
fn cleaned(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "#+-.:=@_".contains(c) || !c.is_ascii();
    words.join("_").chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

fn is_usb(directory: &Path) -> bool {
    let link: Option<PathBuf> = std::fs::read_link(directory.join("subsystem")).ok();
    link.is_some_and(|link| link.file_name().is_some_and(|name| name == "usb"))
}
