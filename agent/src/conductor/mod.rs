//! The client towards the conductor: Ironic, or our own controller. Four calls: version, lookup, heartbeat, and (later)
//! inspection. Source: agent protocol page, 3 and 4. Called by `startup`.

mod address;
mod answer;
mod client;
mod error;
mod heartbeat;
mod lookup;
mod random;
mod refresh;
mod transport;
mod waiting;

pub use address::{AddressSearch, NoAddress, find_address};
pub use client::{Client, ClientSettings, Reply};
pub use error::Error;
pub use heartbeat::{Heartbeater, Sender, Trigger, run as run_heartbeats};
pub use lookup::{LookupLimits, lookup};
pub use refresh::node_source;
pub use transport::http_client;
