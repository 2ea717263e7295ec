//! Merging the steps of several managers into one list: a pure function.
//!
//! Where several managers offer a step of the same name, one offer stays: highest support, then highest priority, then the
//! manager's name in alphabetical order. Source: ironic-python-agent `hardware.py`, `deduplicate_steps`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use wire::{Step, StepMap};

use crate::Support;

/// What one manager offers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The manager's class-like name.
    pub manager: String,
    /// How well it knows the hardware.
    pub support: Support,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// One list without duplicates. A manager none of whose offers stays has no key.
pub fn merge(offers: Vec<Offer>) -> StepMap {
    let mut merged = StepMap::new();
    let mut best: BTreeMap<String, (Reverse<Support>, Reverse<u32>, String)> = BTreeMap::new();
    for offer in &offers {
        for step in &offer.steps {
            let rank = (Reverse(offer.support), Reverse(step.priority), offer.manager.clone());
            let held = best.entry(step.step.clone()).or_insert_with(|| rank.clone());
            if rank < *held {
                *held = rank;
            }
        }
    }
    for offer in offers {
        for step in offer.steps {
            let wins = best.get(&step.step).is_some_and(|(support, priority, manager)| {
                (support.0, priority.0, manager) == (offer.support, step.priority, &offer.manager)
            });
            if wins {
                best.remove(&step.step); // the same manager offering it twice counts once
                merged.entry(offer.manager.clone()).or_default().push(step);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(name: &str, priority: u32) -> Step {
        Step {
            step: name.into(),
            priority,
            interface: "deploy".into(),
            reboot_requested: false,
            abortable: None,
            argsinfo: None,
        }
    }

    fn offer(manager: &str, support: u32, steps: Vec<Step>) -> Offer {
        Offer { manager: manager.into(), support: Support(support), steps }
    }

    #[test]
    fn support_beats_priority_beats_name() {
        let merged = merge(vec![
            offer("B", 1, vec![step("x", 90), step("y", 5), step("z", 1)]),
            offer("A", 1, vec![step("y", 5), step("z", 2)]),
            offer("C", 2, vec![step("x", 10)]),
        ]);
        let names = |m: &str| merged[m].iter().map(|s| s.step.as_str()).collect::<Vec<_>>();
        assert_eq!((names("A"), names("C")), (vec!["y", "z"], vec!["x"]));
        assert!(!merged.contains_key("B"), "what loses everything is not named");
    }

    #[test]
    fn the_winner_is_taken_whole() {
        let mut vendor = step("x", 5);
        vendor.reboot_requested = true;
        let mut generic = step("x", 90);
        generic.abortable = Some(true);
        let merged = merge(vec![offer("A", 1, vec![generic]), offer("B", 3, vec![vendor.clone()])]);
        assert_eq!(merged, StepMap::from([("B".to_owned(), vec![vendor])]));
    }

    proptest! {
        #[test]
        fn every_step_survives_exactly_once_whatever_the_order(
            offers in prop::collection::vec((0u32..4, prop::collection::vec((0u8..6, 0u32..3), 0..6)), 1..5),
            rotate in 0usize..5,
        ) {
            let mut offers: Vec<_> = offers
                .into_iter()
                .enumerate()
                .map(|(i, (support, steps))| {
                    let steps = steps.into_iter().map(|(n, p)| step(&format!("s{n}"), p)).collect();
                    offer(&format!("m{i}"), support, steps)
                })
                .collect();
            let mut wanted: Vec<_> = offers.iter().flat_map(|o| o.steps.iter().map(|s| s.step.clone())).collect();
            wanted.sort();
            wanted.dedup();
            let merged = merge(offers.clone());
            let mut kept: Vec<_> = merged.values().flatten().map(|s| s.step.clone()).collect();
            kept.sort();
            prop_assert_eq!(kept, wanted);
            let turn = rotate % offers.len();
            offers.rotate_left(turn);
            prop_assert_eq!(merge(offers), merged);
        }
    }
}
