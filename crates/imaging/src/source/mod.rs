//! Where the published bytes come from. Retry, resume and the choice among several sources live here and only here:
//! whoever reads sees one unbroken stream of bytes, or one error.

pub(crate) mod client;
mod file;
mod http;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use events::{EventKind, Events, Phase};
use reqwest::header::HeaderValue;
use reqwest::{Client, Response, Url};
use tokio::time::{Instant, sleep, timeout};

use crate::buffer::{Buffer, CHUNK};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::pipeline::Interrupt;
use crate::request::{Proxies, Transport};
use file::LocalFile;
use http::{Identity, Wanted};

/// How often a wait looks at the cancel flag.
const CANCEL_TICK: Duration = Duration::from_millis(100);

/// Bytes that must arrive before failures are counted anew. Less is no progress: a server that sends a few bytes and
/// hangs up would otherwise be asked forever.
const PROGRESS: u64 = CHUNK as u64;

/// Tries for a part that is read beside the stream. Without it the stream alone must do, so there is no long wait.
const PART_ATTEMPTS: u32 = 3;

/// What a failed try means for the next one.
pub(crate) enum Attempt {
    /// Try this source again after a pause.
    Retry(Error),
    /// This source will not do; try the next.
    GiveUp(Error),
    /// The bytes received so far can not be continued.
    Restart(String),
}

enum Location {
    Http(Url),
    File(PathBuf),
}

enum Body {
    Http(Response),
    File(LocalFile),
}

/// The stream of an image's published bytes, from the first of its sources that works.
pub(crate) struct Source<'a> {
    client: Client,
    authorization: Option<HeaderValue>,
    locations: Vec<Location>,
    transport: &'a Transport,
    events: &'a Events,
    cancel: &'a Cancel,
    /// When the transfer has taken too long.
    deadline: Option<Instant>,
    /// Index of the location in use.
    current: usize,
    /// Failures in a row without progress.
    failures: u32,
    /// Position at the last failure.
    failed_at: u64,
    body: Option<Body>,
    leftover: Bytes,
    position: u64,
    /// Identity and the location that told it.
    identity: Option<(Identity, usize)>,
    resumed: u32,
}

