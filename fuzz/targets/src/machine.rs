//! What the machine's surroundings say: its firmware, its switch, its network, the conductor and who starts it.

use ferric_agent::cmdline::Cmdline;
use ferric_agent::command::Command;
use ferric_agent::{init::network, mdns};
use hardware_managers::{dmi, find_digest, lldp_elements};
use imaging::Algorithm;
use serde_json::Value;

/// Whose digest is looked for.
const IMAGE: &str = "http://images.invalid/folder/disk.qcow2";

/// A checksum file: whatever is found is a digest.
pub(crate) fn checksum_file(data: &[u8]) {
    for algorithm in [None, Some(Algorithm::Sha256), Some(Algorithm::Sha512)] {
        if let Ok(digest) = find_digest(data, IMAGE, algorithm) {
            assert!(digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "no digest: {digest:?}");
            let length = algorithm.map(|algorithm| algorithm.length() * 2);
            assert!(length.is_none_or(|length| length == digest.len()), "another algorithm's: {digest:?}");
            // UTF-16 has a zero byte beside each digit.
            let plain: Vec<u8> = data.iter().copied().filter(|byte| *byte != 0).collect();
            let is_there = plain.windows(digest.len()).any(|bytes| bytes == digest.as_bytes());
            assert!(is_there, "a digest that is not there: {digest:?}");
        }
    }
}

/// What comes over the wire: from a DHCP server, a router, a neighbour that answers mDNS, the switch.
pub(crate) fn packets(data: &[u8]) {
    let _ = (network::understood(data), mdns::records(data));
    let elements = lldp_elements(data);
    assert!(elements.len() <= data.len() / 2, "more elements than bytes");
}

/// The firmware's table of what the machine is made of.
pub(crate) fn smbios(data: &[u8]) {
    let described = tempfile::tempdir().and_then(|root| {
        let folder = root.path().join("sys/firmware/dmi/tables");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("DMI"), data)?;
        Ok(dmi(&sys::fake::host(root.path())))
    });
    match described {
        Ok(Ok(description)) => assert!(description.is_object(), "{description}"),
        Ok(Err(error)) => panic!("a table is not described: {error}"),
        Err(error) => panic!("no files: {error}"),
    }
}

/// The kernel command line, and the network that it and a `network_data.json` ask for.
pub(crate) fn network_wishes(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let cmdline = Cmdline::parse(&text);
    for (key, _) in cmdline.iter() {
        assert!(!key.contains(char::is_whitespace) || text.contains('"'), "a blank in a key: {key:?}");
    }
    let _ = network::complaints(&cmdline, data);
}

/// A command of the conductor's: its name on the first line, its parameters behind it.
pub(crate) fn commands(data: &[u8]) {
    let Some((name, parameters)) = std::str::from_utf8(data).ok().and_then(|text| text.split_once('\n'))
    else {
        return;
    };
    if let Ok(Value::Object(parameters)) = serde_json::from_str(parameters)
        && Command::parse(name, parameters).is_ok()
    {
        assert!(Command::names().any(|known| known == name), "{name} is no command");
    }
}
