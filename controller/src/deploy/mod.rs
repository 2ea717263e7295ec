//! Doing things to nodes. Each node that is under way has one worker: it looks at the record, does the next thing, writes down
//! what it did, and waits for a heartbeat, a change or a while. A worker holds nothing that matters: after a restart of the
//! controller a new one goes on from the record.

mod failure;
mod plan;
mod relay;
mod simple;
mod stages;
mod verdict;

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use uuid::Uuid;
use wire::ProvisionState;

use crate::controller::{Controller, PowerFault};
use crate::store::StoreError;

pub use plan::{PlanError, check as check_deploy};
pub use simple::automated_clean;

/// How others reach a worker.
#[derive(Default)]
pub struct WorkerHandle {
    notify: Notify,
    pending: AtomicBool,
}

/// What a worker does after one look at the record.
enum Next {
    /// Looks again at once.
    Again,
    /// Looks again when something happens, or after this long.
    Wait(Duration),
    /// Ends: the node is at rest.
    Rest,
}

/// What a worker remembers between two looks. Losing it with a restart costs nothing but a repeated request.
#[derive(Default)]
struct Memory {
    relay: Option<relay::Relay>,
    unreachable_since: Option<Instant>,
    bootloader_deadline: Option<Instant>,
    power_seen: Option<Instant>,
    off_since: Option<Instant>,
}

/// Something went wrong while working on a node.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The operation fails, in this step, for this reason.
    #[error("{step}: {reason}")]
    Step {
        /// What was being done.
        step: String,
        /// Why it failed.
        reason: String,
        /// What the operator can do about it.
        advice: Option<&'static str>,
    },
    /// Power control failed.
    #[error(transparent)]
    Power(#[from] PowerFault),
    /// The store failed: nothing can be said about the node.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Trouble {
    fn step(step: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Step { step: step.into(), reason: reason.into(), advice: None }
    }
}

impl Controller {
    /// Makes sure that somebody works on the node, and that they look at it now.
    pub fn work_on(&self, node: Uuid) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        match workers.entry(node) {
            Entry::Occupied(known) => {
                known.get().pending.store(true, Ordering::SeqCst);
                known.get().notify.notify_one();
            }
            Entry::Vacant(place) => {
                let handle = place.insert(Arc::default()).clone();
                let controller = self.clone();
                tokio::spawn(async move { controller.worker(node, handle).await });
            }
        }
    }

    /// Wakes the node's worker, if it has one.
    pub fn wake_worker(&self, node: Uuid) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = workers.get(&node) {
            handle.pending.store(true, Ordering::SeqCst);
            handle.notify.notify_one();
        }
    }

    /// Takes up everything that was under way when the controller ended. Returns how many nodes that were.
    pub async fn resume(&self) -> Result<usize, StoreError> {
        let mut resumed = 0;
        for record in self.store.nodes().await? {
            if record.node.provision_state.is_transient() {
                let node = &record.node;
                tracing::info!(node = %node.label(), state = %node.provision_state, "taking up the work on a node");
                self.work_on(node.uuid);
                resumed += 1;
            }
        }
        Ok(resumed)
    }

    async fn worker(self, node: Uuid, handle: Arc<WorkerHandle>) {
        let mut memory = Memory::default();
        loop {
            handle.pending.store(false, Ordering::SeqCst);
            let next = tokio::select! {
                () = self.shutdown.cancelled() => return,
                next = self.look(node, &mut memory) => next,
            };
            match next {
                Next::Again => {}
                Next::Wait(patience) => {
                    tokio::select! {
                        () = self.shutdown.cancelled() => return,
                        () = handle.notify.notified() => {}
                        () = tokio::time::sleep(patience) => {}
                    }
                }
                Next::Rest => {
                    // Who asks for work does so under this lock: either they find no worker, or we see their request.
                    let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
                    if !handle.pending.load(Ordering::SeqCst) {
                        workers.remove(&node);
                        return;
                    }
                }
            }
        }
    }

    /// One look at the record, and the next thing to do about it.
    async fn look(&self, node: Uuid, memory: &mut Memory) -> Next {
        let record = match self.store.node(&node.to_string()).await {
            Ok(record) => record,
            Err(StoreError::NoNode(_)) => return Next::Rest,
            Err(error) => {
                tracing::error!(%node, error = &error as &dyn std::error::Error, "reading the node failed");
                return Next::Wait(Duration::from_secs(10));
            }
        };
        let done = match record.node.provision_state {
            ProvisionState::Verifying => self.verify(&record).await,
            ProvisionState::Deleting => self.take_back(&record).await,
            ProvisionState::Deploying
            | ProvisionState::WaitCallback
            | ProvisionState::Cleaning
            | ProvisionState::CleanWait => self.advance(&record, memory).await,
            ProvisionState::Enroll
            | ProvisionState::Manageable
            | ProvisionState::CleanFailed
            | ProvisionState::Available
            | ProvisionState::DeployFailed
            | ProvisionState::Active
            | ProvisionState::Error => return Next::Rest,
        };
        match done {
            Ok(next) => next,
            Err(trouble) => match self.fail(&record, &trouble).await {
                Ok(()) => Next::Again,
                Err(error) => {
                    tracing::error!(%node, error = &error as &dyn std::error::Error, "recording a failure failed");
                    Next::Wait(Duration::from_secs(10))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests;
