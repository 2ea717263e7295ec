//! The ranges of a disk that could not be written or read: collected, merged, and named in a text of bounded length.

use std::io;

/// How many ranges are kept apart. Beyond it, ranges are only counted.
const KEPT: usize = 4096;
/// How many ranges a text names.
const NAMED: usize = 16;

/// Ranges in bytes, in order and without overlap.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    /// (start, end).
    ranges: Vec<(u64, u64)>,
    /// How many ranges came after [`KEPT`] were kept, and their bytes.
    omitted: (u64, u64),
    /// The first error.
    cause: Option<String>,
}

impl Damage {
    /// Adds a range with what the system said of it. Ranges that touch become one.
    pub(crate) fn add(&mut self, start: u64, length: u64, cause: &io::Error) {
        self.cause.get_or_insert_with(|| cause.to_string());
        let (mut start, mut end) = (start, start.saturating_add(length));
        if start == end {
            return;
        }
        let first = self.ranges.partition_point(|(_, known_end)| *known_end < start);
        let last = self.ranges.partition_point(|(known_start, _)| *known_start <= end);
        for (known_start, known_end) in self.ranges.drain(first..last.max(first)) {
            (start, end) = (start.min(known_start), end.max(known_end));
        }
        if self.ranges.len() < KEPT {
            self.ranges.insert(first, (start, end));
        } else {
            self.omitted = (self.omitted.0 + 1, self.omitted.1.saturating_add(end - start));
        }
    }

    /// Returns whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.omitted.0 == 0
    }

    /// Returns whether this byte is in one of the ranges.
    pub(crate) fn holds(&self, byte: u64) -> bool {
        let at = self.ranges.partition_point(|(_, end)| *end <= byte);
        self.ranges.get(at).is_some_and(|(start, _)| *start <= byte)
    }

    /// Returns the ranges as text: `2 ranges, 4608 bytes in all: 0 to 511, 8192 to 12287 (input/output error)`.
    pub(crate) fn text(&self) -> String {
        let count = self.omitted.0.saturating_add(u64::try_from(self.ranges.len()).unwrap_or(u64::MAX));
        let kept: u64 = self.ranges.iter().map(|(start, end)| end - start).sum();
        let bytes = kept.saturating_add(self.omitted.1);
        let named: Vec<String> =
            self.ranges.iter().take(NAMED).map(|(start, end)| format!("{start} to {}", end - 1)).collect();
        let more = count.saturating_sub(u64::try_from(named.len()).unwrap_or_default());
        let more = if more > 0 { format!(" and {more} more, listed in the log") } else { String::new() };
        let cause = self.cause.as_deref().map(|cause| format!(" ({cause})")).unwrap_or_default();
        let word = if count == 1 { "range" } else { "ranges" };
        format!("{count} {word}, {bytes} bytes in all: bytes {}{more}{cause}", named.join(", "))
    }

    /// Logs every range that is kept.
    pub(crate) fn log(&self, device: &str, what: &str) {
        for (start, end) in &self.ranges {
            tracing::warn!(device, start, last = end - 1, what, "damaged range");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> io::Error {
        io::Error::other("medium error")
    }

    #[test]
    fn ranges_that_touch_or_overlap_are_one() {
        let mut damage = Damage::default();
        for (start, length) in [(4096, 512), (0, 512), (5120, 512), (4608, 512), (4096, 1024), (512, 0)] {
            damage.add(start, length, &error());
        }
        assert_eq!(damage.ranges, [(0, 512), (4096, 5632)]);
        assert!(damage.holds(0) && damage.holds(511) && damage.holds(5000));
        assert!(!damage.holds(512) && !damage.holds(4095) && !damage.holds(5632));
        assert_eq!(damage.text(), "2 ranges, 2048 bytes in all: bytes 0 to 511, 4096 to 5631 (medium error)");
    }

    #[test]
    fn the_text_stays_short_and_every_byte_is_counted() {
        let mut damage = Damage::default();
        for sector in 0..5000 {
            damage.add(sector * 1024, 512, &error());
        }
        assert!(damage.text().starts_with("5000 ranges, 2560000 bytes in all: bytes 0 to 511, "));
        assert!(damage.text().contains(" and 4984 more"));
        assert!(damage.text().len() < 600, "{}", damage.text());
    }
}
