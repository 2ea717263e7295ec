//! What tells one disk from another: serial number and world-wide name, from sysfs and the disk's own SCSI pages.

use sys::Host;

use crate::list::behind;
use crate::usb_identity;

/// The identifiers, as far as the disk has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub serial: Option<String>,
    /// With its extension, where there is one, as `lsblk` prints it.
    pub wwn: Option<String>,
    pub wwn_with_extension: Option<String>,
    pub wwn_vendor_extension: Option<String>,
}

impl Identity {
    /// Reads the identifiers of a device below `/sys/block`.
    pub(crate) fn read(host: &Host, name: &str) -> Self {
        // A multipath device is the disk its paths lead to.
        let name = &behind(host, name);
        let attribute = |path: &str| host.attribute(format!("/sys/block/{name}/{path}"));
        let page = |path: &str| std::fs::read(host.path(format!("/sys/block/{name}/device/{path}"))).ok();

        let mut designator = page("vpd_pg83").and_then(|page| naa_designator(&page)).or_else(|| {
            let wwid = attribute("device/wwid")?;
            wwid.strip_prefix("naa.").filter(|hex| is_naa(hex)).map(str::to_ascii_lowercase)
        });
        let mut serial = page("vpd_pg80")
            .and_then(|page| unit_serial(&page))
            .or_else(|| attribute("device/serial"))
            .or_else(|| attribute("serial"));
        if let Some(usb) = usb_identity::read(host, name) {
            // udev asks no SCSI pages of a disk behind USB: bridges answer them with anything.
            serial = Some(usb.serial);
            designator = usb.ata_name;
        } else if serial.is_none() && host.path(format!("/sys/block/{name}/device/scsi_device")).is_dir() {
            // Without a unit serial number `lsblk` shows the identifier.
            serial = designator.clone();
        }
        let mut identity = Self { serial, ..Self::default() };
        match designator {
            Some(hex) => {
                identity.wwn_with_extension = Some(format!("0x{hex}"));
                identity.wwn_vendor_extension =
                    hex.get(16..).filter(|rest| !rest.is_empty()).map(|rest| format!("0x{rest}"));
                identity.wwn = identity.wwn_with_extension.clone();
            }
            None => identity.wwn = attribute("wwid").filter(|_| name.starts_with("nvme")),
        }
        identity
    }
}

/// The unit serial number of VPD page 0x80 (SPC-4, 7.8.15).
fn unit_serial(page: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(page_body(page, 0x80)?).into_owned();
    let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    (!text.is_empty()).then(|| text.to_owned())
}

/// The NAA designator of the logical unit in VPD page 0x83 (SPC-4, 7.8.6) as hex digits; the longest, where there are several.
fn naa_designator(page: &[u8]) -> Option<String> {
    let mut rest = page_body(page, 0x83)?;
    let mut best: Option<String> = None;
    while let [code_set, kind, _, length, tail @ ..] = rest {
        let length = usize::from(*length);
        let (designator, next) = (tail.get(..length)?, tail.get(length..)?);
        // Code set 1 is binary, association 0 the logical unit, designator type 3 NAA.
        if code_set & 0x0f == 1 && kind & 0x3f == 3 {
            let hex: String = designator.iter().map(|byte| format!("{byte:02x}")).collect();
            if is_naa(&hex) && best.as_ref().is_none_or(|best| hex.len() > best.len()) {
                best = Some(hex);
            }
        }
        rest = next;
    }
    best
}

fn page_body(page: &[u8], code: u8) -> Option<&[u8]> {
    match page {
        [_, found, high, low, body @ ..] if *found == code => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            Some(body.get(..length).unwrap_or(body))
        }
        _ => None,
    }
}

fn is_naa(hex: &str) -> bool {
    matches!(hex.len(), 16 | 32) && hex.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pages_give_serial_and_the_longest_name_of_the_unit() {
        assert_eq!(unit_serial(b"\0\x80\0\x08  AB12  "), Some("AB12".into()));
        assert_eq!(unit_serial(b"\0\x80\0\x02  "), None);
        assert_eq!(unit_serial(b"\0\x83\0\x02AB"), None);
        let mut page = vec![0, 0x83, 0, 0];
        page.extend([2, 0, 0, 3]);
        page.extend(b"ABC"); // vendor specific
        page.extend([0x61, 0x93, 0, 8]);
        page.extend([0x50, 9, 9, 9, 9, 9, 9, 9]); // of the port, not of the unit
        page.extend([1, 3, 0, 8]);
        page.extend([0x50, 0, 0xc5, 0, 0x11, 0x22, 0x33, 0x44]);
        page.extend([1, 3, 0, 16]);
        page.extend([0x60, 0, 0xc2, 0x90, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        page[3] = u8::try_from(page.len() - 4).unwrap();
        assert_eq!(naa_designator(&page), Some("6000c2900102030405060708090a0b0c".into()));
    }

    proptest! {
        #[test]
        fn any_page_is_read_without_panic(page in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (unit_serial(&page), naa_designator(&page));
        }
    }
}
