//! The name that somebody meant who mistyped it.

/// The known name nearest to `wrong`, if it is near enough to be meant.
pub(super) fn nearest(wrong: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let reach = (wrong.chars().count() / 4).clamp(1, 4);
    let near = known.map(|name| (distance(wrong, &name), name)).filter(|(distance, _)| *distance <= reach);
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// The end of a sentence about an unknown name.
pub(super) fn question(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// Letters to insert, remove or replace (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, a) in from.chars().enumerate() {
        let mut next = vec![line + 1];
        for (b, (above_left, above)) in to.iter().zip(row.iter().zip(row.iter().skip(1))) {
            let left = next.last().copied().unwrap_or_default();
            next.push((above_left + usize::from(a != *b)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_book() {
        for (from, to, expected) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0)]
        {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        let known = || ["ipa-api-url", "ipa-debug"].map(str::to_owned).into_iter();
        assert_eq!(nearest("ipa-api-uri", known()).as_deref(), Some("ipa-api-url"));
        assert_eq!(nearest("ipa-teleport", known()), None);
    }
}
