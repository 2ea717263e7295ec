//! Listens to the kernel's announcements for as long as the machine runs, and asks for the drivers of devices that come late:
//! a USB stick, a disk behind a slow host adapter.

use std::thread;
use std::time::Duration;

use sys::Host;
use sys::net::uevent::{Received, UeventSocket};

use super::devices;
use super::loader::Loader;

/// The kernel's own limit is 2 KiB of text and a header.
const LARGEST_MESSAGE: usize = 8192;
const WAIT: Duration = Duration::from_secs(3600);
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// Starts to listen. What is announced from the moment this returns is not missed.
pub(super) fn start(host: &Host, loader: &Loader) {
    let socket = match UeventSocket::open() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "devices that come later get no driver");
            return;
        }
    };
    let (host, loader) = (host.clone(), loader.clone());
    crate::init::spawn("hotplug", move || listen(&host, &loader, &socket));
}

fn listen(host: &Host, loader: &Loader, socket: &UeventSocket) {
    let mut buffer = vec![0; LARGEST_MESSAGE];
    loop {
        match socket.receive(&mut buffer, WAIT) {
            Ok(Received::Message(length)) => {
                if let Some(added) = buffer.get(..length).and_then(added) {
                    loader.stir();
                    if let Some(alias) = added {
                        tracing::trace!(alias, "a device was announced");
                        loader.want_devices([alias]);
                    }
                }
            }
            Ok(Received::Lost) => {
                loader.want_devices(devices::modaliases(host));
            }
            Ok(Received::Nothing) => {}
            Err(error) => {
                tracing::warn!(%error, "listening for devices");
                thread::sleep(PAUSE_AFTER_ERROR);
            }
        }
    }
}

/// For the announcement of a new device: what it asks for, if anything. `None` for all other announcements.
fn added(message: &[u8]) -> Option<Option<String>> {
    let mut is_device = false;
    let mut alias = None;
    for field in message.split(|byte| *byte == 0) {
        match String::from_utf8_lossy(field).split_once('=') {
            Some(("ACTION", action)) if action != "add" => return None,
            Some(("MODALIAS", value)) => alias = Some(value.to_owned()),
            // A module that is loaded is announced too, and is no device.
            Some(("SUBSYSTEM", subsystem)) => {
                is_device = !["module", "drivers", "bdi", "workqueue"].contains(&subsystem)
            }
            _ => {}
        }
    }
    is_device.then_some(alias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_device_asks_for_its_driver_and_other_announcements_do_not() {
        let add =
            b"add@/devices/pci0/virtio0\0ACTION=add\0SUBSYSTEM=virtio\0MODALIAS=virtio:d1v2\0SEQNUM=9\0";
        assert_eq!(added(add), Some(Some("virtio:d1v2".into())));
        assert_eq!(added(b"add@/x\0ACTION=add\0SUBSYSTEM=block\0"), Some(None));
        assert_eq!(added(b"add@/module/ext4\0ACTION=add\0SUBSYSTEM=module\0"), None);
        assert_eq!(added(b"remove@/x\0ACTION=remove\0SUBSYSTEM=usb\0MODALIAS=usb:v1\0"), None);
        assert_eq!(added(b""), None);
    }

    proptest! {
        #[test]
        fn any_message_is_survived(message in prop::collection::vec(any::<u8>(), 0..300)) {
            added(&message);
        }
    }
}
