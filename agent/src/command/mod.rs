//! Commands: from a request on the wire to a result on the wire.
//!
//! [`Command::parse`] makes a closed enum of a request, once; [`Executor`] keeps the order (one mutex, the busy rule, the
//! history, panic -> FAILED); [`Extensions`] does what a command asks, with one file per extension. Called by `api`; knows
//! nothing of HTTP but the status that goes with a refusal.

mod clock;
mod deployment;
mod ending;
mod error;
mod executor;
mod extensions;
mod flow;
mod log;
mod parameters;
mod parse;
mod record;
mod rescue;
mod sanitize;
mod standby;
mod steps;

pub use deployment::Deployment;
pub use ending::Ending;
pub use error::{ErrorClass, Failure};
pub use executor::{Executor, Fault, Handler};
pub use extensions::{Extensions, Machine};
pub(crate) use log::LogSources;
pub use parse::{Command, ExecuteStep, Mode, Refusal};
pub use record::{Outcome, Record};
