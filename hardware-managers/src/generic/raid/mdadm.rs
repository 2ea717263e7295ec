//! The program that makes, starts and stops arrays. What it prints is for people: facts are read from sysfs and superblocks.

use std::time::Duration;

use hwm::{Context, Error};
use sys::{CommandLine, Host};

use super::{failed, wrapped};

const PLACES: [&str; 3] = ["/usr/sbin/mdadm", "/sbin/mdadm", "/usr/bin/mdadm"];
/// Making an array writes a few sectors to each member; a disk that is slow to answer may take its time.
const LIMIT: Duration = Duration::from_secs(300);
/// Highest number of an array that the kernel names by itself.
const LAST_NUMBER: u32 = 127;

/// Where it is, if it is here.
pub(crate) fn find(host: &Host) -> Option<&'static str> {
    PLACES.into_iter().find(|place| host.path(place).is_file())
}

/// The first number that no array has.
pub(crate) fn free_device(host: &Host) -> Option<String> {
    (0..=LAST_NUMBER).map(|number| format!("md{number}")).find_map(|name| {
        // A node that is left of an array that was stopped can be used again.
        let members = host.names(format!("/sys/block/{name}/slaves")).unwrap_or_default();
        let is_free = members.is_empty();
        is_free.then(|| format!("/dev/{name}"))
    })
}

/// **Makes an array of these members**, which lose what they hold. `metadata` is its version: `1` for the newest, `1.0` for one at
/// the end of the members, so that each of them alone looks like what the array holds.
pub(crate) fn create(
    cx: &Context,
    device: &str,
    name: &str,
    level: &str,
    metadata: &str,
    members: &[String],
) -> Result<(), Error> {
    let count = members.len().to_string();
    // Without a host's name in it, the array is at home wherever the disks are put.
    let options =
        ["--force", "--run", "--metadata", metadata, "--level", level, "--name", name, "--homehost", "any"];
    let mut arguments = vec!["--create", device];
    arguments.extend(options);
    arguments.extend(["--raid-devices", &count]);
    arguments.extend(members.iter().map(String::as_str));
    tracing::info!(device, name, level, members = members.join(" "), "making an array");
    run(cx, &arguments)
}

/// Adds a member that an array lacks. **The member loses what it holds.**
pub(crate) fn add(cx: &Context, device: &str, member: &str) -> Result<(), Error> {
    run(cx, &["--manage", device, "--add", member])
}

/// Starts an array of members that exist.
pub(crate) fn assemble(cx: &Context, device: &str, members: &[String]) -> Result<(), Error> {
    let mut arguments = vec!["--assemble", device];
    arguments.extend(members.iter().map(String::as_str));
    run(cx, &arguments)
}

/// Stops an array. Its members keep what they hold.
pub(crate) fn stop(cx: &Context, device: &str) -> Result<(), Error> {
    run(cx, &["--stop", device])
}

/// **Removes the superblock of a member.**
pub(crate) fn zero_superblock(cx: &Context, member: &str) -> Result<(), Error> {
    run(cx, &["--zero-superblock", member])
}

fn run(cx: &Context, arguments: &[&str]) -> Result<(), Error> {
    let Some(program) = find(&cx.host) else {
        return Err(failed(
            "this ramdisk has no mdadm: build it with `ferric-image build --with mdadm` for nodes with software RAID",
        ));
    };
    let command = CommandLine::new(std::iter::once(program).chain(arguments.iter().copied())).limit(LIMIT);
    cx.host.runner().run(&command).map(drop).map_err(|error| wrapped(&error))
}
