//! The agent's HTTP API: what a conductor calls. Source: agent protocol page, 1.
//!
//! [`server`] accepts connections, within bounds; [`routes`] is the table of paths; [`commands`] and [`events`] answer.
//! Errors leave through [`error`] alone, so that every one has the body a conductor insists on.

mod commands;
mod error;
mod events;
mod json;
mod refusal;
mod routes;
mod server;
mod tls;
mod token;

use std::sync::Arc;

pub use server::{Bound, Limits, bind, serve};
pub use tls::{
    Certificate, ServerSettings, Tls, TlsError, generate, generate_at, server_config, static_config,
};
pub use token::{Learned, Token};

use crate::command::Executor;

/// What requests are answered from; clones share it.
#[derive(Clone)]
pub struct Api {
    /// Runs commands.
    pub executor: Executor,
    /// The token of this boot.
    pub token: Token,
    /// What happened so far.
    pub events: Arc<events::EventTail>,
    /// When the agent started, in Unix seconds.
    pub started_at: f64,
    /// `http` or `https`: how the API is served.
    pub scheme: &'static str,
    /// Longest body, in bytes.
    pub body_limit: usize,
}

impl Api {
    /// The API of an agent that starts now.
    pub fn new(executor: Executor, token: Token, events: &::events::Events, scheme: &'static str) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            executor,
            token,
            events: Arc::new(events::EventTail::new(events.clone())),
            started_at: now.map_or(0.0, |age| age.as_secs_f64()),
            scheme,
            body_limit: BODY_LIMIT,
        }
    }

    /// The service that answers requests.
    pub fn router(&self) -> axum::Router {
        routes::router(self.clone())
    }
}

/// A config drive may have 64 MiB, in base64 within JSON; with room for the node.
const BODY_LIMIT: usize = 96 * 1024 * 1024;
