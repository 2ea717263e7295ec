//! Starts arrays that are on the disks and do not run: those that were made before this ramdisk was booted.
//!
//! Source: data plane page, 2.5. Starting an array may write to its members (it goes on with what was not in step), so it
//! happens in a ramdisk only, and only where every member may be written.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use disk::{Policy, md};
use hwm::Context;
use wire::Disk;

use super::mdadm;
use crate::settings::Settings;

/// Two that look at the same disks would start the same array twice.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Starts what is not running yet, among the members on `disks`. What can not be started is logged and left alone. True when
/// an array was started.
pub(crate) fn start_arrays(cx: &Context, settings: &Settings, disks: &[Disk]) -> bool {
    if mdadm::find(&cx.host).is_none() || !Policy::detect(&cx.host, None).in_ramdisk {
        return false;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let permitted = |disk: &&Disk| settings.allow.as_ref().is_none_or(|allow| allow.permits(disk));
    let names: Vec<String> = disks.iter().filter(permitted).map(|disk| disk.name.clone()).collect();
    let mut started = false;
    for members in idle(cx, &names) {
        let Some(device) = mdadm::free_device(&cx.host) else { break };
        tracing::info!(device, members = members.join(" "), "starting an array");
        match mdadm::assemble(cx, &device, &members) {
            Ok(()) => started = true,
            Err(error) => {
                tracing::warn!(device, error = hwm::chain(&error), "an array could not be started");
                // What was put together half would keep its members busy.
                if let Err(error) = mdadm::stop(cx, &device) {
                    tracing::debug!(device, error = hwm::chain(&error), "there is nothing to stop");
                }
            }
        }
    }
    started
}

/// The members that nobody uses, array by array, in the order of the disks, so that arrays get the same
/// numbers at every boot.
fn idle(cx: &Context, disks: &[String]) -> Vec<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    let mut arrays: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (member, superblock) in md::members(&cx.host, disks) {
        if is_in_use(cx, &member) {
            continue;
        }
        let id = superblock.uuid.to_string();
        if !arrays.contains_key(&id) {
            order.push(id.clone());
        }
        arrays.entry(id).or_default().push(member);
    }
    order.into_iter().filter_map(|id| arrays.remove(&id)).collect()
}

fn is_in_use(cx: &Context, member: &str) -> bool {
    let Some(disk) = md::whole_disk(&cx.host, member) else { return true };
    let strip = |path: &str| path.trim_start_matches("/dev/").replace('/', "!");
    let directory = match strip(member) == strip(&disk) {
        true => format!("/sys/block/{}", strip(&disk)),
        false => format!("/sys/block/{}/{}", strip(&disk), strip(member)),
    };
    !cx.host.names(format!("{directory}/holders")).unwrap_or_default().is_empty()
}
