//! Why a request failed below its answer's status.

use std::io;

/// A request that got no usable answer. Texts name hosts and ports, and hold no credentials.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The name of the server, or of the proxy, has no address.
    #[error(transparent)]
    Resolve(dns::Error),
    /// No address of the server took the connection.
    #[error("connecting to {server}")]
    Connect {
        /// Host and port, and the proxy where it is one.
        server: String,
        /// What the system said of the last address.
        #[source]
        source: io::Error,
    },
    /// TLS did not come about.
    #[error("TLS handshake with {server}")]
    Tls {
        /// Host and port.
        server: String,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The proxy did not open a tunnel.
    #[error(
        "proxy {proxy} answered {status} to CONNECT {server}; check the proxy, or name the host in no_proxy"
    )]
    Tunnel {
        /// The proxy.
        proxy: String,
        /// Host and port that it should connect to.
        server: String,
        /// HTTP status code.
        status: u16,
    },
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// The connection was closed before an answer came.
    #[error("the server closed the connection without an answer")]
    NoAnswer,
    /// The connection was closed before the body was whole.
    #[error("the server closed the connection before the end of the body")]
    Truncated,
    /// The answer is not one of HTTP/1, or contradicts itself.
    #[error("{0}")]
    Malformed(String),
    /// A redirect that is not followed.
    #[error("redirect to {location} is not followed; {reason}")]
    Redirect {
        /// Where it leads, without credentials.
        location: String,
        /// Why it is not followed.
        reason: &'static str,
    },
}

impl HttpError {
    /// Returns whether another try would end the same way.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            HttpError::Redirect { .. } => true,
            HttpError::Resolve(_)
            | HttpError::Connect { .. }
            | HttpError::Tls { .. }
            | HttpError::Tunnel { .. }
            | HttpError::Io(_)
            | HttpError::NoAnswer
            | HttpError::Truncated
            | HttpError::Malformed(_) => false,
        }
    }
}
