//! Parts of an image that are read beside the stream: tables that are needed before their bytes pass.

use reqwest::{Response, Url};
use tokio::time::timeout;

use super::http::Wanted;
use super::{Attempt, Body, Source, shown};
use crate::error::Error;

/// Tries for a part that is read beside the stream. Without it the stream alone must do, so there is no long wait.
const PART_ATTEMPTS: u32 = 3;

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
        let Some((url, authorization)) = self.target() else { return Ok(None) };
        if self.decoding.is_some() {
            return Ok(None);
        }
        for _ in 0..PART_ATTEMPTS {
            self.may_go_on()?;
            let error = match self.get(url, authorization, Wanted::Part(offset, length)).await {
                Ok(answer) if self.announced().is_some() && answer.identity.total != self.announced() => {
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
}
