//! Where the published bytes come from. Retry, resume and the choice among several sources live here and only here:
//! whoever reads sees one unbroken stream of bytes, or one error. `patience` says how long and how often a source is asked,
//! `part` reads beside the stream.

mod encoding;
mod file;
mod http;
mod location;
mod locations;
mod part;
mod patience;
mod trickle;

use std::time::Duration;

use bytes::Bytes;
use events::Events;
use tokio::time::{Instant, timeout};
use url::Url;
use wire::Secret;

use crate::buffer::{Buffer, CHUNK};
use crate::cancel::Cancel;
use crate::client::{Client, HttpError, Response, is_field_value};
use crate::error::Error;
use crate::oci::{self, Blob, OciReference};
use crate::pipeline::Interrupt;
use crate::proof::{Expected, Running, Sums};
use crate::request::{Proxies, Transport};
use encoding::{Decoding, Encoding};
use file::LocalFile;
use http::{Identity, Wanted};
use location::Location;
pub(crate) use location::shown;
use locations::Locations;
use trickle::Trickle;

/// Bytes that must arrive before failures are counted anew. Less is no progress: a server that sends a few bytes and
/// hangs up would otherwise be asked forever.
const PROGRESS: u64 = CHUNK as u64;

/// Changes of the ETag or time of an image that are taken for a new image, in one write.
const BELIEVED: u32 = 2;

/// Bytes that are received again and passed over where a server gives the image from its start only. It is what is read
/// before the tables of an image are.
const SKIPPED_AT_MOST: u64 = CHUNK as u64;

/// What a failed try means for the next one.
pub(crate) enum Attempt {
    /// Try this source again after a pause.
    Retry(Error),
    /// This source will not do; try the next.
    GiveUp(Error),
    /// The bytes received so far can not be continued.
    Restart(String),
    /// As [`Attempt::Restart`], as the server now gives the image another ETag or time of change.
    Replaced,
}

enum Body {
    Http(Response),
    File(LocalFile),
}

