//! Tables of what a ramdisk without tools can tell about itself: from `/proc`, `/sys` and the kernel.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::json;
use sys::Host;

/// The table that stands for a tool's output; `None` where there is nothing to tell.
pub(super) fn of(member: &str, host: &Host) -> Option<String> {
    let table = match member {
        "df" => file_systems(host),
        "ip_addr" => interfaces(host),
        "lsblk" => devices(host),
        "efibootmgr" => boot_entries(host),
        "ps" => processes(host),
        _ => return None,
    };
    Some(table).filter(|table| !table.is_empty())
}

/// Rows of cells, each column as wide as its widest cell.
fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let length = cell.chars().count();
            match widths.get_mut(at) {
                Some(width) => *width = length.max(*width),
                None => widths.push(length),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join(" ").trim_end()); // writing to a string can not fail
    }
    text
}

fn titled(title: &str, rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut all = vec![title.split(' ').map(str::to_owned).collect()];
    all.extend(rows);
    columns(&all)
}

/// Size, use and place of every mounted file system.
fn file_systems(host: &Host) -> String {
    let mounts = std::fs::read_to_string(host.path("/proc/mounts")).unwrap_or_default();
    let row = |line: &str| {
        let mut words = line.split(' ');
        let (source, target) = (words.next()?, words.next()?);
        // A path with spaces is escaped; it is shown so, and not looked at.
        let stat = nix::sys::statvfs::statvfs(&host.path(target)).ok()?;
        let kib = |blocks: u64| blocks.saturating_mul(stat.fragment_size()) / 1024;
        let (size, free) = (kib(stat.blocks()), kib(stat.blocks_free()));
        let cells = [size, size.saturating_sub(free), kib(stat.blocks_available())];
        let mut row = vec![source.to_owned()];
        row.extend(cells.map(|cell| cell.to_string()));
        row.push(target.to_owned());
        Some(row)
    };
    titled("FILESYSTEM 1K-BLOCKS USED AVAILABLE MOUNTED-ON", mounts.lines().filter_map(row).collect())
}

/// Interfaces with their state, hardware address and IP addresses.
fn interfaces(host: &Host) -> String {
    let addresses = host.kernel().interface_addresses().unwrap_or_default();
    let names = host.names("/sys/class/net").unwrap_or_default();
    let row = |name: String| {
        let attribute = |file: &str| {
            host.attribute(format!("/sys/class/net/{name}/{file}")).unwrap_or_else(|| "-".into())
        };
        let own = addresses
            .iter()
            .filter(|(interface, _)| *interface == name)
            .map(|(_, address)| address.to_string());
        let own = own.collect::<Vec<_>>().join(",");
        let mut row = vec![name.clone()];
        row.extend(["operstate", "carrier", "mtu", "address"].map(attribute));
        row.push(if own.is_empty() { "-".into() } else { own });
        row
    };
    titled("NAME STATE CARRIER MTU MAC ADDRESSES", names.into_iter().map(row).collect())
}

/// Block devices with their size and place in the tree.
fn devices(host: &Host) -> String {
    let names = host.names("/sys/class/block").unwrap_or_default();
    let row = |name: String| {
        let folder = format!("/sys/class/block/{name}");
        let attribute = |file: &str| host.attribute(format!("{folder}/{file}")).unwrap_or_else(|| "-".into());
        let sectors: u64 = host.number(format!("{folder}/size")).unwrap_or(0);
        let holders = host.names(format!("{folder}/holders")).unwrap_or_default().join(",");
        vec![
            name.clone(),
            attribute("dev"),
            sectors.saturating_mul(512).to_string(),
            attribute("queue/rotational"),
            attribute("ro"),
            attribute("partition"),
            attribute("device/model"),
            attribute("wwid"),
            if holders.is_empty() { "-".into() } else { holders },
        ]
    };
    titled(
        "NAME MAJ:MIN BYTES ROTATIONAL READ-ONLY PARTITION MODEL WWID HELD-BY",
        names.into_iter().map(row).collect(),
    )
}

/// The firmware's boot entries in their order.
fn boot_entries(host: &Host) -> String {
    let mut text = String::new();
    // Writing to a string can not fail.
    if let Ok(order) = boot::efivars::boot_order(host) {
        let order: Vec<_> = order.iter().map(|number| format!("{number:04X}")).collect();
        let _ = writeln!(text, "BootOrder: {}", order.join(","));
    }
    for entry in boot::current_entries(host).unwrap_or_default() {
        let star = if entry.option.is_active() { '*' } else { ' ' };
        let (number, name, path) = (entry.number, &entry.option.description, &entry.path_text);
        let _ = writeln!(text, "Boot{number:04X}{star} {name}\t{path}");
    }
    text
}

/// Processes with state, parent, memory and command line.
fn processes(host: &Host) -> String {
    let mut numbers: Vec<u32> =
        host.names("/proc").unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let row = |number: u32| {
        let stat = host.attribute(format!("/proc/{number}/stat"))?;
        // The name stands in parentheses, and may hold some itself.
        let (before, rest) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or("-").to_owned();
        let pages: u64 = field(21).parse().unwrap_or(0);
        let line = host.attribute(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let words = line.split('\0').collect::<Vec<_>>().join(" ");
        let kib = pages.saturating_mul(4).to_string();
        Some(vec![number.to_string(), field(1), field(0), kib, name.to_owned(), words])
    };
    titled("PID PPID STATE RSS-KIB NAME COMMAND", numbers.into_iter().filter_map(row).collect())
}

/// Each block device with its properties as JSON: those of the kernel, and those of udev where it runs.
pub(super) fn block_devices(host: &Host) -> Vec<(String, String)> {
    let properties = |name: &String| {
        let folder = format!("/sys/class/block/{name}");
        let mut properties = BTreeMap::new();
        let text = std::fs::read_to_string(host.path(format!("{folder}/uevent"))).ok()?;
        properties.extend(pairs(&text, ""));
        if let Some(number) = host.attribute(format!("{folder}/dev")) {
            let database = std::fs::read_to_string(host.path(format!("/run/udev/data/b{number}")));
            properties.extend(pairs(&database.unwrap_or_default(), "E:"));
        }
        serde_json::to_string_pretty(&json!(properties)).ok()
    };
    let names = host.names("/sys/class/block").unwrap_or_default();
    names.into_iter().filter_map(|name| properties(&name).map(|text| (name, text))).collect()
}

/// `KEY=VALUE` lines that begin with a prefix.
fn pairs<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
    let lines = text.lines().filter_map(move |line| line.strip_prefix(prefix));
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()))
}
