//! What went wrong while collecting, as the text that travels in the body. Source: agent protocol page, 6.2.

/// The failures so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures(Vec<String>);

impl Failures {
    /// Adds one, and logs it.
    pub(super) fn add(&mut self, failure: impl Into<String>) {
        let failure = failure.into();
        tracing::error!("{failure}");
        self.0.push(failure);
    }

    /// The text; `None` when nothing went wrong. A conductor fails the inspection of the node with it.
    pub(super) fn text(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let items = self.0.iter().map(|item| format!("\n* {item}"));
        Some(format!("The following errors were encountered:{}", items.collect::<String>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_a_headline_and_an_item_a_line() {
        let mut failures = Failures::default();
        assert_eq!(failures.text(), None);
        failures.add("one");
        failures.add(String::from("two"));
        assert_eq!(failures.text().unwrap(), "The following errors were encountered:\n* one\n* two");
    }
}
