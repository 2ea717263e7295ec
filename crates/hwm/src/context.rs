//! What a hardware manager is given to work with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use events::Events;
use serde_json::{Map, Value};
use sys::Host;
use wire::StepKind;

/// The machine, where to report progress, and the node as the conductor last described it.
#[derive(Clone)]
pub struct Context {
    /// The machine.
    pub host: Host,
    /// Where progress goes.
    pub events: Events,
    /// The node as generic JSON (new keys appear over time); an empty object before the first lookup.
    pub node: Arc<Value>,
    cancelled: Arc<AtomicBool>,
}

impl Context {
    /// A context without a node.
    pub fn new(host: Host, events: Events) -> Self {
        let node = Arc::new(Value::Object(Map::new()));
        Self { host, events, node, cancelled: Arc::default() }
    }

    /// The same context for another node.
    pub fn with_node(&self, node: Value) -> Self {
        Self { node: Arc::new(node), ..self.clone() }
    }

    /// A field of the node by JSON pointer (`/instance_info/root_device`); null counts as absent.
    pub fn node_field(&self, pointer: &str) -> Option<&Value> {
        self.node.pointer(pointer).filter(|value| !value.is_null())
    }

    /// Asks long work to stop at its next safe point.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The flag itself, for work that looks at it without knowing this type: true asks to stop.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// Whether work should stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// A step to run.
#[derive(Clone, Debug)]
pub struct StepCall {
    /// Its family.
    pub kind: StepKind,
    /// Its name.
    pub step: String,
    /// Its arguments: the call's extra parameters, overlaid by the step's own `args`.
    pub arguments: Map<String, Value>,
    /// The node's ports, as they came.
    pub ports: Value,
}
