//! The agent as a library: a vendor builds its own binary with its own hardware managers in a few lines over this.

pub mod cmdline;
pub mod config;
pub mod logging;
pub mod progress;
