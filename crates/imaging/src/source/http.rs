//! One HTTP request at a time: asking for an image or a part of it, and judging the answer.
//!
//! No retries here; [`super::Source`] decides what a failure means.

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED,
    RANGE,
};
use reqwest::{Client, Response, StatusCode, Url};

use super::encoding::Encoding;
use super::{Attempt, shown};
use crate::error::{Error, is_fatal_status};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything.
    All,
    /// Everything from this offset on.
    From(u64),
    /// This offset, this many bytes (at least 1).
    Part(u64, u64),
}

/// What the image was when it was first opened: what a resumed transfer must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Bytes of the body, as the server sends them.
    pub(crate) total: Option<u64>,
    /// How they are encoded.
    pub(crate) encoding: Encoding,
    /// Strong ETag, else Last-Modified.
    pub(crate) validator: Option<HeaderValue>,
}

impl Identity {
    /// Why an answer of this identity can not continue what an earlier one began; `None` where it can. `elsewhere` is the
    /// earlier one's source where it was another: then validators say nothing, for each server makes its own.
    pub(crate) fn departs_from(&self, before: &Self, elsewhere: Option<&str>) -> Option<String> {
        let there = elsewhere.map_or("before".to_owned(), |source| format!("at {source}"));
        if self.total != before.total {
            let size =
                |total: Option<u64>| total.map_or("an unknown size".to_owned(), |n| format!("{n} bytes"));
            return Some(format!(
                "the image has {}, and had {} {there}",
                size(self.total),
                size(before.total)
            ));
        }
        if self.encoding != before.encoding {
            return Some(format!("the image comes in another content encoding than {there}"));
        }
        let is_told_apart = elsewhere.is_none() && before.validator.is_some();
        (is_told_apart && self.validator != before.validator)
            .then(|| "the image was replaced meanwhile: its ETag or time is another one".to_owned())
    }
}

/// A successful answer whose body is still to come.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) identity: Identity,
}

/// Sends one GET. `known` is the image's identity from an earlier answer *of this URL*, for `If-Range`.
pub(crate) async fn get(
    client: &Client,
    url: &Url,
    authorization: Option<&HeaderValue>,
    wanted: Wanted,
    known: Option<&Identity>,
) -> Result<Answer, Attempt> {
    let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value.clone());
    }
    let (first, last) = match wanted {
        Wanted::All => (0, None),
        Wanted::From(first) => (first, None),
        Wanted::Part(first, length) => (first, Some(first.saturating_add(length.max(1)) - 1)),
    };
    if wanted != Wanted::All {
        request =
            request.header(RANGE, format!("bytes={first}-{}", last.map_or(String::new(), |n| n.to_string())));
        if let Some(validator) = known.and_then(|known| known.validator.clone()) {
            request = request.header(IF_RANGE, validator);
        }
    }
    let response = request.send().await.map_err(|error| {
        let will_not_change = error.is_redirect() || error.is_builder();
        let error = Error::Fetch { url: shown(url), offset: first, source: error.without_url() };
        if will_not_change { Attempt::GiveUp(error) } else { Attempt::Retry(error) }
    })?;
    judge(response, url, wanted, (first, last), known)
}

fn judge(
    response: Response,
    url: &Url,
    wanted: Wanted,
    (first, last): (u64, Option<u64>),
    known: Option<&Identity>,
) -> Result<Answer, Attempt> {
    let status = response.status();
    let headers = response.headers();
    let answer = |reason: String| Error::Answer { url: shown(url), reason };
    let encoding = Encoding::of(headers).map_err(|encoding| {
        Attempt::GiveUp(answer(format!(
            "the server sends it with content {encoding}, though it was asked for the bytes as they are: serve it so"
        )))
    })?;
    match (wanted, status) {
        (Wanted::All, StatusCode::OK) => {
            let identity =
                Identity { total: response.content_length(), encoding, validator: validator(headers) };
            Ok(Answer { response, identity })
        }
        (Wanted::From(_) | Wanted::Part(..), StatusCode::PARTIAL_CONTENT) => {
            let range =
                headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).and_then(ContentRange::parse);
            let Some(range) = range else {
                return Err(Attempt::GiveUp(answer("the server's Content-Range can not be read".to_owned())));
            };
            let end_fits = match last {
                // A part may be shorter only where the image ends.
                Some(last) => {
                    range.last == last
                        || range.total.is_some_and(|t| t.checked_sub(1) == Some(range.last) && t <= last)
                }
                None => range.total.is_none_or(|total| range.last == total - 1),
            };
            if range.first != first || !end_fits {
                return Err(Attempt::GiveUp(answer(format!(
                    "asked for bytes from {first}, the server sends {} to {}",
                    range.first, range.last
                ))));
            }
            let identity = Identity { total: range.total, encoding, validator: validator(headers) };
            Ok(Answer { response, identity })
        }
        // The whole image instead of a part: it changed (If-Range), or the server knows no ranges.
        (Wanted::From(_) | Wanted::Part(..), StatusCode::OK) => {
            let new = Identity { total: response.content_length(), encoding, validator: validator(headers) };
            let change = known.and_then(|known| new.departs_from(known, None));
            Err(Attempt::Restart(
                change.unwrap_or_else(|| "the server sends the image from its start".to_owned()),
            ))
        }
        (Wanted::From(_) | Wanted::Part(..), StatusCode::RANGE_NOT_SATISFIABLE) => {
            Err(Attempt::Restart(format!("the server says that it has nothing at byte {first}")))
        }
        (Wanted::From(_) | Wanted::Part(..), StatusCode::PRECONDITION_FAILED) => {
            Err(Attempt::Restart(format!("the server answered {status}")))
        }
        _ => {
            let error = Error::Status { url: shown(url), status: status.as_u16() };
            Err(if is_fatal_status(status.as_u16()) { Attempt::GiveUp(error) } else { Attempt::Retry(error) })
        }
    }
}

/// What proves that two answers are of the same bytes: RFC 9110 section 13.1.5 wants a strong ETag or a date.
fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    headers
        .get(ETAG)
        .filter(|tag| tag.as_bytes().starts_with(b"\""))
        .or_else(|| headers.get(LAST_MODIFIED))
        .cloned()
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` (RFC 9110 section 14.4).
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<Self> {
        let (span, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let total = match total {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        let range = Self { first: first.parse().ok()?, last: last.parse().ok()?, total };
        let sane = range.first <= range.last && range.total.is_none_or(|total| range.last < total);
        sane.then_some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_or_refused() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        assert_eq!(ContentRange::parse("bytes 5-9/10"), range(5, 9, Some(10)));
        assert_eq!(ContentRange::parse("bytes 0-0/*"), range(0, 0, None));
        for bad in
            ["bytes 9-5/10", "bytes 0-10/10", "bytes */10", "items 0-1/2", "bytes 0-1", "", "bytes -1-2/3"]
        {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_strong_tags_and_dates_validate() {
        let mut headers = HeaderMap::new();
        assert_eq!(validator(&headers), None);
        headers.insert(LAST_MODIFIED, HeaderValue::from_static("Fri, 20 Nov 2026 10:00:00 GMT"));
        headers.insert(ETAG, HeaderValue::from_static("W/\"weak\""));
        assert_eq!(validator(&headers), headers.get(LAST_MODIFIED).cloned());
        headers.insert(ETAG, HeaderValue::from_static("\"strong\""));
        assert_eq!(validator(&headers), headers.get(ETAG).cloned());
    }
}
