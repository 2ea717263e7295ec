//! Follows an agent's event stream while it lives, hands the events to watchers and puts the ones that matter on the timeline.
//! An agent without the endpoint (any that is not Ferric's) is left alone: watchers then see states only.

use std::time::Duration;

use events::{EventKind, Phase};
use uuid::Uuid;

use crate::agent_client::AgentClient;
use crate::controller::Controller;

/// How long the agent may keep a request open.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two pages: an agent that always has more must not keep the controller busy.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// A running relay; dropping it ends it.
pub struct Relay {
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Starts following.
    pub fn start(controller: Controller, node: Uuid, agent: AgentClient) -> Self {
        let url = agent.url().to_owned();
        Self { url, task: tokio::spawn(follow(controller, node, agent)) }
    }

    /// Whether this is the relay of the agent at `url`.
    pub fn is_for(&self, url: &str) -> bool {
        self.url == url
    }
}

async fn follow(controller: Controller, node: Uuid, agent: AgentClient) {
    let mut after = 0;
    let mut first_byte = false;
    loop {
        match agent.events(after, PATIENCE).await {
            Ok(Some(page)) => {
                // A smaller number than asked for: the agent started anew.
                after = page.next;
                for event in page.events {
                    mark(&controller, node, &event.kind, &mut first_byte).await;
                    controller.agent_event(node, event.kind);
                }
                tokio::time::sleep(PAUSE).await;
            }
            Ok(None) => {
                tracing::info!(%node, "this agent reports no events: only states will be shown");
                return;
            }
            Err(error) => {
                tracing::debug!(%node, error = &error as &dyn std::error::Error, "no events from the agent");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

async fn mark(controller: &Controller, node: Uuid, kind: &EventKind, first_byte: &mut bool) {
    match kind {
        EventKind::Progress { phase: Phase::Write, done, .. } if *done > 0 && !*first_byte => {
            *first_byte = true;
            controller.mark(node, "first byte").await;
        }
        EventKind::PhaseFinished { phase: Phase::Write, .. } => {
            controller.mark(node, "first byte").await;
            controller.mark(node, "last byte").await;
        }
        EventKind::PhaseFinished { phase: Phase::Verify, .. } => controller.mark(node, "verified").await,
        _ => {}
    }
}
