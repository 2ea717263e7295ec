//! Error bodies: the agent's own, and Ironic's.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The body of every agent reply at or above 400. A conductor insists on a JSON object with a string `faultstring`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFault {
    /// `Client` below 500, else `Server`.
    pub faultcode: String,
    /// What went wrong. Must not contain the words `agent_token`, nor `agent is busy` unless it is.
    pub faultstring: String,
}

impl AgentFault {
    /// The body that goes with an HTTP status.
    pub fn new(status: u16, faultstring: impl Into<String>) -> Self {
        let faultcode = if status < 500 { "Client" } else { "Server" };
        Self { faultcode: faultcode.into(), faultstring: faultstring.into() }
    }
}

/// An error of the Ironic API: `{"error_message": "<JSON text>"}`, where the inner JSON holds `faultstring`.
/// Source: agent protocol page, 3.8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiFault {
    /// `Client` or `Server`.
    pub faultcode: String,
    /// The text.
    pub faultstring: String,
}

impl ApiFault {
    /// The fault that goes with an HTTP status.
    pub fn new(status: u16, faultstring: impl Into<String>) -> Self {
        let AgentFault { faultcode, faultstring } = AgentFault::new(status, faultstring);
        Self { faultcode, faultstring }
    }

    /// The body as Ironic writes it: JSON inside a JSON string.
    pub fn to_body(&self) -> Value {
        let inner = json!({"faultcode": self.faultcode, "faultstring": self.faultstring, "debuginfo": null});
        json!({ "error_message": inner.to_string() })
    }

    /// The text inside an Ironic error body, in whichever of its forms; the raw text when it is none of them.
    pub fn text_of(body: &str) -> String {
        let Ok(outer) = serde_json::from_str::<Value>(body) else { return body.trim().to_owned() };
        let inner = match outer.get("error_message") {
            Some(Value::String(text)) => match serde_json::from_str::<Value>(text) {
                Ok(value) => value,
                Err(_) => return text.clone(),
            },
            Some(value) => value.clone(),
            None => outer,
        };
        let field = |key: &str| inner.get(key).and_then(Value::as_str).map(str::to_owned);
        field("faultstring").or_else(|| field("title")).unwrap_or_else(|| body.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_ironic_error_yields_its_text() {
        let fault = ApiFault::new(404, "Node x could not be found.");
        assert_eq!(ApiFault::text_of(&fault.to_body().to_string()), "Node x could not be found.");
        assert_eq!(
            ApiFault::text_of(r#"{"error_message": {"faultstring": "plain object"}}"#),
            "plain object"
        );
        assert_eq!(ApiFault::text_of(r#"{"error_message": "not json"}"#), "not json");
        assert_eq!(
            ApiFault::text_of(r#"{"error_message": "{\"title\": \"Not Acceptable\", \"code\": 406}"}"#),
            "Not Acceptable"
        );
        assert_eq!(ApiFault::text_of(r#"{"faultcode": "Client", "faultstring": "too deep"}"#), "too deep");
        assert_eq!(ApiFault::text_of("<html>bad gateway</html>\n"), "<html>bad gateway</html>");
    }
}
