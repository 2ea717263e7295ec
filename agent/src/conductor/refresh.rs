//! Asks for the node once more, right before a disk is chosen without hints. Source: agent protocol page, 3.6.

use std::sync::Arc;
use std::time::Duration;

use events::Events;
use hardware_managers::NodeSource;
use tokio::runtime::Handle;

use super::client::Client;
use super::lookup::{LookupLimits, lookup};

/// Upstream asks as long as at start, and so holds a deployment up by ten minutes when the conductor does not answer.
const LONGEST: Duration = Duration::from_secs(60);

/// Asks the conductor for a node by its id, by the rules of lookup. Of the answer the node alone counts: the token is masked,
/// and the configuration is that of the start. To be called from a blocking thread; must be made within the runtime.
pub fn node_source(client: Arc<Client>, addresses: Vec<String>, limits: LookupLimits) -> NodeSource {
    let limits = LookupLimits { timeout: limits.timeout.min(LONGEST), ..limits };
    let runtime = Handle::current();
    Arc::new(move |uuid| {
        tracing::info!("the node has no root device hints; asking whether it has some now");
        let events = Events::default(); // not the lookup of the start
        match runtime.block_on(lookup(&client, &addresses, Some(uuid), limits, &events)) {
            Ok(reply) => serde_json::to_value(reply.node).ok(),
            Err(error) => {
                tracing::warn!(
                    error = error.told(),
                    "asking for the node anew failed; going on with what is known"
                );
                None
            }
        }
    })
}