/// The stream of an image's published bytes, from the first of its sources that works.
pub(crate) struct Source<'a> {
    client: Client,
    authorization: Option<Secret>,
    locations: Locations,
    transport: &'a Transport,
    events: &'a Events,
    cancel: &'a Cancel,
    /// When the transfer has taken too long.
    deadline: Option<Instant>,
    /// Failures in a row without progress.
    failures: u32,
    /// Position at the last failure.
    failed_at: u64,
    body: Option<Body>,
    /// What is counted of the body's speed.
    trickle: Trickle,
    /// Bytes for the reader.
    leftover: Bytes,
    /// Undoes the content encoding, where there is one.
    decoding: Option<Decoding>,
    /// What the image is held to, where encoded bytes are summed up as well.
    expected: Option<Expected<'a>>,
    /// Sums over the encoded bytes, where there is an encoding.
    as_sent: Option<Running>,
    /// Bytes of the body that were received before and are passed over.
    to_skip: u64,
    /// Whether the server gave no part of the image when it was asked for one.
    has_no_parts: bool,
    /// Whether the body was closed on purpose, so that going on is not the resumption of a broken transfer.
    is_set_aside: bool,
    /// Another download of the image, for its tables.
    skim: Option<part::Skim>,
    /// Whether a pass found that the stream alone does not do.
    is_skimmed: bool,
    /// How often the image was found under another ETag or time of change, with the same length.
    replaced: u32,
    /// Bytes received, as the server sends them.
    position: u64,
    /// Identity and the location that told it.
    identity: Option<(Identity, usize)>,
    /// What the registry in use said, and the location that it is.
    blob: Option<(Blob, usize)>,
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
        let all = urls.iter().map(|url| Location::parse(url)).collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err(Error::Source { url: "(none)".to_owned(), reason: "no source was given".to_owned() });
        }
        let mut needs_trust = false;
        for location in &all {
            needs_trust |= location.needs_trust()?;
        }
        let authorization = match authorization {
            None => None,
            Some(secret) => {
                if !is_field_value(secret.expose()) {
                    return Err(Error::Source {
                        url: all.first().map_or(String::new(), Location::name),
                        reason: "the authorization is no legal header value".to_owned(),
                    });
                }
                Some(secret.clone())
            }
        };
        Ok(Self {
            client: Client::build(transport, proxies, needs_trust)?,
            authorization,
            locations: Locations::new(all),
            transport,
            events,
            cancel,
            deadline: transport.max_duration.and_then(|limit| Instant::now().checked_add(limit)),
            failures: 0,
            failed_at: 0,
            body: None,
            trickle: Trickle::default(),
            leftover: Bytes::new(),
            decoding: None,
            expected: None,
            as_sent: None,
            to_skip: 0,
            has_no_parts: false,
            is_set_aside: false,
            skim: None,
            is_skimmed: false,
            replaced: 0,
            position: 0,
            identity: None,
            blob: None,
            resumed: 0,
        })
    }

    /// Has the bytes of an encoded body summed up as they are sent, besides what comes out of them.
    pub(crate) fn sum_as_sent(&mut self, expected: Expected<'a>) {
        self.expected = Some(expected);
    }

    /// Returns the sums over a body as it was sent, where it was encoded. To be called at its end.
    pub(crate) fn take_sums_as_sent(&mut self) -> Option<Sums> {
        self.as_sent.take().map(Running::finish)
    }

    /// The source in use, without credentials.
    pub(crate) fn name(&self) -> String {
        self.locations.name(self.locations.index())
    }

    /// How many sources there are.
    pub(crate) fn count(&self) -> usize {
        self.locations.count()
    }

    pub(crate) fn resumed(&self) -> u32 {
        self.resumed
    }

    /// Forgets what was received: the next read starts at the first byte, of whatever the image is by then.
    pub(crate) fn restart(&mut self) {
        self.locations.start_over();
        self.forget();
    }

    /// As [`Source::restart`], from another source where there is one: what this one sent was not the image.
    pub(crate) fn restart_elsewhere(&mut self) {
        self.locations.start_elsewhere();
        self.has_no_parts = false;
        self.forget();
    }

    fn forget(&mut self) {
        self.body = None;
        self.leftover = Bytes::new();
        self.decoding = None;
        self.as_sent = None;
        self.to_skip = 0;
        self.skim = None;
        self.position = 0;
        self.failures = 0;
        self.failed_at = 0;
        self.identity = None;
    }

    /// Opens the first source that answers. Says the size of the published file, where it is known.
    pub(crate) async fn open(&mut self) -> Result<Option<u64>, Interrupt> {
        self.connected().await?;
        Ok(self.announced().filter(|_| self.decoding.is_none()))
    }

    /// What the registry says about the image, where the source in use is one. Nothing but its manifest is fetched.
    pub(crate) async fn described(&mut self) -> Result<Option<Blob>, Interrupt> {
        loop {
            self.may_go_on()?;
            let Some(Location::Oci(reference)) = self.locations.current() else { return Ok(None) };
            match self.find(reference).await {
                Ok(blob) => return Ok(Some(blob)),
                Err(Attempt::Retry(error)) => self.pause(error).await?,
                Err(Attempt::GiveUp(error)) => self.give_up(error, true)?,
                Err(Attempt::Restart(reason)) => return Err(Interrupt::Restart(reason)),
                Err(Attempt::Replaced) => return Err(Error::Pipeline("a manifest without a time").into()),
            }
        }
    }

    /// The digest that the registry in use promises.
    pub(crate) fn promised(&self) -> Option<&crate::ExpectedDigest> {
        self.blob_in_use().map(|blob| &blob.image.digest)
    }

    fn blob_in_use(&self) -> Option<&Blob> {
        self.blob.as_ref().filter(|(_, at)| *at == self.locations.index()).map(|(blob, _)| blob)
    }

    /// Bytes of the body, as the server sends them.
    fn announced(&self) -> Option<u64> {
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
            if let Some(decoding) = self.decoding.as_mut().filter(|decoding| decoding.has_more()) {
                match decoding.decode() {
                    Ok(bytes) => self.leftover = bytes,
                    Err(error) => return Err(self.misencoded(&error)),
                }
                continue;
            }
            let is_all = self.body.is_none() && self.position > 0 && self.announced() == Some(self.position);
            if (is_all || !self.receive(buffer).await?) && !self.finish_decoding()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The body ended. Whether the decoder had bytes left.
    fn finish_decoding(&mut self) -> Result<bool, Interrupt> {
        let Some(decoding) = &mut self.decoding else { return Ok(false) };
        match decoding.finish() {
            Ok(bytes) => self.leftover = bytes,
            Err(error) => return Err(self.misencoded(&error)),
        }
        Ok(!self.leftover.is_empty())
    }

    /// The body is not encoded as its server says: what came so far is void.
    fn misencoded(&mut self, error: &std::io::Error) -> Interrupt {
        let reason = format!("the body is not in the content encoding that the server names ({error})");
        let error = Error::Answer { url: self.name(), reason: reason.clone() };
        match self.give_up(error, true) {
            Ok(()) => Interrupt::Restart(reason),
            Err(interrupt) => interrupt,
        }
    }

    /// Where the bytes are asked for, and with which credentials; `None` for files, and for registries not asked yet.
    fn target(&self) -> Option<(&Url, Option<&Secret>)> {
        match self.locations.current()? {
            Location::Http(url) => Some((url, self.authorization.as_ref())),
            Location::Oci(_) => self.blob_in_use().map(|blob| (&blob.url, blob.authorization.as_ref())),
            Location::File(_) => None,
        }
    }

    /// Gets some bytes, into `buffer`, the leftover or the decoder. `false` at the end of the image.
    async fn receive(&mut self, buffer: &mut Buffer) -> Result<bool, Interrupt> {
        self.connected().await?;
        let limit = self.transport.connect_timeout;
        let url = self.name();
        let stop = self.stop();
        let offset = self.position;
        let failure = match &mut self.body {
            None => return Err(Error::Pipeline("no source is open").into()),
            Some(Body::File(file)) => match file.read(offset, buffer.room()) {
                Ok(count) => {
                    buffer.advance(count);
                    self.position += count as u64;
                    return Ok(count > 0);
                }
                Err(error) => {
                    self.give_up(error, true)?;
                    return Ok(true);
                }
            },
            Some(Body::Http(response)) => {
                let since = Instant::now();
                let ready = tokio::select! {
                    // Bytes that are there are taken without setting a timer, which would wake the runtime each time.
                    biased;
                    ready = timeout(limit, response.ready()) => ready,
                    () = stop => return Err(self.stopped().into()),
                };
                match ready {
                    Ok(Ok(0)) => match self.announced() {
                        Some(total) if offset < total => Error::Cut { url, offset, total },
                        _ => return Ok(false),
                    },
                    Ok(Ok(count)) => {
                        let too_little = self.trickle.count(count, since.elapsed(), limit);
                        self.accept(count, buffer)?;
                        let Some(bytes) = too_little else { return Ok(true) };
                        Error::Slow { url, offset: self.position, bytes, seconds: limit.as_secs() }
                    }
                    Ok(Err(source)) => match (source, self.announced()) {
                        (HttpError::Truncated, Some(total)) => Error::Cut { url, offset, total },
                        (source, _) => Error::Fetch { url, offset, source },
                    },
                    Err(_) => Error::Stalled { url, offset, seconds: limit.as_secs() },
                }
            }
        };
        self.body = None;
        self.pause(failure).await?;
        Ok(true)
    }

    /// Takes bytes of a body, of which `count` are available.
    fn accept(&mut self, count: usize, buffer: &mut Buffer) -> Result<(), Error> {
        let Some(Body::Http(response)) = &mut self.body else { return Ok(()) };
        if self.to_skip > 0 {
            let skipped = usize::try_from(self.to_skip).unwrap_or(usize::MAX).min(count);
            response.consume(skipped);
            self.to_skip -= skipped as u64;
            return Ok(());
        }
        let bytes = response.available(count);
        let count = match &mut self.decoding {
            Some(decoding) => {
                if let Some(sums) = &mut self.as_sent {
                    sums.update(bytes);
                }
                decoding.push(Bytes::copy_from_slice(bytes));
                count
            }
            None => buffer.append(bytes),
        };
        response.consume(count);
        self.position += count as u64;
        if self.position >= self.failed_at.saturating_add(PROGRESS) {
            self.failures = 0;
        }
        if let Some(total) = self.announced().filter(|total| self.position > *total) {
            let reason = format!("more came than the {total} bytes announced");
            return Err(Error::Answer { url: self.name(), reason });
        }
        Ok(())
    }

    /// Makes sure that a body is open at the current position.
    async fn connected(&mut self) -> Result<(), Interrupt> {
        while self.body.is_none() {
            self.may_go_on()?;
            match self.connect().await {
                Ok((body, mut identity)) => {
                    if self.replaced >= BELIEVED {
                        identity.validator = None;
                    }
                    if let Some((known, at)) = &self.identity {
                        let elsewhere = (*at != self.locations.index()).then(|| self.locations.name(*at));
                        match identity.departs_from(known, elsewhere.as_deref()) {
                            Some(Attempt::Restart(change)) => return Err(Interrupt::Restart(change)),
                            Some(_) => return Err(self.found_replaced()),
                            None => {}
                        }
                        if self.position > 0 && !self.is_set_aside {
                            self.resumed += 1;
                            tracing::info!(source = self.name(), offset = self.position, "transfer resumed");
                        }
                    } else {
                        self.decoding = Decoding::new(identity.encoding);
                        if self.decoding.is_some() {
                            self.as_sent = self.expected.map(|expected| expected.start());
                            tracing::info!(
                                source = self.name(),
                                encoding = ?identity.encoding,
                                "the server insists on a content encoding, which is undone"
                            );
                        }
                        self.identity = Some((identity, self.locations.index()));
                    }
                    self.is_set_aside = false;
                    self.trickle = Trickle::default();
                    self.body = Some(body);
                }
                Err(Attempt::Retry(error)) => self.pause(error).await?,
                Err(Attempt::GiveUp(error)) => self.give_up(error, true)?,
                Err(Attempt::Restart(reason)) => return Err(Interrupt::Restart(reason)),
                Err(Attempt::Replaced) => return Err(self.found_replaced()),
            }
        }
        Ok(())
    }

    /// The image has another ETag or time of change than before, and the same length. Once that is a new image. Where it goes
    /// on, each backend of the server has its own, or each answer: then they are not asked for any more, and the digest decides.
    fn found_replaced(&mut self) -> Interrupt {
        self.replaced = self.replaced.saturating_add(1);
        Interrupt::Restart("the image was replaced meanwhile: its ETag or time is another one".to_owned())
    }

    async fn connect(&mut self) -> Result<(Body, Identity), Attempt> {
        match self.locations.current() {
            None => return Err(Attempt::GiveUp(Error::Pipeline("no source is left"))),
            Some(Location::File(path)) => {
                let file = LocalFile::open(path).map_err(Attempt::GiveUp)?;
                let identity = Identity { total: file.size, validator: None, encoding: Encoding::Identity };
                return Ok((Body::File(file), identity));
            }
            Some(Location::Http(_)) => {}
            Some(Location::Oci(_)) if self.blob_in_use().is_some() => {}
            Some(Location::Oci(reference)) => {
                let blob = self.find(reference).await?;
                self.blob = Some((blob, self.locations.index()));
                return self.ask().await;
            }
        }
        match self.ask().await {
            // Tokens of registries last for minutes, images may take longer.
            Err(Attempt::GiveUp(Error::Status { status: 401, .. })) if self.blob_in_use().is_some() => {
                self.renew().await?;
                self.ask().await
            }
            answer => answer,
        }
    }

    /// Asks the registry anew for what the image is, and for a token.
    async fn renew(&mut self) -> Result<(), Attempt> {
        let Some(Location::Oci(reference)) = self.locations.current() else { return Ok(()) };
        tracing::info!(source = self.name(), "asking the registry for a new token");
        let new = self.find(reference).await?;
        let is_other = self.blob_in_use().is_some_and(|old| old.image.digest != new.image.digest);
        self.blob = Some((new, self.locations.index()));
        if is_other && self.position > 0 {
            return Err(Attempt::Restart("the registry names another image by now".to_owned()));
        }
        Ok(())
    }

    /// Asks the server for the image, or for the rest of it.
    async fn ask(&mut self) -> Result<(Body, Identity), Attempt> {
        let Some((url, authorization)) = self.target() else {
            return Err(Attempt::GiveUp(Error::Pipeline("a source without a URL")));
        };
        let is_skipped = self.has_no_parts && self.position <= SKIPPED_AT_MOST;
        let wanted = if self.position == 0 || is_skipped { Wanted::All } else { Wanted::From(self.position) };
        let here = self.locations.index();
        let known = self.identity.as_ref().filter(|(_, at)| *at == here).map(|(known, _)| known);
        let limit = self.transport.connect_timeout;
        let answer = self.get(url, authorization, wanted, known, limit).await?;
        if let (Some(blob), Some(total), Encoding::Identity) =
            (self.blob_in_use(), answer.identity.total, answer.identity.encoding)
            && blob.image.size != total
        {
            let reason = format!("the manifest says {} bytes, and the registry has {total}", blob.image.size);
            return Err(Attempt::GiveUp(Error::Answer { url: self.name(), reason }));
        }
        self.to_skip = if wanted == Wanted::All { self.position } else { 0 };
        Ok((Body::Http(answer.response), answer.identity))
    }

    /// Asks a registry what a reference stands for.
    async fn find(&self, reference: &OciReference) -> Result<Blob, Attempt> {
        tokio::select! {
            blob = oci::find(&self.client, reference, self.authorization.as_ref(), self.transport.connect_timeout) => blob,
            () = self.stop() => Err(Attempt::GiveUp(self.stopped())),
        }
    }

    async fn get(
        &self,
        url: &Url,
        authorization: Option<&Secret>,
        wanted: Wanted,
        known: Option<&Identity>,
        limit: Duration,
    ) -> Result<http::Answer, Attempt> {
        tokio::select! {
            answer = timeout(limit, http::get(&self.client, url, authorization, wanted, known)) => {
                answer.unwrap_or_else(|_| {
                    let seconds = limit.as_secs();
                    Err(Attempt::Retry(Error::Stalled { url: shown(url), offset: self.position, seconds }))
                })
            }
            () = self.stop() => Err(Attempt::GiveUp(self.stopped())),
        }
    }
}
