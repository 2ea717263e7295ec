//! Progress as a stream of typed events.
//!
//! Events are made where the work is done (imaging, disk, commands) and go *sideways*: whoever works emits into an
//! [`Events`] handle and never waits for a listener. Everyone else only listens: the console, the log, the agent's
//! event endpoint and, through it, the controller's `ferric watch`. This crate holds the vocabulary ([`EventKind`]),
//! the handle and its bounded buffer; it knows nothing of HTTP, disks or terminals.

mod buffer;
mod kind;

pub use buffer::Events;
pub use kind::{Event, EventKind, EventPage, Phase};
