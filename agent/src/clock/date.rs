//! Whether to believe what a reply says about the time.
//!
//! The reasoning, for a clock that says T and a reply that says D:
//!
//! - Over plain http, or with verification switched off, the machine obeys that server in everything anyway: it was booted
//!   from it, and takes images and their digests from it. Somebody on the wire gains nothing by lying about the time.
//! - Over https the certificate must be good at D in every respect: names, authority, validity. If it is good at T as
//!   well, D comes from the conductor as surely as anything does.
//! - If it is good at D but not at T, the clock or the certificate is out of date. Moving the clock forwards can not make an
//!   expired certificate good. Moving it backwards can: whoever holds the key of an expired certificate could bring back the
//!   day when it was valid. So backwards only from a time that can not be: ten years after this program was made.
//! - Never to a time before this program was made.

use super::BUILT;

/// Why a reply's date could be the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The server is believed in everything: plain http, or no verification.
    Obeyed,
    /// Its certificate is good by the clock, and at the date of the reply.
    Verified,
    /// Its certificate is good at the date of the reply, but not by the clock.
    VerifiedThen,
}

/// What to do about a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The clock agrees.
    Agrees,
    /// The clock is wrong: set it.
    Correct,
    /// The date is before this program was made.
    TooEarly,
    /// The clock would have to go back, and the date is not trusted enough for that.
    Backwards,
}

/// Seconds that the clock may be off: less than any check of a certificate notices.
pub const TOLERANCE: i64 = 30;
/// No ramdisk is in use for longer, in seconds.
const LONGEST_USE: i64 = 10 * 365 * 24 * 3600;

/// Judges the date of a reply (Unix seconds, as the clock).
pub fn judge(clock: i64, date: i64, trust: Trust) -> Verdict {
    if clock.abs_diff(date) <= TOLERANCE.unsigned_abs() {
        return Verdict::Agrees;
    }
    if date < BUILT {
        return Verdict::TooEarly;
    }
    let impossible = clock > BUILT.saturating_add(LONGEST_USE);
    match trust {
        Trust::Obeyed | Trust::Verified => Verdict::Correct,
        Trust::VerifiedThen if date > clock || impossible => Verdict::Correct,
        Trust::VerifiedThen => Verdict::Backwards,
    }
}

/// The time at which a server sent a reply, in Unix seconds: of one that no cache has kept.
pub fn of(headers: &reqwest::header::HeaderMap) -> Option<i64> {
    if headers.contains_key(reqwest::header::AGE) {
        return None;
    }
    let text = headers.get(reqwest::header::DATE)?.to_str().ok()?;
    let since = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const YEAR: i64 = 365 * 24 * 3600;

    #[test]
    fn forwards_is_easy_backwards_needs_more_and_before_the_build_is_never() {
        let now = BUILT + YEAR;
        for trust in [Trust::Obeyed, Trust::Verified, Trust::VerifiedThen] {
            assert_eq!(judge(now, now + 30, trust), Verdict::Agrees);
            assert_eq!(judge(now - 30 * YEAR, now, trust), Verdict::Correct, "a dead battery");
            assert_eq!(judge(0, BUILT - 1, trust), Verdict::TooEarly);
            assert_eq!(judge(now + 70 * YEAR, now, trust), Verdict::Correct, "a time that can not be");
        }
        assert_eq!(judge(now + 7200, now, Trust::Verified), Verdict::Correct, "local time in the RTC");
        assert_eq!(judge(now + 7200, now, Trust::Obeyed), Verdict::Correct);
        assert_eq!(judge(now + YEAR, now, Trust::VerifiedThen), Verdict::Backwards);
    }

    #[test]
    fn dates_are_read_from_fresh_replies_only() {
        let mut headers = reqwest::header::HeaderMap::new();
        assert_eq!(of(&headers), None);
        headers.insert("date", "Sat, 21 Nov 2026 05:00:00 GMT".parse().unwrap());
        assert_eq!(of(&headers), Some(1_795_237_200));
        headers.insert("age", "12".parse().unwrap());
        assert_eq!(of(&headers), None, "a cache has kept it");
        let mut odd = reqwest::header::HeaderMap::new();
        odd.insert("date", "soon".parse().unwrap());
        assert_eq!(of(&odd), None);
    }

    proptest! {
        #[test]
        fn no_date_before_the_build_is_ever_believed(clock: i64, date in i64::MIN..BUILT) {
            for trust in [Trust::Obeyed, Trust::Verified, Trust::VerifiedThen] {
                prop_assert_ne!(judge(clock, date, trust), Verdict::Correct);
            }
        }
    }
}
