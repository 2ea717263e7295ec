//! Which files the ramdisk has, and where.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::tree::{Entry, Node, Tree};
use crate::kernel::closure::Finder;
use crate::kernel::index;
use crate::kernel::package::Kernel;
use crate::{Error, Result};

/// Folders that are empty in the archive: places to mount on and to write to.
const FOLDERS: &[(&str, u32)] = &[
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc/ferric/hardware-managers.d", 0o755),
    ("etc/ironic-python-agent.d", 0o755),
    ("lib", 0o755),
    ("lib/firmware", 0o755),
    ("mnt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var/log", 0o755),
];

/// Devices PID 1 may need before it has mounted `/dev` (kernel: Documentation/admin-guide/devices.txt).
const DEVICES: &[(&str, u32, u32, u32)] =
    &[("dev/console", 0o600, 5, 1), ("dev/kmsg", 0o644, 1, 11), ("dev/null", 0o666, 1, 3)];

// The files below: musl asks 127.0.0.1:53 and waits five seconds for any name, even "localhost", without /etc/hosts.
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";
const GROUP: &str = "root:x:0:\n";

/// The last file of the archive. The kernel stops unpacking where memory ends, and boots what it has: without this file the agent
/// knows that the ramdisk is not whole. `/etc/ferric-release` names it (`FERRIC_LAST_FILE`).
pub const LAST_FILE: &str = "etc/ferric-ramdisk-complete";

/// Returns the entry of [`LAST_FILE`].
pub fn last_entry() -> Entry {
    Entry { mode: 0o644, node: Node::File(b"complete\n".to_vec()), part: BASE }
}

/// The part of the report that the agent counts towards.
pub const AGENT: &str = "agent";
/// The part of the report that small files count towards.
pub const BASE: &str = "base files";

/// Puts the folders, devices and small files in.
pub fn base(tree: &mut Tree, release_file: &str) -> Result<()> {
    for (path, mode) in FOLDERS {
        put(tree, path, *mode, Node::Folder, BASE)?;
    }
    for (path, mode, major, minor) in DEVICES {
        put(tree, path, *mode, Node::CharacterDevice { major: *major, minor: *minor }, BASE)?;
    }
    for (path, text) in [
        ("etc/hosts", HOSTS),
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/ferric-release", release_file),
    ] {
        put(tree, path, 0o644, Node::File(text.into()), BASE)?;
    }
    Ok(())
}

/// Puts the agent in as `/init`, and a link by its own name on the path.
pub fn agent(tree: &mut Tree, binary: Vec<u8>) -> Result<()> {
    put(tree, "init", 0o755, Node::File(binary), AGENT)?;
    put(tree, "usr/bin/ferric-agent", 0o777, Node::Link("/init".to_owned()), BASE)
}

/// Puts the certificates in that the agent trusts.
pub fn ca_bundle(tree: &mut Tree, bundle: Vec<u8>) -> Result<()> {
    put(tree, "etc/ssl/certs/ca-certificates.crt", 0o644, Node::File(bundle), "CA certificates")
}

/// Puts a public key in whose signatures of images count, and says where. `text` is a file of minisign; the agent reads it as
/// it is.
pub fn image_key(tree: &mut Tree, file: &Path, text: &str) -> Result<String> {
    let id = key_id(text).ok_or_else(|| {
        Error::bad(file, "no public key of minisign; give the .pub file that `minisign -G` wrote")
    })?;
    let name = format!("etc/ferric/image-keys.d/{id}.pub");
    put(tree, &name, 0o644, Node::File(text.into()), BASE)?;
    Ok(name)
}

/// The id of a key of minisign as minisign shows it: `Ed`, eight bytes of id, 32 of key, in base64 on the second line.
fn key_id(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let word = lines.find(|line| !line.starts_with("untrusted comment:"))?;
    let bytes: [u8; 42] = BASE64.decode(word).ok()?.try_into().ok()?;
    let id = bytes.strip_prefix(b"Ed")?.first_chunk::<8>()?;
    lines.next().is_none().then(|| format!("{:016X}", u64::from_le_bytes(*id)))
}

/// Puts the chosen modules in, with the index files for them.
pub fn modules(
    tree: &mut Tree,
    kernel: &Kernel,
    finder: &Finder<'_>,
    chosen: &BTreeSet<usize>,
) -> Result<()> {
    let folder = format!("lib/modules/{}", kernel.release);
    for module in chosen.iter().filter_map(|&number| kernel.modules.get(number)) {
        let bytes = kernel.module_bytes(module)?;
        put(
            tree,
            &format!("{folder}/{}", module.path),
            0o644,
            Node::File(bytes),
            part_of_module(&module.path),
        )?;
    }
    for (name, text) in index::files(kernel, finder, chosen) {
        put(tree, &format!("{folder}/{name}"), 0o644, Node::File(text.into()), "modules: index")?;
    }
    Ok(())
}

/// Puts firmware files in.
pub fn firmware(tree: &mut Tree, files: Vec<(String, Vec<u8>)>) -> Result<()> {
    for (name, bytes) in files {
        put(tree, &format!("lib/firmware/{name}"), 0o644, Node::File(bytes), "firmware")?;
    }
    Ok(())
}

fn put(tree: &mut Tree, path: &str, mode: u32, node: Node, part: &'static str) -> Result<()> {
    tree.put(path, Entry { mode, node, part }).map(|_| ()).map_err(Error::Request)
}

/// The line of the report that a module counts towards.
fn part_of_module(path: &str) -> &'static str {
    const PARTS: &[(&str, &str)] = &[
        ("drivers/net/", "modules: network"),
        ("net/", "modules: network"),
        ("drivers/scsi/", "modules: SCSI, SAS, FC, RAID"),
        ("drivers/message/", "modules: SCSI, SAS, FC, RAID"),
        ("drivers/ata/", "modules: SATA and IDE"),
        ("drivers/nvme/", "modules: NVMe"),
        ("drivers/md/", "modules: md and dm"),
        ("fs/", "modules: file systems"),
        ("drivers/usb/", "modules: USB and HID"),
        ("drivers/hid/", "modules: USB and HID"),
        ("drivers/virtio/", "modules: virtio, Hyper-V, Xen"),
        ("drivers/hv/", "modules: virtio, Hyper-V, Xen"),
        ("drivers/infiniband/", "modules: InfiniBand"),
    ];
    let below = path.strip_prefix("kernel/").unwrap_or(path);
    PARTS.iter().find(|(prefix, _)| below.starts_with(prefix)).map_or("modules: other", |(_, part)| part)
}