impl<'a> Source<'a> {
    pub(crate) fn new(
        urls: &[String],
        authorization: Option<&wire::Secret>,
        proxies: &Proxies,
        transport: &'a Transport,
        events: &'a Events,
        cancel: &'a Cancel,
    ) -> Result<Self, Error> {
        let mut parsed = Vec::new();
        let mut locations = Vec::new();
        for text in urls {
            let (url, location) = locate(text)?;
            parsed.push(url);
            locations.push(location);
        }
        if locations.is_empty() {
            return Err(Error::Source { url: "(none)".to_owned(), reason: "no source was given".to_owned() });
        }
        let authorization = match authorization {
            None => None,
            Some(secret) => {
                let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| Error::Source {
                    url: urls.first().map_or(String::new(), |url| shown_text(url)),
                    reason: "the authorization is no legal header value".to_owned(),
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self {
            client: client::build(transport, proxies, &parsed)?,
            authorization,
            locations,
            transport,
            events,
            cancel,
            deadline: transport.max_duration.and_then(|limit| Instant::now().checked_add(limit)),
            current: 0,
            failures: 0,
            failed_at: 0,
            body: None,
            leftover: Bytes::new(),
            position: 0,
            identity: None,
            resumed: 0,
        })
    }

    /// The source in use, without credentials.
    pub(crate) fn name(&self) -> String {
        match self.locations.get(self.current) {
            Some(Location::Http(url)) => shown(url),
            Some(Location::File(path)) => path.display().to_string(),
            None => String::new(),
        }
    }

    pub(crate) fn resumed(&self) -> u32 {
        self.resumed
    }

    /// Forgets what was received: the next read starts at the first byte, of whatever the image is by then.
    pub(crate) fn restart(&mut self) {
        self.body = None;
        self.leftover = Bytes::new();
        self.position = 0;
        self.failed_at = 0;
        self.identity = None;
    }

    /// Opens the first source that answers. Says the size of the published file, where it is known.
    pub(crate) async fn open(&mut self) -> Result<Option<u64>, Interrupt> {
        self.connected().await?;
        Ok(self.total())
    }

    fn total(&self) -> Option<u64> {
        self.identity.as_ref().and_then(|(identity, _)| identity.total)
    }

    /// Fills `buffer` with the next bytes. It comes back less than full only at the end of the image.
    pub(crate) async fn fill(&mut self, buffer: &mut Buffer) -> Result<(), Interrupt> {
        while !buffer.is_full() {
            self.may_go_on()?;
            if !self.leftover.is_empty() {
                let count = buffer.append(&self.leftover);
                let _ = self.leftover.split_to(count);
                continue;
            }
            if self.body.is_none() && self.position > 0 && self.total() == Some(self.position) {
                return Ok(());
            }
            if !self.receive(buffer).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads `length` bytes at `offset`, beside the stream; less where the image ends there. `None` if this source can not
    /// be read in parts.
    pub(crate) async fn part(&mut self, offset: u64, length: u64) -> Result<Option<Vec<u8>>, Error> {
        let size = usize::try_from(length).map_err(|_| Error::Pipeline("part too large"))?;
        if let Some(Body::File(file)) = &self.body {
            let mut bytes = vec![0; size];
            let count = file.read(offset, &mut bytes)?;
            bytes.truncate(count);
            return Ok(Some(bytes));
        }
        let Some(Location::Http(url)) = self.locations.get(self.current) else { return Ok(None) };
        for _ in 0..PART_ATTEMPTS {
            self.may_go_on()?;
            let error = match self.get(url, Wanted::Part(offset, length)).await {
                Ok(answer) if self.total().is_some() && answer.identity.total != self.total() => {
                    return Ok(None);
                }
                Ok(answer) => match self.whole(answer.response, url, offset, size).await {
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(error) => error,
                },
                Err(Attempt::Restart(_)) => return Ok(None),
                Err(Attempt::Retry(error) | Attempt::GiveUp(error)) => error,
            };
            tracing::debug!(reason = error.report(), offset, length, "reading a part failed");
        }
        Ok(None)
    }

    /// The body of an answer, up to `size` bytes.
    async fn whole(
        &self,
        mut response: Response,
        url: &Url,
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>, Error> {
        let limit = self.transport.connect_timeout;
        let mut bytes = Vec::with_capacity(size);
        while bytes.len() < size {
            match timeout(limit, response.chunk()).await {
                Ok(Ok(Some(more))) => {
                    bytes.extend_from_slice(more.get(..size - bytes.len()).unwrap_or(&more))
                }
                Ok(Ok(None)) => break,
                Ok(Err(source)) => {
                    return Err(Error::Fetch { url: shown(url), offset, source: source.without_url() });
                }
                Err(_) => return Err(Error::Stalled { url: shown(url), offset, seconds: limit.as_secs() }),
            }
        }
        Ok(bytes)
    }

    /// Gets some bytes, into `buffer` or the leftover. `false` at the end of the image.
    async fn receive(&mut self, buffer: &mut Buffer) -> Result<bool, Interrupt> {
        self.connected().await?;
        let limit = self.transport.connect_timeout;
        let url = self.name();
        let stop = self.stop();
        let offset = self.position;
        let failure = match &mut self.body {
            None => return Err(Error::Pipeline("no source is open").into()),
            Some(Body::File(file)) => {
                let count = file.read(offset, buffer.room()).map_err(Interrupt::Failed)?;
                buffer.advance(count);
                self.position += count as u64;
                return Ok(count > 0);
            }
            Some(Body::Http(response)) => {
                let chunk = tokio::select! {
                    chunk = timeout(limit, response.chunk()) => chunk,
                    () = stop => return Err(self.stopped().into()),
                };
                match chunk {
                    Ok(Ok(Some(bytes))) => {
                        self.position += bytes.len() as u64;
                        if self.position >= self.failed_at.saturating_add(PROGRESS) {
                            self.failures = 0;
                        }
                        if let Some(total) = self.total().filter(|total| self.position > *total) {
                            let reason = format!("more came than the {total} bytes announced");
                            return Err(Error::Answer { url, reason }.into());
                        }
                        self.leftover = bytes;
                        return Ok(true);
                    }
                    Ok(Ok(None)) => match self.total() {
                        Some(total) if offset < total => Error::Cut { url, offset, total },
                        _ => return Ok(false),
                    },
                    Ok(Err(error)) => Error::Fetch { url, offset, source: error.without_url() },
                    Err(_) => Error::Stalled { url, offset, seconds: limit.as_secs() },
                }
            }
        };
        self.body = None;
        self.pause(failure).await?;
        Ok(true)
    }

    /// Makes sure that a body is open at the current position.
    async fn connected(&mut self) -> Result<(), Interrupt> {
        while self.body.is_none() {
            self.may_go_on()?;
            match self.connect().await {
                Ok((body, identity)) => {
                    if let Some((known, at)) = &self.identity {
                        let differs = known.total != identity.total
                            || (*at == self.current
                                && known.validator.is_some()
                                && known.validator != identity.validator);
                        if differs {
                            return Err(Interrupt::Restart("the image changed on the server".to_owned()));
                        }
                        if self.position > 0 {
                            self.resumed += 1;
                            tracing::info!(source = self.name(), offset = self.position, "transfer resumed");
                        }
                    } else {
                        self.identity = Some((identity, self.current));
                    }
                    self.body = Some(body);
                }
                Err(Attempt::Retry(error)) => self.pause(error).await?,
                Err(Attempt::GiveUp(error)) => self.next_location(error)?,
                Err(Attempt::Restart(reason)) => return Err(Interrupt::Restart(reason)),
            }
        }
        Ok(())
    }

    async fn connect(&self) -> Result<(Body, Identity), Attempt> {
        match self.locations.get(self.current) {
            None => Err(Attempt::GiveUp(Error::Pipeline("no source is left"))),
            Some(Location::File(path)) => {
                let file = LocalFile::open(path).map_err(Attempt::GiveUp)?;
                let identity = Identity { total: file.size, validator: None };
                Ok((Body::File(file), identity))
            }
            Some(Location::Http(url)) => {
                let wanted = if self.position == 0 { Wanted::All } else { Wanted::From(self.position) };
                let answer = self.get(url, wanted).await?;
                Ok((Body::Http(answer.response), answer.identity))
            }
        }
    }

    async fn get(&self, url: &Url, wanted: Wanted) -> Result<http::Answer, Attempt> {
        let known = self.identity.as_ref().filter(|(_, at)| *at == self.current).map(|(known, _)| known);
        let limit = self.transport.connect_timeout;
        tokio::select! {
            answer = timeout(limit, http::get(&self.client, url, self.authorization.as_ref(), wanted, known)) => {
                answer.unwrap_or_else(|_| {
                    let seconds = limit.as_secs();
                    Err(Attempt::Retry(Error::Stalled { url: shown(url), offset: self.position, seconds }))
                })
            }
            () = self.stop() => Err(Attempt::GiveUp(self.stopped())),
        }
    }

    /// Counts a failure: waits, or goes on to the next location.
    async fn pause(&mut self, error: Error) -> Result<(), Interrupt> {
        self.failures += 1;
        self.failed_at = self.position;
        let attempts = self.transport.attempts.max(1);
        if self.failures >= attempts {
            return self.next_location(error);
        }
        let delay = self.transport.retry_interval;
        tracing::warn!(
            reason = error.report(),
            attempt = self.failures + 1,
            attempts,
            resume_at = self.position,
            "transfer failed, trying again"
        );
        self.events.emit(EventKind::Retrying {
            phase: if self.identity.is_some() { Phase::Write } else { Phase::Open },
            reason: error.report(),
            attempt: self.failures + 1,
            attempts,
            delay_seconds: delay.as_secs_f64(),
            resume_at: self.position,
        });
        tokio::select! {
            () = sleep(delay) => Ok(()),
            () = self.stop() => Err(self.stopped().into()),
        }
    }

    /// Whether nobody wants it to stop, and there is time left.
    fn may_go_on(&self) -> Result<(), Error> {
        let is_late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if self.cancel.is_cancelled() || is_late { Err(self.stopped()) } else { Ok(()) }
    }

    /// Ends when somebody wants it to stop, or the time is over.
    fn stop(&self) -> impl Future<Output = ()> + use<'a> {
        let (cancel, deadline) = (self.cancel, self.deadline);
        async move {
            while !cancel.is_cancelled() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
                sleep(CANCEL_TICK).await;
            }
        }
    }

    /// Why it stopped.
    fn stopped(&self) -> Error {
        match self.transport.max_duration {
            Some(limit) if !self.cancel.is_cancelled() => {
                Error::TooSlow { url: self.name(), offset: self.position, seconds: limit.as_secs() }
            }
            _ => Error::Cancelled,
        }
    }

    fn next_location(&mut self, error: Error) -> Result<(), Interrupt> {
        if matches!(error, Error::Cancelled | Error::TooSlow { .. }) {
            return Err(error.into());
        }
        let count = self.locations.len();
        if self.current + 1 >= count {
            return Err(
                if count == 1 { error } else { Error::AllSources { count, last: Box::new(error) } }.into()
            );
        }
        tracing::warn!(source = self.name(), reason = error.report(), "source given up, trying the next");
        self.events
            .emit(EventKind::Notice { message: format!("{}; trying the next source", error.report()) });
        self.current += 1;
        self.failures = 0;
        self.failed_at = self.position;
        Ok(())
    }
}

fn locate(text: &str) -> Result<(Url, Location), Error> {
    let wrong = |reason: String| Error::Source { url: shown_text(text), reason };
    let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    let location = match url.scheme() {
        "http" | "https" => Location::Http(url.clone()),
        "file" => {
            Location::File(url.to_file_path().map_err(|()| wrong("it names no local file".to_owned()))?)
        }
        scheme => return Err(wrong(format!("scheme {scheme:?} is not supported: use http, https or file"))),
    };
    Ok((url, location))
}

/// A URL without what may be secret: user, password, query (signatures) and fragment.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that can not have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn shown_text(text: &str) -> String {
    Url::parse(text).map_or_else(|_| "(not a URL)".to_owned(), |url| shown(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_urls_hold_no_secrets() {
        let url = Url::parse("https://user:pw@host:8443/a/b.qcow2?X-Signature=abc#frag").unwrap();
        assert_eq!(shown(&url), "https://host:8443/a/b.qcow2");
    }

    #[test]
    fn schemes_other_than_http_and_file_are_refused() {
        assert!(matches!(locate("file:///tmp/x"), Ok((_, Location::File(_)))));
        assert!(matches!(locate("https://h/x"), Ok((_, Location::Http(_)))));
        for bad in ["ftp://h/x", "oci://h/x", "/tmp/x", "", "file://remote/x"] {
            assert!(matches!(locate(bad), Err(Error::Source { .. })), "{bad}");
        }
    }
}
