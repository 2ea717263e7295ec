//! Commands after which the agent serves no more.

/// Why the agent stops serving. The command's reply goes out first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `rescue.finalize_rescue`: the machine is handed to a person who logs in. The network stays up.
    Rescue,
    /// `system.lockdown`: **the network goes down**, until the machine is power-cycled.
    Lockdown,
}
