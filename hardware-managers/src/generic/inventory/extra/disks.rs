//! Disks as sysfs describes them, and the names that udev gives them.

use sys::Host;

use super::Rows;

/// Adds the rows of kind `disk`.
pub(super) fn add(host: &Host, rows: &mut Rows) {
    let names = host.names("/sys/block").unwrap_or_default();
    let is_disk = |name: &&String| ["sd", "hd", "vd", "nvme"].iter().any(|prefix| name.starts_with(prefix));
    let sized = names.iter().filter(is_disk).filter_map(|name| {
        let sectors: u64 = host.number(format!("/sys/block/{name}/size"))?;
        let gigabytes = sectors.saturating_mul(512) / 1_000_000_000;
        (gigabytes > 0).then_some((name, gigabytes))
    });
    let sized: Vec<_> = sized.collect();
    rows.add("disk", "logical", "count", sized.len().to_string());
    for (name, gigabytes) in sized {
        rows.add("disk", name, "size", gigabytes.to_string());
        let attribute = |part: &str| host.attribute(format!("/sys/block/{name}/{part}"));
        for (property, part) in [
            ("vendor", "device/vendor"),
            ("model", "device/model"),
            ("rev", "device/rev"),
            ("revision", "device/firmware_rev"),
            ("optimal_io_size", "queue/optimal_io_size"),
            ("physical_block_size", "queue/physical_block_size"),
            ("rotational", "queue/rotational"),
            ("nr_requests", "queue/nr_requests"),
        ] {
            rows.add_known("disk", name, property, attribute(part));
        }
        let scheduler = attribute("queue/scheduler");
        let chosen = scheduler.as_deref().and_then(|all| Some(all.split_once('[')?.1.split_once(']')?.0));
        rows.add_known("disk", name, "scheduler", chosen);
        add_cache(host, name, rows);
        add_ids(host, name, rows);
    }
}

/// Source: the kernel's `Documentation/scsi/sd-parameters.rst`.
fn add_cache(host: &Host, name: &str, rows: &mut Rows) {
    let directory = format!("/sys/block/{name}/device/scsi_disk");
    let addresses = host.names(&directory).unwrap_or_default();
    let cache =
        addresses.first().and_then(|address| host.attribute(format!("{directory}/{address}/cache_type")));
    let (write, no_read) = match cache.as_deref() {
        None => return,
        Some("write through") => ("0", "0"),
        Some("none") => ("0", "1"),
        Some(text) if text.contains("daft") => ("1", "1"),
        Some(_) => ("1", "0"),
    };
    rows.add("disk", name, "Write Cache Enable", write);
    rows.add("disk", name, "Read Cache Disable", no_read);
}

fn add_ids(host: &Host, name: &str, rows: &mut Rows) {
    const IDS: &str = "/dev/disk/by-id";
    for id in host.names(IDS).unwrap_or_default() {
        let target = std::fs::read_link(host.path(format!("{IDS}/{id}"))).ok();
        if target.as_deref().and_then(|target| target.file_name()).is_none_or(|target| target != name) {
            continue;
        }
        let property = match id.as_str() {
            id if id.starts_with("wwn") => "wwn-id",
            id if id.starts_with("scsi") => "scsi-id",
            _ => "id",
        };
        rows.add("disk", name, property, id);
    }
}
