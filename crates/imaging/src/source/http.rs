//! One HTTP request at a time: asking for an image or a part of it, and judging the answer.
//!
//! No retries here; [`super::Source`] decides what a failure means.

use std::time::Duration;

use url::Url;
use wire::Secret;

use super::encoding::Encoding;
use super::{Attempt, shown};
use crate::client::{Client, Fields, Request, Response, is_field_value};
use crate::error::{Error, is_fatal_status};

/// A time of change counts where the answer is younger by so much: RFC 9110 section 8.8.2.2. A server that gives each answer
/// the time of the answer says nothing.
const SETTLED: Duration = Duration::from_secs(60);

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
    pub(crate) validator: Option<String>,
}

impl Identity {
    /// Why an answer of this identity can not continue what an earlier one began; `None` where it can. `elsewhere` is the
    /// earlier one's source where it was another: then validators say nothing, for each server makes its own.
    pub(crate) fn departs_from(&self, before: &Self, elsewhere: Option<&str>) -> Option<Attempt> {
        let there = elsewhere.map_or("before".to_owned(), |source| format!("at {source}"));
        if self.total != before.total {
            let size =
                |total: Option<u64>| total.map_or("an unknown size".to_owned(), |n| format!("{n} bytes"));
            return Some(Attempt::Restart(format!(
                "the image has {}, and had {} {there}",
                size(self.total),
                size(before.total)
            )));
        }
        if self.encoding != before.encoding {
            let reason = format!("the image comes in another content encoding than {there}");
            return Some(Attempt::Restart(reason));
        }
        let is_told_apart = elsewhere.is_none() && before.validator.is_some();
        (is_told_apart && self.validator != before.validator).then_some(Attempt::Replaced)
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
    authorization: Option<&Secret>,
    wanted: Wanted,
    known: Option<&Identity>,
) -> Result<Answer, Attempt> {
    let mut fields = Vec::new();
    let (first, last) = match wanted {
        Wanted::All => (0, None),
        Wanted::From(first) => (first, None),
        Wanted::Part(first, length) => (first, Some(first.saturating_add(length.max(1)) - 1)),
    };
    if wanted != Wanted::All {
        let last = last.map_or(String::new(), |n| n.to_string());
        fields.push(("Range", format!("bytes={first}-{last}")));
        if let Some(validator) = known.and_then(|known| known.validator.clone()) {
            fields.push(("If-Range", validator));
        }
    }
    let request = Request { url, authorization, fields };
    let response = client.get(request).await.map_err(|source| {
        let will_not_change = source.is_final();
        let error = Error::Fetch { url: shown(url), offset: first, source };
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
    let status = response.status;
    let fields = &response.fields;
    let answer = |reason: String| Error::Answer { url: shown(url), reason };
    let encoding = || {
        Encoding::of(fields).map_err(|encoding| {
            Attempt::GiveUp(answer(format!(
                "the server sends it with content {encoding}, though it was asked for the bytes as they are: serve it so"
            )))
        })
    };
    match (wanted, status) {
        (Wanted::All, 200) => {
            let identity =
                Identity { total: response.length(), encoding: encoding()?, validator: validator(fields) };
            Ok(Answer { response, identity })
        }
        (Wanted::From(_) | Wanted::Part(..), 206) => {
            let range = fields.text("content-range").as_deref().and_then(ContentRange::parse);
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
            // A total of `*` is not known to the server; what it sends up to the known end is the rest of the image.
            let known_total =
                known.and_then(|known| known.total).filter(|total| total.checked_sub(1) == Some(range.last));
            let total = range.total.or(known_total);
            let identity = Identity { total, encoding: encoding()?, validator: validator(fields) };
            Ok(Answer { response, identity })
        }
        // The whole image instead of a part: it changed (If-Range), or the server knows no ranges.
        (Wanted::From(_) | Wanted::Part(..), 200) => {
            let new =
                Identity { total: response.length(), encoding: encoding()?, validator: validator(fields) };
            let change = known.and_then(|known| new.departs_from(known, None));
            Err(change
                .unwrap_or_else(|| Attempt::Restart("the server sends the image from its start".to_owned())))
        }
        (Wanted::From(_) | Wanted::Part(..), 416) => {
            Err(Attempt::Restart(format!("the server says that it has nothing at byte {first}")))
        }
        // It gave the image, and refuses a part of it: the whole may still be had.
        (Wanted::From(_) | Wanted::Part(..), 412 | 501) => Err(refused_range(status)),
        (Wanted::From(_), 400 | 403 | 405 | 406) if known.is_some() => Err(refused_range(status)),
        _ => {
            let error = Error::Status { url: shown(url), status };
            Err(if is_fatal_status(status) { Attempt::GiveUp(error) } else { Attempt::Retry(error) })
        }
    }
}

fn refused_range(status: u16) -> Attempt {
    Attempt::Restart(format!("the server answered {status} to a request for the rest"))
}

/// What proves that two answers are of the same bytes: RFC 9110 section 13.1.5 wants a strong ETag or a date.
fn validator(fields: &Fields) -> Option<String> {
    let legal = |text: &String| text.is_ascii() && is_field_value(text);
    let tag = fields.text("etag").filter(|tag| tag.len() > 1 && tag.starts_with('"') && tag.ends_with('"'));
    tag.filter(legal).or_else(|| {
        let text = fields.text("last-modified").filter(legal)?;
        let changed = httpdate::parse_http_date(&text).ok()?;
        let answered = fields.text("date").and_then(|date| httpdate::parse_http_date(&date).ok());
        let is_settled =
            answered.is_none_or(|answered| answered.duration_since(changed).is_ok_and(|age| age >= SETTLED));
        is_settled.then_some(text)
    })
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` (RFC 9110 section 14.4).
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl ContentRange {
    /// Reads it, also with `=` or `:` behind the unit, without the unit, and without a total.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let rest = match text.get(..5) {
            Some(unit) if unit.eq_ignore_ascii_case("bytes") => text.get(5..)?,
            _ => text,
        };
        let rest = rest.trim_start_matches([' ', '\t', '=', ':']);
        let (span, total) = rest.split_once('/').unwrap_or((rest, "*"));
        let (first, last) = span.split_once('-')?;
        let number = |text: &str| {
            let text = text.trim();
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse::<u64>().ok()).flatten()
        };
        let total = match total.trim() {
            "*" | "" => None,
            total => Some(number(total)?),
        };
        let range = Self { first: number(first)?, last: number(last)?, total };
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
        for odd in ["bytes=5-9/10", "Bytes: 5-9/10", "5-9/10", " bytes  5 - 9 / 10 "] {
            assert_eq!(ContentRange::parse(odd), range(5, 9, Some(10)), "{odd}");
        }
        assert_eq!(ContentRange::parse("bytes 5-9"), range(5, 9, None));
        for bad in
            ["bytes 9-5/10", "bytes 0-10/10", "bytes */10", "items 0-1/2", "", "bytes -1-2/3", "bytes 0-1/x"]
        {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_strong_tags_and_settled_dates_validate() {
        const CHANGED: &str = "Fri, 20 Nov 2026 10:00:00 GMT";
        let date = |answered| {
            validator(&Fields::of(&[("etag", "W/\"weak\""), ("last-modified", CHANGED), ("date", answered)]))
        };
        assert_eq!(validator(&Fields::default()), None);
        assert_eq!(validator(&Fields::of(&[("last-modified", CHANGED)])).as_deref(), Some(CHANGED));
        assert_eq!(date("Fri, 20 Nov 2026 10:01:00 GMT").as_deref(), Some(CHANGED));
        assert_eq!(date("Fri, 20 Nov 2026 10:00:59 GMT"), None, "the time of the answer says nothing");
        assert_eq!(date("Fri, 20 Nov 2026 09:00:00 GMT"), None);
        assert_eq!(validator(&Fields::of(&[("last-modified", "yesterday")])), None);
        let strong = Fields::of(&[("last-modified", CHANGED), ("etag", "\"strong\"")]);
        assert_eq!(validator(&strong).as_deref(), Some("\"strong\""));
    }
}
