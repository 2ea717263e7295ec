//! The clocks, before the machine goes away: what the next system boots with is what the hardware clock says.

use std::time::SystemTime;

use super::error::{ErrorClass, Failure};
use super::extensions::Extensions;

impl Extensions {
    /// Sets this system's clock by its time server, and the hardware clock by this system's. Source: agent protocol page, 2.3.
    pub(super) fn set_clocks(&self) -> Result<(), Failure> {
        let machine = &self.machine;
        // An error only where `fail_if_clock_not_set` makes it one.
        let synchronised = machine.clock.synchronise();
        synchronised.map_err(|error| Failure::new(ErrorClass::ClockSyncError, hwm::chain(&error)))?;
        if let Err(error) = machine.context.host.kernel().set_hardware_clock(SystemTime::now()) {
            tracing::warn!(%error, "the hardware clock was not set");
        }
        Ok(())
    }
}
