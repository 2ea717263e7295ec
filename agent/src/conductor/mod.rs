//! The client towards the conductor: Ironic, or our own controller. Four calls: version, lookup, heartbeat, and (later)
//! inspection. Source: agent protocol page, 3 and 4. Called by `startup`.

mod address;
mod client;
mod heartbeat;
mod lookup;
mod random;

pub use address::{AddressSearch, NoAddress, find_address};
pub use client::{Client, ClientSettings, Error, Reply, http_client};
pub use heartbeat::{Heartbeater, Sender, Trigger, run as run_heartbeats};
pub use lookup::{LookupLimits, lookup};
