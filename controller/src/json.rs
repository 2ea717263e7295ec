//! What JSON from outside may be: its nesting is bounded, because what is stored must be readable again.

/// Deepest nesting of a request's JSON. The reader of stored records stops at 128 levels, and a record adds a few.
pub const DEEPEST: usize = 32;

/// Returns how deep arrays and objects are nested. Reads brackets only: the text need not be valid JSON.
pub fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for byte in text {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => quoted = false,
            (true, _) => {}
            (false, b'"') => quoted = true,
            (false, b'{' | b'[') => {
                depth = depth.saturating_add(1);
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (false, _) => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_texts() {
        for (text, levels) in [
            ("1", 0),
            (r#""[[[""#, 0),
            (r#"{"a": "\"{{", "b": [1, {}]}"#, 3),
            ("[][][[]]", 2),
            (r#"{"a\\": {"b": 1}}"#, 2),
        ] {
            assert_eq!(depth(text.as_bytes()), levels, "{text}");
        }
    }
}
