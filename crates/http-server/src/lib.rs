//! The HTTP/1.1 server of the agent and of the controller: a slow, greedy or silent client costs little.
//!
//! - [`bind`] and [`bind_unix`] listen; [`serve`] accepts connections and answers requests until it is stopped.
//! - [`Limits`] bounds connections and time. When all places are taken, [`Seat`] decides who has to leave.
//! - [`Bodies`] reads request bodies within bounds of size, time and memory.
//!
//! Knows nothing of paths, tokens or JSON: these belong to the service that is served.

mod bodies;
mod connections;
mod listen;
mod server;

pub use bodies::{Bodies, BodyError, BodyLimits, Whole};
pub use connections::{Answering, Seat};
pub use listen::{Bound, BoundUnix, Listen, bind, bind_unix};
pub use server::{Limits, Local, OnFailure, Peer, Settings, serve};
