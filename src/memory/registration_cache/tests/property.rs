//! Random sequences of steps. `PROPTEST_CASES` above 1000 makes them more.

use proptest::prelude::*;

use super::model::{World, steps};

proptest! {
    // About sixty steps each: some sixty thousand.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1000), ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_steps_breaks_a_promise(steps in steps()) {
        if let Err(wrong) = World::run(&steps) {
            return Err(TestCaseError::fail(wrong));
        }
    }
}
