//! The places of one image, and which of them is worth asking. Pure.

use super::location::Location;
use crate::error::Error;

/// Whether a location was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// It was tried often enough in this pass.
    Exhausted,
    /// It will not do, however often it is asked.
    Refused,
}

/// All locations of an image, in order of preference, and the one in use.
pub(super) struct Locations {
    all: Vec<(Location, State)>,
    current: usize,
    /// Why earlier ones were given up.
    reasons: Vec<String>,
}

impl Locations {
    pub(super) fn new(all: Vec<Location>) -> Self {
        let all = all.into_iter().map(|location| (location, State::Open)).collect();
        Self { all, current: 0, reasons: Vec::new() }
    }

    pub(super) fn current(&self) -> Option<&Location> {
        self.all.get(self.current).map(|(location, _)| location)
    }

    /// A location without credentials; empty where there is none of that index.
    pub(super) fn name(&self, index: usize) -> String {
        self.all.get(index).map_or(String::new(), |(location, _)| location.name())
    }

    /// Tells locations apart.
    pub(super) fn index(&self) -> usize {
        self.current
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Gives up the one in use, for this pass or for good, and goes on to the next.
    ///
    /// # Errors
    /// None is left.
    pub(super) fn give_up(&mut self, error: Error, for_good: bool) -> Result<(), Error> {
        if let Some((_, state)) = self.all.get_mut(self.current) {
            *state = if for_good { State::Refused } else { State::Exhausted };
        }
        if self.go_on() {
            self.reasons.push(error.report());
            return Ok(());
        }
        match self.reasons.as_slice() {
            [] => Err(error),
            reasons => Err(Error::AllSources {
                count: reasons.len() + 1,
                earlier: reasons.join("; "),
                last: Box::new(error),
            }),
        }
    }

    /// A new pass from the first byte, with the one in use.
    pub(super) fn start_over(&mut self) {
        for (_, state) in &mut self.all {
            if *state == State::Exhausted {
                *state = State::Open;
            }
        }
    }

    /// A new pass from the first byte, with another location where there is one.
    pub(super) fn start_elsewhere(&mut self) {
        self.start_over();
        self.go_on();
    }

    /// Moves to the next open location, in a circle; stays where no other is open.
    fn go_on(&mut self) -> bool {
        let count = self.all.len();
        let open = |index: &usize| matches!(self.all.get(*index), Some((_, State::Open)));
        let next = (1..count).map(|step| (self.current + step) % count).find(open);
        next.is_some_and(|index| {
            self.current = index;
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Locations {
        let parse = |name| Location::parse(&format!("http://{name}/x")).unwrap();
        Locations::new(["a", "b", "c"].map(parse).into())
    }

    fn at(locations: &Locations) -> String {
        locations.current().unwrap().name()
    }

    #[test]
    fn all_are_tried_once_and_every_failure_is_told() {
        let mut locations = three();
        let error = |status| Error::Status { url: format!("http://{status}/"), status };
        locations.give_up(error(501), false).unwrap();
        locations.give_up(error(404), true).unwrap();
        assert_eq!(at(&locations), "http://c/x");
        let report = locations.give_up(error(503), false).unwrap_err().report();
        for status in ["3 sources", "501", "404", "503"] {
            assert!(report.contains(status), "{report}");
        }
    }

    #[test]
    fn a_new_pass_asks_again_but_not_where_it_was_refused() {
        let mut locations = three();
        locations.give_up(Error::Empty, true).unwrap();
        locations.give_up(Error::Empty, false).unwrap();
        locations.start_elsewhere();
        assert_eq!(at(&locations), "http://b/x", "in a circle, past the one that refused");
        locations.start_over();
        assert_eq!(at(&locations), "http://b/x");
        let mut alone = Locations::new(vec![Location::parse("http://a/x").unwrap()]);
        alone.start_elsewhere();
        assert_eq!(at(&alone), "http://a/x");
        assert!(matches!(alone.give_up(Error::Empty, false), Err(Error::Empty)));
    }
}
