//! Jitter. The randomness that already makes ids is enough to keep machines from knocking in step.

use std::time::Duration;

/// A uniformly distributed duration between two bounds.
pub(super) fn between(low: Duration, high: Duration) -> Duration {
    let (bits, _) = uuid::Uuid::new_v4().as_u64_pair();
    let fraction = f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    low + high.saturating_sub(low).mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_bounds_and_varies() {
        let (low, high) = (Duration::from_secs(90), Duration::from_secs(180));
        let draws: Vec<_> = (0..200).map(|_| between(low, high)).collect();
        assert!(draws.iter().all(|d| (low..=high).contains(d)));
        assert!(draws.iter().any(|d| *d < Duration::from_secs(120)));
        assert!(draws.iter().any(|d| *d > Duration::from_secs(150)));
        assert_eq!(between(low, low), low);
        assert_eq!(between(high, low), high);
    }
}
