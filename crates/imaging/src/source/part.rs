//! Parts of an image that are read beside the stream: tables that are needed before their bytes pass.
//!
//! They are only read ahead: the same bytes come by in the stream, are compared there, and the digest covers them. So no
//! validator is asked for. Where a server gives no parts, the image can be read from its start once more, see [`Skim`].

use std::time::Duration;

use tokio::time::timeout;
use url::Url;

use super::http::{Answer, Wanted};
use super::{Attempt, Body, Source, shown};
use crate::client::{HttpError, Response};
use crate::error::Error;

/// Tries for a part that is read beside the stream. Without it the stream alone must do, so there is no long wait.
const PART_ATTEMPTS: u32 = 3;

/// Time for an answer while the stream's connection is open. A server that serves one connection at a time never gives it,
/// and then the stream's connection is closed and resumed later.
const BESIDE: Duration = Duration::from_secs(1);

/// Another download of the whole image, for the tables in it.
pub(super) struct Skim {
    response: Response,
    /// Offset of the next byte.
    position: u64,
}

impl Source<'_> {
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
        let mut tries = 0;
        while tries < PART_ATTEMPTS && !self.has_no_parts && self.decoding.is_none() {
            self.may_go_on()?;
            let is_beside = matches!(self.body, Some(Body::Http(_)));
            let limit = self.transport.connect_timeout;
            let limit = if is_beside { limit.min(BESIDE) } else { limit };
            let error = match self.ask_part(Wanted::Part(offset, length), limit).await {
                None => return Ok(None),
                Some(Ok(answer)) if self.has_other_length(&answer) => return Ok(None),
                Some(Ok(answer)) => match self.whole(answer.response, offset, size).await {
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(error) => error,
                },
                Some(Err(Attempt::Restart(_) | Attempt::Replaced)) => break,
                Some(Err(Attempt::GiveUp(error))) => {
                    self.may_go_on()?;
                    tracing::debug!(reason = error.report(), offset, length, "parts can not be read");
                    break;
                }
                Some(Err(Attempt::Retry(error))) => error,
            };
            tracing::debug!(reason = error.report(), offset, length, is_beside, "reading a part failed");
            if is_beside {
                self.set_aside();
            } else {
                tries += 1;
            }
        }
        // The stream, if it has to be opened again, does not ask for a part either.
        self.has_no_parts = true;
        Ok(None)
    }

    /// Closes the stream's connection, to open another one at the same byte later.
    fn set_aside(&mut self) {
        self.is_set_aside |= self.body.take().is_some();
    }

    async fn ask_part(&self, wanted: Wanted, limit: Duration) -> Option<Result<Answer, Attempt>> {
        let (url, authorization) = self.target()?;
        Some(self.get(url, authorization, wanted, None, limit).await)
    }

    fn has_other_length(&self, answer: &Answer) -> bool {
        let (here, there) = (self.announced(), answer.identity.total);
        here.is_some() && there.is_some() && here != there
    }

    /// Reads `length` bytes at `offset` out of another download of the image, which goes on where the last call left it, or
    /// begins again. `None` where that is not possible. The stream's connection is closed meanwhile.
    pub(crate) async fn skim(&mut self, offset: u64, length: u64) -> Result<Option<Vec<u8>>, Error> {
        let size = usize::try_from(length).map_err(|_| Error::Pipeline("part too large"))?;
        if self.decoding.is_some() || self.target().is_none() || matches!(self.body, Some(Body::File(_))) {
            return Ok(None);
        }
        self.set_aside();
        for _ in 0..PART_ATTEMPTS {
            self.may_go_on()?;
            match self.skim_once(offset, size).await {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => return Ok(None),
                Err(Attempt::GiveUp(error)) => {
                    self.may_go_on()?;
                    tracing::debug!(
                        reason = error.report(),
                        offset,
                        "reading the image for its tables failed"
                    );
                    return Ok(None);
                }
                Err(Attempt::Restart(reason)) => {
                    tracing::debug!(reason, offset, "reading the image for its tables failed");
                }
                Err(Attempt::Replaced) => {}
                Err(Attempt::Retry(error)) => {
                    tracing::debug!(
                        reason = error.report(),
                        offset,
                        "reading the image for its tables failed"
                    );
                    self.rest().await?;
                }
            }
            self.skim = None;
        }
        Ok(None)
    }

    /// Returns whether the image may be downloaded once more for its tables, where it cannot be read in parts: `is_needed`
    /// says that it has to be, or an earlier pass found that out.
    pub(crate) fn may_skim(&self, is_needed: bool) -> bool {
        self.is_skimmed || is_needed
    }

    /// Has the image downloaded once more for its tables in the passes to come. `false` where that was so already.
    pub(crate) fn allow_skim(&mut self) -> bool {
        !std::mem::replace(&mut self.is_skimmed, true)
    }

    /// Frees what [`Source::skim`] holds.
    pub(crate) fn end_skim(&mut self) {
        self.skim = None;
    }

    async fn skim_once(&mut self, offset: u64, size: usize) -> Result<Option<Vec<u8>>, Attempt> {
        let limit = self.transport.connect_timeout;
        let mut skim = match self.skim.take().filter(|skim| skim.position <= offset) {
            Some(skim) => skim,
            None => {
                tracing::info!(source = self.name(), "downloading the image once more, for its tables");
                let Some(answer) = self.ask_part(Wanted::All, limit).await else { return Ok(None) };
                let answer = answer?;
                if self.has_other_length(&answer) {
                    return Ok(None);
                }
                Skim { response: answer.response, position: 0 }
            }
        };
        let mut bytes = Vec::new();
        while bytes.len() < size {
            self.may_go_on().map_err(Attempt::GiveUp)?;
            let url = self.name();
            let count = tokio::select! {
                biased; // as for the stream
                count = timeout(limit, skim.response.ready()) => count,
                () = self.stop() => return Err(Attempt::GiveUp(self.stopped())),
            };
            let count = match count {
                Ok(Ok(0)) => break,
                Ok(Ok(count)) => count,
                Ok(Err(source)) => {
                    return Err(Attempt::Retry(Error::Fetch { url, offset: skim.position, source }));
                }
                Err(_) => {
                    let seconds = limit.as_secs();
                    return Err(Attempt::Retry(Error::Stalled { url, offset: skim.position, seconds }));
                }
            };
            let before =
                usize::try_from(offset.saturating_sub(skim.position)).unwrap_or(usize::MAX).min(count);
            let wanted = skim.response.available(count).get(before..).unwrap_or_default();
            let wanted = wanted.get(..wanted.len().min(size - bytes.len())).unwrap_or_default();
            let taken = before + wanted.len();
            bytes.extend_from_slice(wanted);
            skim.response.consume(taken);
            skim.position = skim.position.saturating_add(taken as u64);
        }
        self.skim = Some(skim);
        Ok(Some(bytes))
    }

    /// The body of an answer, up to `size` bytes.
    async fn whole(&self, mut response: Response, offset: u64, size: usize) -> Result<Vec<u8>, Error> {
        let limit = self.transport.connect_timeout;
        let url = || self.target().map_or(String::new(), |(url, _): (&Url, _)| shown(url));
        let mut bytes = Vec::with_capacity(size);
        loop {
            match timeout(limit, response.ready()).await {
                Ok(Ok(0)) | Ok(Err(HttpError::Truncated)) => break,
                // Read to its end, so that the connection can be used for the next part.
                Ok(Ok(count)) => {
                    let more = response.available(count);
                    bytes.extend_from_slice(more.get(..count.min(size - bytes.len())).unwrap_or_default());
                    response.consume(count);
                    if bytes.len() == size && response.length() != Some(0) {
                        // More than was asked for is not waited for.
                        break;
                    }
                }
                Ok(Err(source)) => return Err(Error::Fetch { url: url(), offset, source }),
                Err(_) => return Err(Error::Stalled { url: url(), offset, seconds: limit.as_secs() }),
            }
        }
        Ok(bytes)
    }
}
