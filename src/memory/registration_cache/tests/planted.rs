//! Bugs planted on purpose are found by the model.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::super::mutation::Mutation;
use super::model::{World, steps};

/// What the model says of the first of 2,000 random sequences that shows the bug.
fn finding(mutation: Mutation) -> String {
    let mut runner = TestRunner::deterministic();
    let found = (0..2000).find_map(|_| {
        let steps = steps().new_tree(&mut runner).expect("steps").current();
        mutation.during(|| World::run(&steps)).err()
    });
    found.unwrap_or_else(|| panic!("{mutation:?} was not found"))
}

#[test]
fn an_entry_that_does_not_own_its_memory_is_found() {
    let finding = finding(Mutation::TokenNotHeld);
    assert!(finding.contains("stale bytes"), "{finding}");
}

#[test]
fn eviction_of_what_is_in_use_is_found() {
    let finding = finding(Mutation::PinNotChecked);
    assert!(finding.contains("is not registered"), "{finding}");
}

#[test]
fn a_hit_of_another_access_is_found() {
    let finding = finding(Mutation::AccessNotChecked);
    assert!(finding.contains("instead of"), "{finding}");
}

#[test]
fn a_registration_that_is_left_behind_is_found() {
    let finding = finding(Mutation::NotDeregistered);
    assert!(finding.contains("live") || finding.contains("left") || finding.contains("limits"), "{finding}");
}
