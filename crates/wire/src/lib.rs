//! Every JSON shape that Ferric puts on the wire or reads from it.
//!
//! The types here *are* the domain types: field names are Ironic's, even where they are ugly, and nobody keeps a mirror of
//! them. The crate only knows shapes (serde); it opens no connection and touches no disk. Where a shape comes from Ironic
//! or ironic-python-agent, the module says so, and `tests/` holds it to golden JSON.

mod command;
mod documents;
mod error;
mod heartbeat;
mod image_info;
mod inspection;
mod inventory;
mod lookup;
mod node;
mod secret;
mod step;
mod version;

pub use command::{CommandError, CommandList, CommandRequest, CommandResult, CommandStatus};
pub use documents::{AgentStatus, Link, ResourceLink, RootDocument, V1Document, VersionDocument};
pub use error::{AgentFault, ApiFault};
pub use heartbeat::Heartbeat;
pub use image_info::{ImageInfo, OtherKeys};
pub use inspection::{
    Bmc, LldpFrames, NumaCore, NumaInterface, NumaMemory, NumaTopology, PciDevice, Tlv, UsbDevice,
};
pub use inventory::{BootInfo, Cpu, Disk, Firmware, Interface, Inventory, Memory, SystemVendor};
pub use lookup::{AgentConfig, LookupNode, LookupReply};
pub use node::{
    MASK, Node, Port, PowerState, ProvisionState, UnknownProvisionState, mask_secrets, normalize_mac,
};
pub use secret::Secret;
pub use step::{Argument, Step, StepKind, StepList, StepMap, VersionMap};
pub use version::Microversion;

/// The `agent_version` reported to a conductor: the ironic-python-agent release whose protocol this is.
///
/// Ironic compares it with nothing today, but older conductors parse it as a dotted number, so Ferric's own name and
/// version can not stand here.
pub const AGENT_PROTOCOL_VERSION: &str = "13.0.0";
