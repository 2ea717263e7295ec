//! The HTTP client behind every command: requests, and errors in words a person can act upon.

use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wire::{ApiFault, Microversion, ProvisionState, Secret};

use super::{Exit, Failure, chain};
use crate::api::EventsReply;

/// Any request but a long poll or an upload ends within this.
const TIMEOUT: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the controller may keep an event request open.
pub const EVENT_WAIT: Duration = Duration::from_secs(20);

/// A client of one controller.
pub struct Client {
    http: reqwest::Client,
    url: String,
    /// Whether data is printed as JSON.
    pub json: bool,
}

impl Client {
    /// For the controller at `url`.
    pub fn new(url: &str, token: Option<Secret>, json: bool) -> Result<Self, Failure> {
        let url = url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::usage(format!("--url {url}: it must be an http or https URL")));
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|_| Failure::usage("the token has characters that cannot be sent"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // The controller is ours: no proxy stands between, and nothing there redirects.
        let builder = || {
            reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .default_headers(headers.clone())
        };
        // A host without CA certificates can still talk to a controller over plain HTTP.
        let http = builder()
            .build()
            .or_else(|_| builder().tls_certs_only(std::iter::empty::<reqwest::Certificate>()).build())
            .map_err(|e| Failure::failed(format!("setting up HTTP: {}", chain(&e))))?;
        Ok(Self { http, url, json })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .header(Microversion::HEADER, Microversion::AGENT_VERIFY_CA.to_string())
            .timeout(TIMEOUT)
    }

    /// Reads a resource.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.read(self.request(Method::GET, path)).await
    }

    /// Sends a JSON body and reads the answer.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        self.read(self.request(method, path).json(body)).await
    }

    /// Sends a request whose answer has no content.
    pub async fn order(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(), Failure> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.check(request).await.map(|_| ())
    }

    /// Sends a file of any size.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        size: u64,
        body: reqwest::Body,
    ) -> Result<T, Failure> {
        let request = self.request(Method::PUT, path).header(CONTENT_LENGTH, size);
        self.read(request.timeout(Duration::from_secs(24 * 3600)).body(body)).await
    }

    /// Waits for news of a node.
    pub async fn events(&self, node: &str, after: u64, wait: Duration) -> Result<EventsReply, Failure> {
        let path = format!("/ferric/v1/nodes/{}/events?after={after}&wait={}", segment(node), wait.as_secs());
        self.read(self.request(Method::GET, &path).timeout(wait + TIMEOUT)).await
    }

    /// Asks for an operation on a node.
    pub async fn provision(&self, node: &str, body: &Value) -> Result<(), Failure> {
        self.order(Method::PUT, &format!("/v1/nodes/{}/states/provision", segment(node)), Some(body)).await
    }

    /// Waits until the node is in one of `goals` (returns it), has failed, or `limit` is over.
    pub async fn wait_for(
        &self,
        node: &str,
        goals: &[ProvisionState],
        limit: Duration,
    ) -> Result<ProvisionState, Failure> {
        let deadline = Instant::now() + limit;
        let mut after = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let reply = self.events(node, after, left.min(EVENT_WAIT).min(Duration::from_secs(5))).await?;
            after = reply.next;
            let state = reply.node.provision_state;
            if goals.contains(&state) {
                return Ok(state);
            }
            if !state.is_transient() {
                let reason = reply.node.last_error.unwrap_or_else(|| format!("node {node} is now {state}"));
                return Err(Failure::failed(reason));
            }
            if Instant::now() >= deadline {
                return Err(Failure::new(
                    Exit::TimedOut,
                    format!(
                        "node {node} is still in state \"{state}\" after {} s; go on waiting with `ferric watch {node}`",
                        limit.as_secs()
                    ),
                ));
            }
        }
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let body = self.check(request).await?;
        serde_json::from_slice(&body).map_err(|e| {
            Failure::failed(format!(
                "the answer of {} makes no sense: {e}; is it a Ferric controller?",
                self.url
            ))
        })
    }

    async fn check(&self, request: RequestBuilder) -> Result<Vec<u8>, Failure> {
        let reply = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = reply.status();
        let body = reply.bytes().await.map_err(|e| self.unreachable(&e))?;
        if status.is_success() {
            return Ok(body.to_vec());
        }
        let text = ApiFault::text_of(&String::from_utf8_lossy(&body));
        let text = if text.is_empty() { format!("the controller answered {status}") } else { text };
        let exit = if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            Exit::Failed
        } else {
            Exit::Refused
        };
        Err(Failure::new(exit, text))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() && !error.is_connect() {
            return Failure::new(
                Exit::TimedOut,
                format!("the controller at {} did not answer in time", self.url),
            );
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Failure::new(
            Exit::Unreachable,
            format!(
                "cannot reach the controller at {}: {cause}; start it with `ferric serve --state DIR`, or give its address with --url or FERRIC_URL",
                self.url
            ),
        )
    }
}

/// A name as part of a path.
pub fn segment(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte))
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

/// `K=V` as a pair; V is JSON if it reads as anything but a text, else a text.
pub fn key_value(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("\"{text}\" is not K=V"))?;
    if key.is_empty() {
        return Err(format!("\"{text}\" has no key"));
    }
    let value = match serde_json::from_str::<Value>(value) {
        Ok(parsed) if !parsed.is_string() && !parsed.is_null() => parsed,
        Ok(_) | Err(_) => json!(value),
    };
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_where_they_read_as_such() {
        assert_eq!(key_value("a=1").unwrap(), ("a".into(), json!(1)));
        assert_eq!(key_value("a=true").unwrap().1, json!(true));
        assert_eq!(key_value(r#"a={"serial": "x=y"}"#).unwrap().1, json!({"serial": "x=y"}));
        assert_eq!(key_value("a=4G").unwrap().1, json!("4G"));
        assert_eq!(key_value("a=/x/y=z").unwrap().1, json!("/x/y=z"));
        assert_eq!(key_value("a=").unwrap().1, json!(""));
        assert!(key_value("a").is_err() && key_value("=1").is_err());
    }
}
