//! A machine that partition images are deployed to, on a loop device.

#![allow(dead_code)] // each test binary uses its part
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // clippy does not see that this is a test

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use disk::AllowList;
use disk::table::Table;
use events::Events;
use flate2::Compression;
use flate2::write::GzEncoder;
use hardware_managers::{Deployment, Settings, builtin};
use hwm::{Context, Error, Registry, StepCall};
use imaging::Transport;
use serde_json::{Value, json};
use sys::Host;
use wire::StepKind;

use super::{Loop, MIB, file, serve, sha256, tool};

pub const ROOT_UUID: &str = "11111111-2222-4333-8444-666666666666";
const TOOLS: [&str; 5] =
    ["/usr/sbin/mke2fs", "/usr/sbin/mkfs.ext4", "/usr/sbin/blkid", "/usr/sbin/debugfs", "/usr/bin/qemu-img"];

/// A machine with one disk.
pub struct Machine<'d> {
    pub disk: &'d Loop,
    pub deployment: Arc<Deployment>,
    registry: Registry,
    cx: Context,
}

impl<'d> Machine<'d> {
    pub fn new(disk: &'d Loop, capabilities: &str) -> Self {
        let deployment = Deployment::new(Settings {
            allow: Some(AllowList::parse(disk.name()).unwrap()),
            transport: Transport {
                attempts: 1,
                retry_interval: Duration::from_millis(10),
                ..Transport::default()
            },
            disk_wait_attempts: 1,
            ..Settings::default()
        });
        let host = Host::real();
        let registry = Registry::probe(&host, builtin(&deployment));
        let node = json!({"instance_info": {"root_device": {"name": disk.name()}},
                          "properties": {"capabilities": capabilities}});
        let cx = Context::new(host, Events::default()).with_node(node);
        Self { disk, deployment, registry, cx }
    }

    /// Deploys; `change` overrides keys of `image_info`.
    pub fn deploy(&self, image: &[u8], change: Value, drive: Option<&[u8]>) -> Result<String, Error> {
        let url = serve(vec![("part.img", image.to_vec())]);
        let mut info = json!({
            "id": "part.img", "urls": [format!("{url}/part.img")], "disk_format": null, "container_format": null,
            "stream_raw_images": true, "os_hash_algo": "sha256", "os_hash_value": sha256(image), "kernel": null,
            "ramdisk": null, "root_gb": 1, "root_mb": 48, "swap_mb": 8, "ephemeral_mb": 0, "ephemeral_format": null,
            "preserve_ephemeral": false, "image_type": "partition", "deploy_boot_mode": "bios", "boot_option": "local",
        });
        info.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let arguments = json!({"image_info": info, "configdrive": drive.map(conductor_form)});
        let call = StepCall {
            kind: StepKind::Deploy,
            step: "write_image".into(),
            arguments: arguments.as_object().unwrap().clone(),
            ports: json!([]),
        };
        let result = self.registry.run_step(&call, &self.cx)?;
        Ok(result["result"].as_str().unwrap().to_owned())
    }

    pub fn table(&self) -> Table {
        Table::read_device(&self.disk.path).unwrap()
    }

    /// A partition's bytes as a file that tools can read.
    pub fn copy(&self, number: usize, directory: &Path) -> String {
        let partition = self.table().partitions()[number - 1].clone();
        let bytes = self.disk.read(partition.start_byte, usize::try_from(partition.size_byte).unwrap());
        file(directory, &format!("part{number}"), &bytes).to_str().unwrap().to_owned()
    }

    /// What `blkid` calls a partition: its type, label and UUID.
    pub fn blkid(&self, number: usize, name: &str) -> String {
        let partition = self.table().partitions()[number - 1].clone();
        let (offset, size) = (partition.start_byte.to_string(), partition.size_byte.to_string());
        let arguments = ["-p", "-o", "value", "-s", name, "-O", &offset, "-S", &size, self.disk.name()];
        tool("/usr/sbin/blkid", &arguments).trim().to_owned()
    }
}

impl Drop for Machine<'_> {
    /// Makes the kernel forget the partitions, so that nothing is left when the device goes.
    fn drop(&mut self) {
        let _ =
            disk::show_partitions(&self.cx.host, self.disk.name(), &Table::None, disk::Patience::default());
    }
}

fn conductor_form(drive: &[u8]) -> String {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(drive).unwrap();
    base64::engine::general_purpose::STANDARD.encode(gzip.finish().unwrap())
}

/// A disk, unless this machine can not do what the test needs.
pub fn disk(mebibytes: usize, sector: u32) -> Option<Loop> {
    if let Some(missing) = TOOLS.iter().find(|tool| !Path::new(tool).exists()) {
        let _ = Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: needs {missing}\n"));
        return None;
    }
    Loop::of((mebibytes * MIB) as u64, sector)
}

/// A root file system of 40 MiB with a file in it.
pub fn root_image(directory: &Path) -> Vec<u8> {
    root_image_of(directory, "40m")
}

/// Of another size, in words of `mke2fs`.
pub fn root_image_of(directory: &Path, size: &str) -> Vec<u8> {
    let tree = directory.join("tree");
    std::fs::create_dir_all(tree.join("etc")).unwrap();
    std::fs::write(tree.join("etc/release"), "deployed").unwrap();
    let image = directory.join("root.img");
    let (tree, path) = (tree.to_str().unwrap(), image.to_str().unwrap());
    tool("/usr/sbin/mke2fs", &["-q", "-t", "ext4", "-b", "4096", "-d", tree, "-U", ROOT_UUID, path, size]);
    std::fs::read(image).unwrap()
}
