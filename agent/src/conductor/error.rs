//! Why a call to the conductor did not succeed, and what a person can do about it.

use std::time::Duration;

use super::client::REPLY_LIMIT;

/// Why a call to the conductor did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Certificates, keys or suites can not be used.
    #[error("setting up TLS towards the conductor")]
    Tls(#[source] tls::Error),
    /// The client can not be made.
    #[error("making the HTTP client")]
    Build(#[source] reqwest::Error),
    /// A URL did not answer.
    #[error("calling {url}")]
    Connection {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// None of several URLs answered.
    #[error("none of the API URLs answered: {}", reasons.join("; "))]
    AllUrls {
        /// What was wrong with each.
        reasons: Vec<String>,
    },
    /// There is no URL.
    #[error("no API URL is known; give ipa-api-url=http://... on the kernel command line, or --api-url")]
    NoUrl,
    /// Time is up.
    #[error("{url} did not answer within {} seconds", limit.as_secs())]
    TimedOut {
        /// The URL.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// The reply is longer than anything expected.
    #[error("the reply of {url} is longer than {REPLY_LIMIT} bytes")]
    TooLong {
        /// The URL.
        url: String,
    },
    /// The reply sends the agent elsewhere.
    #[error(
        "{url} redirects to {target}, which is not followed: only a GET is, and only on the same host; \
         give the right URL as ipa-api-url"
    )]
    Redirected {
        /// The URL.
        url: String,
        /// Where to.
        target: String,
    },
    /// The reply has another status than the one that means success.
    #[error("{url} answered {status}: {text}")]
    Status {
        /// The URL.
        url: String,
        /// HTTP status.
        status: u16,
        /// The text of the error body.
        text: String,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The reply can not be understood.
    #[error("{url} answered something else than {expected}: {start}")]
    Content {
        /// The URL.
        url: String,
        /// What was expected.
        expected: &'static str,
        /// How the answer begins.
        start: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// The HTTP status, where there was a reply.
    pub fn status(&self) -> Option<u16> {
        if let Error::Status { status, .. } = self { Some(*status) } else { None }
    }

    /// How long the server wants to be left alone, where it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Error::Status { retry_after, .. } = self { *retry_after } else { None }
    }

    /// The error with its causes on one line, for a person: TLS explained, and what to do where that is known.
    pub fn told(&self) -> String {
        let chain = tls::chain(self);
        match self.advice() {
            Some(advice) => format!("{chain}; {advice}"),
            None => chain,
        }
    }

    /// What a person can do about an answer that will not come right by itself.
    fn advice(&self) -> Option<&'static str> {
        let Error::Status { status, text, .. } = self else { return None };
        // The texts are Ironic's (agent protocol page, 4.2); heartbeats after a deployment was given up meet them.
        let about_token = text.contains("agent token") || text.contains("Agent token");
        Some(match status {
            400 if about_token => {
                "the conductor has forgotten this boot's token, as it does when it powers the node: power-cycle the node \
                 through its controller"
            }
            400 if text.contains("Detected change in ramdisk provided") => {
                "the conductor remembers another boot of this node: power-cycle the node through its controller"
            }
            400 if text.contains("TLS is required") => {
                "the conductor wants https: leave enable_auto_tls on, or give listen_tls a certificate"
            }
            401 | 403 => {
                "the endpoints of agents need no login in Ironic: is ipa-api-url right, does a proxy stand before it, and is \
                 [api]enable_ramdisk_endpoints on?"
            }
            404 if text.contains("ode") => {
                "is the node enrolled with a port of one of these addresses, and being deployed, cleaned, inspected, rescued or \
                 serviced?"
            }
            406 => "the conductor speaks another range of API versions: it is asked again",
            _ => return None,
        })
    }
}
