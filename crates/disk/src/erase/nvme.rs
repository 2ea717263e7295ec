//! Format NVM (NVM Express base specification 2.0, 5.14), as far as erasing needs it. Source: data plane page, 8.2.
//!
//! Sanitize is not used: it spares no namespace of the whole subsystem, and goes on for hours that nobody can cut short.

use std::io;
use std::time::Duration;

use sys::NvmeCommand;

use super::Outcome;

/// Sends one command; what it reads goes to the buffer.
type Send<'a> = dyn FnMut(&NvmeCommand, &mut [u8]) -> io::Result<()> + 'a;

const FORMAT: u8 = 0x80;
const IDENTIFY: u8 = 0x06;
const IDENTIFY_BYTES: usize = 4096;
const SHORT: Duration = Duration::from_secs(60);
/// Controllers that erase block by block take their time, and say nowhere how much.
const FORMAT_LIMIT: Duration = Duration::from_secs(12 * 3600);

/// **Formats a namespace.** `spared` names another namespace of the controller that must not be erased, if there is one.
pub(super) fn format(send: &mut Send<'_>, namespace: u32, spared: Option<&str>) -> Result<Outcome, String> {
    let identify = |send: &mut Send<'_>, namespace: u32, which: u32| {
        let mut data = vec![0u8; IDENTIFY_BYTES];
        let command = NvmeCommand { opcode: IDENTIFY, namespace, dword10: which, timeout: SHORT };
        send(&command, &mut data).map(|()| data).map_err(|error| format!("it can not be identified: {error}"))
    };
    let controller = identify(send, 0, 1)?;
    let byte = |data: &[u8], at: usize| data.get(at).copied().unwrap_or_default();
    if byte(&controller, 256) & 0x02 == 0 {
        return Err("its controller does not support formatting".into());
    }
    let attributes = byte(&controller, 524);
    let is_for_all = attributes & 0x03 != 0;
    if let (true, Some(spared)) = (is_for_all, spared) {
        return Err(format!(
            "its controller erases all its namespaces at once, and {spared} is not to be erased"
        ));
    }
    let (erase, name) = match attributes & 0x04 {
        0 => (1, "NVMe format with user data erase"),
        _ => (2, "NVMe format with cryptographic erase"),
    };
    let shape = identify(send, namespace, 0)?;
    tracing::info!("{name} begins");
    let dword10 = keeping_shape(byte(&shape, 26), byte(&shape, 29)) | erase << 9;
    let command = NvmeCommand { opcode: FORMAT, namespace, dword10, timeout: FORMAT_LIMIT };
    send(&command, &mut []).map_err(|error| format!("{name} failed: {error}"))?;
    Ok(Outcome::Erased(name.into()))
}

/// The fields of command dword 10 that leave the sector format, metadata and protection as they are. `format` and
/// `protection` are FLBAS and DPS of the namespace.
fn keeping_shape(format: u8, protection: u8) -> u32 {
    let (format, protection) = (u32::from(format), u32::from(protection));
    let (low, metadata_inline, high) = (format & 0xf, (format >> 4) & 1, (format >> 5) & 3);
    let (kind, first) = (protection & 7, (protection >> 3) & 1);
    low | metadata_inline << 4 | kind << 5 | first << 8 | high << 12
}

/// The device paths of the other namespaces beside a namespace: `/dev/nvme0n1` and `nvme0n2` share a subsystem.
pub(super) fn siblings(device: &str, names: &[String]) -> Vec<String> {
    let controller = |name: &str| {
        let (number, namespace) = name.strip_prefix("nvme")?.split_once('n')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (is_number(number) && is_number(namespace)).then(|| number.to_owned())
    };
    let own_name = device.strip_prefix("/dev/").unwrap_or(device);
    let own = controller(own_name);
    let others = names.iter().filter(|name| own.is_some() && controller(name) == own && *name != own_name);
    others.map(|name| format!("/dev/{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Controller {
        operations: u8,
        attributes: u8,
        format_fails: bool,
        formatted: Option<(u32, u32)>,
    }

    impl Controller {
        fn new(operations: u8, attributes: u8) -> Self {
            Self { operations, attributes, format_fails: false, formatted: None }
        }

        fn run(&mut self, spared: Option<&str>) -> Result<Outcome, String> {
            let mut answer = |command: &NvmeCommand, data: &mut [u8]| {
                match (command.opcode, command.dword10) {
                    (IDENTIFY, 1) => {
                        data[256] = self.operations;
                        data[524] = self.attributes;
                    }
                    (IDENTIFY, 0) => {
                        assert_eq!(command.namespace, 7);
                        (data[26], data[29]) = (0x11, 0x02);
                    }
                    (FORMAT, _) if self.format_fails => return Err(io::Error::other("status 0x4106")),
                    (FORMAT, dword10) => self.formatted = Some((command.namespace, dword10)),
                    other => panic!("unexpected command {other:?}"),
                }
                Ok(())
            };
            format(&mut answer, 7, spared)
        }
    }

    #[test]
    fn the_controller_erases_as_well_as_it_can_and_keeps_the_sector_format() {
        let mut plain = Controller::new(0x02, 0);
        assert!(matches!(plain.run(None), Ok(Outcome::Erased(name)) if name.contains("user data")));
        assert_eq!(plain.formatted, Some((7, 0x0251)));
        let mut crypto = Controller::new(0x02, 0x04);
        assert!(matches!(crypto.run(None), Ok(Outcome::Erased(name)) if name.contains("cryptographic")));
        assert_eq!(crypto.formatted, Some((7, 0x0451)));
    }

    #[test]
    fn a_controller_that_can_not_format_is_an_error_and_left_alone() {
        let mut controller = Controller::new(0xfd, 0x04);
        assert!(controller.run(None).unwrap_err().contains("does not support"));
        assert_eq!(controller.formatted, None);
        let mut failing = Controller { format_fails: true, ..Controller::new(0x02, 0) };
        assert!(failing.run(None).unwrap_err().contains("0x4106"));
    }

    #[test]
    fn a_namespace_that_is_to_be_spared_is() {
        for attributes in [0x01, 0x02, 0x07] {
            let mut controller = Controller::new(0x02, attributes);
            assert!(controller.run(Some("/dev/nvme0n2")).unwrap_err().contains("/dev/nvme0n2"));
            assert_eq!(controller.formatted, None);
            assert!(controller.run(None).is_ok());
        }
        let mut own = Controller::new(0x02, 0x04);
        assert!(own.run(Some("/dev/nvme0n2")).is_ok(), "this one erases a namespace of its own");
    }

    #[test]
    fn the_shape_goes_into_the_fields_of_the_command() {
        assert_eq!(keeping_shape(0, 0), 0);
        assert_eq!(keeping_shape(0b0111_0011, 0b1011), 3 | 1 << 4 | 3 << 5 | 1 << 8 | 3 << 12);
    }

    #[test]
    fn namespaces_of_one_subsystem_are_known_by_their_names() {
        let names =
            ["nvme0n1", "nvme0n2", "nvme0n12", "nvme0c0n1", "nvme1n1", "sda", "nvme0n1p1"].map(str::to_owned);
        assert_eq!(siblings("/dev/nvme0n1", &names), ["/dev/nvme0n2", "/dev/nvme0n12"]);
        assert!(siblings("/dev/sda", &names).is_empty());
    }
}
