//! Bounded waiting. Used wherever a test waits for something it does not control.
//!
//! Limits are written for a quiet machine with two cores and no KVM, already several times what was measured there;
//! `FERRIC_TEST_PATIENCE=3` stretches all of them for a slower or busier one.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// A time limit of so many seconds, stretched by `FERRIC_TEST_PATIENCE`.
pub fn patient(seconds: u64) -> Duration {
    let factor =
        std::env::var("FERRIC_TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1_u64);
    Duration::from_secs(seconds.saturating_mul(factor.max(1)))
}

/// Asks `probe` five times a second until it has an answer.
///
/// # Errors
/// The probe's own error at once; otherwise, when `limit` has passed, an error that names `what`.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = probe()? {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            bail!("waited {} s in vain for: {what}", limit.as_secs());
        }
        sleep(Duration::from_millis(200));
    }
}
