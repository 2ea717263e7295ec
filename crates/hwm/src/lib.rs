//! The contract a hardware manager's author reads.
//!
//! A hardware manager is plain blocking Rust that answers questions about one kind of hardware and acts on it. Managers
//! are asked in order of [`Support`], the most specific first; [`Answer::NotMine`] passes a question on to the next, more
//! generic one. [`Registry`] holds the order; [`steps`] merges what several managers offer.
//!
//! ```
//! use hwm::{Answer, Context, Error, HardwareManager, Support};
//!
//! struct Acme;
//!
//! impl HardwareManager for Acme {
//!     fn name(&self) -> &str { "AcmeHardwareManager" }
//!     fn declared_name(&self) -> &str { "acme_hardware_manager" }
//!     fn version(&self) -> &str { "1.0" }
//!     fn support(&self, host: &sys::Host) -> Support {
//!         match host.attribute("/sys/class/dmi/id/sys_vendor").as_deref() {
//!             Some("Acme") => Support::SERVICE_PROVIDER,
//!             _ => Support::NONE,
//!         }
//!     }
//! }
//! ```

mod context;
mod error;
mod manager;
mod registry;
pub mod steps;

pub use context::{Context, StepCall};
pub use error::{Error, chain};
pub use manager::{Answer, HardwareManager, Support};
pub use registry::Registry;
