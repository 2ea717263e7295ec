//! The parameters of one command, taken out one by one; what is left at the end was not expected.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::parse::{Mode, Refusal};

/// Parameters that are not read yet.
pub(super) struct Params {
    mode: Mode,
    map: Map<String, Value>,
}

impl Params {
    /// The parameters of a command that runs in this mode: a wrong one is told in the way of that mode.
    pub(super) fn new(mode: Mode, map: Map<String, Value>) -> Self {
        Self { mode, map }
    }

    /// A parameter, if it is there.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key)
    }

    /// A parameter that must be there; it may be null.
    pub(super) fn required(&mut self, key: &str) -> Result<Value, Refusal> {
        self.take(key).ok_or_else(|| self.wrong(format!("missing parameter '{key}'")))
    }

    /// Absent and null are the same.
    pub(super) fn optional<T: for<'de> Deserialize<'de>>(&mut self, key: &str) -> Result<Option<T>, Refusal> {
        let value = self.take(key).unwrap_or(Value::Null);
        self.typed(key, value)
    }

    /// A value as a type.
    pub(super) fn typed<T: for<'de> Deserialize<'de>>(&self, key: &str, value: Value) -> Result<T, Refusal> {
        serde_json::from_value(value).map_err(|error| self.wrong(format!("parameter '{key}': {error}")))
    }

    /// Everything that was not taken.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.map
    }

    /// Refuses what was not taken.
    pub(super) fn end(&self) -> Result<(), Refusal> {
        match self.map.keys().next() {
            Some(key) => Err(self.wrong(format!("unexpected parameter '{key}'"))),
            None => Ok(()),
        }
    }

    fn wrong(&self, text: String) -> Refusal {
        Refusal::Arguments { mode: self.mode, text }
    }
}
