//! Time, in the two forms the API and the timeline need.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in seconds; 0 when the clock stands before 1970.
pub fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Now, as the API writes dates: `2026-11-20T21:31:36.448769+00:00`.
pub fn rfc3339() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

/// Now, as part of a file name: `20261120T213136Z`.
pub fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}
