//! The client towards an agent: run a command, list the commands, follow the events. It knows the wire, not what the answers
//! mean for a node. Source: agent protocol page, 8.1 and 8.2.

mod tls;

use std::time::Duration;

use events::EventPage;
use reqwest::StatusCode;
use serde_json::{Map, Value};
use wire::{AgentFault, CommandError, CommandList, CommandRequest, CommandResult, Secret};

use crate::json;
use crate::record::AgentSession;

pub use tls::CertificateError;

/// Every `wait=true` command has to answer within this (Ironic: `[agent]command_timeout`).
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Beyond the time the agent was asked to wait for an event.
const EVENT_MARGIN: Duration = Duration::from_secs(15);

/// Longest answer of an agent, in bytes.
const ANSWER_LIMIT: usize = 16 << 20;
/// Longest words of an agent in an error, in bytes.
const TEXT_LIMIT: usize = 4096;
/// Deepest nesting of an answer: parts of it become part of a record, which must be readable again.
const DEEPEST: usize = 64;

/// Why an agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It has not called yet.
    #[error("no agent has called in this boot")]
    Absent,
    /// Its certificate is none.
    #[error("the agent's certificate is not usable")]
    Certificate(#[from] CertificateError),
    /// It can not be reached, or the connection broke. The URL is left out of the source: the token is in it.
    #[error("the agent at {url} does not answer")]
    Unreachable {
        /// Its callback URL.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It is still busy with another command.
    #[error("the agent is busy")]
    Busy,
    /// It refused.
    #[error("the agent refused {command} with status {status}: {text}")]
    Refused {
        /// What it was asked.
        command: String,
        /// HTTP status.
        status: u16,
        /// Its words.
        text: String,
    },
    /// Its answer is longer, or nested deeper, than any real one.
    #[error("the agent's answer to {command} is {problem}")]
    Excessive {
        /// What it was asked.
        command: String,
        /// What is too much.
        problem: String,
    },
    /// It answered something else than it should.
    #[error("the agent's answer to {command} makes no sense")]
    Garbled {
        /// What it was asked.
        command: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// A client for one agent in one boot.
#[derive(Clone)]
pub struct AgentClient {
    http: reqwest::Client,
    url: String,
    token: Secret,
}

impl AgentClient {
    /// For the agent of this session, trusting its certificate and nothing else.
    pub fn new(session: &AgentSession) -> Result<Self, AgentError> {
        let (Some(url), Some(token)) = (&session.url, &session.token) else { return Err(AgentError::Absent) };
        let unreachable = |source: reqwest::Error| AgentError::Unreachable { url: url.clone(), source };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(session.certificate.as_deref())?)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            // The token and config drives go to the holder of the certificate, and to no other server that it names.
            .redirect(reqwest::redirect::Policy::none())
            .https_only(true)
            .build()
            .map_err(unreachable)?;
        Ok(Self { http, url: url.clone(), token: token.clone() })
    }

    /// Where the agent is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts `name`; with `wait` returns when it has ended, else at once.
    pub async fn run(
        &self,
        name: &str,
        params: Map<String, Value>,
        wait: bool,
    ) -> Result<CommandResult, AgentError> {
        let body = CommandRequest { name: name.to_owned(), params };
        let request = self
            .http
            .post(format!("{}/v1/commands/?wait={wait}&agent_token={}", self.url, self.token.expose()))
            .timeout(COMMAND_TIMEOUT)
            .json(&body);
        let result: CommandResult = self.answer(name, request).await?;
        tracing::debug!(agent = %self.url, command = name, status = ?result.command_status, "agent ran a command");
        Ok(result)
    }

    /// All commands since the agent started, oldest first.
    pub async fn list(&self) -> Result<Vec<CommandResult>, AgentError> {
        let request = self
            .http
            .get(format!("{}/v1/commands/?agent_token={}", self.url, self.token.expose()))
            .timeout(COMMAND_TIMEOUT);
        let list: CommandList = self.answer("the command list", request).await?;
        Ok(list.commands)
    }

    /// The events after number `after`; waits up to `wait` for the first. `None`: this agent has no event endpoint.
    pub async fn events(&self, after: u64, wait: Duration) -> Result<Option<EventPage>, AgentError> {
        // Our tokens are URL-safe: nothing to escape.
        let query = format!("after={after}&wait={}&agent_token={}", wait.as_secs(), self.token.expose());
        let request = self.http.get(format!("{}/v1/events?{query}", self.url)).timeout(wait + EVENT_MARGIN);
        match self.answer("the events", request).await {
            Ok(page) => Ok(Some(page)),
            Err(AgentError::Refused { status: 404 | 405, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn answer<T: serde::de::DeserializeOwned>(
        &self,
        command: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<T, AgentError> {
        let unreachable =
            |e: reqwest::Error| AgentError::Unreachable { url: self.url.clone(), source: e.without_url() };
        let excessive = |problem: String| AgentError::Excessive { command: command.to_owned(), problem };
        let mut reply = request.send().await.map_err(unreachable)?;
        let status = reply.status();
        if status.is_redirection() {
            let text = "it redirects to another server, which is not followed".into();
            return Err(AgentError::Refused { command: command.to_owned(), status: status.as_u16(), text });
        }
        let mut body = Vec::new();
        while let Some(piece) = reply.chunk().await.map_err(unreachable)? {
            if body.len().saturating_add(piece.len()) > ANSWER_LIMIT {
                return Err(excessive(format!("longer than {ANSWER_LIMIT} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        if json::depth(&body) > DEEPEST {
            return Err(excessive(format!("nested deeper than {DEEPEST} levels")));
        }
        if status.is_client_error() || status.is_server_error() {
            let text = match serde_json::from_slice::<AgentFault>(&body) {
                Ok(fault) => shortened(&fault.faultstring),
                Err(_) => String::from_utf8_lossy(&body).chars().take(300).collect(),
            };
            if status == StatusCode::CONFLICT || text.to_ascii_lowercase().contains("agent is busy") {
                return Err(AgentError::Busy);
            }
            return Err(AgentError::Refused { command: command.to_owned(), status: status.as_u16(), text });
        }
        serde_json::from_slice(&body)
            .map_err(|source| AgentError::Garbled { command: command.to_owned(), source })
    }
}

/// What an operator reads of a failed command: its details, else its message, else its type.
pub fn failure_text(error: Option<&CommandError>) -> String {
    let Some(error) = error else { return "the agent gave no reason".into() };
    [&error.details, &error.message, &error.kind]
        .into_iter()
        .find(|text| !text.trim().is_empty())
        .map_or_else(|| "the agent gave no reason".into(), |text| shortened(text.trim()))
}

/// The text, cut where it is longer than a person reads.
fn shortened(text: &str) -> String {
    match text.get(..text.floor_char_boundary(TEXT_LIMIT)) {
        Some(start) if start.len() < text.len() => format!("{start}... ({} bytes)", text.len()),
        Some(_) | None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
