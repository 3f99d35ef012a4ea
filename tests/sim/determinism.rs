//! A seed is one history.

use std::collections::BTreeSet;

use crate::mix::{self, Plan};

/// The same seed gives the same history, alone, after others, beside others; another seed gives another.
pub(crate) fn the_same_seed_is_the_same_history() -> Result<String, String> {
    // Some with long messages.
    const SEEDS: u64 = 16;
    let hash = |seed| mix::run(Plan::of_seed(seed)).hash;
    let alone: Vec<u64> = (0..SEEDS).map(hash).collect();
    let backwards: Vec<u64> = (0..SEEDS).rev().map(hash).collect();
    let beside = std::thread::scope(|scope| {
        let threads = [0, 1].map(|_| scope.spawn(|| (0..SEEDS).map(hash).collect::<Vec<u64>>()));
        threads.map(|thread| thread.join().expect("no panic"))
    });
    for seed in 0..SEEDS as usize {
        let all = [alone[seed], backwards[SEEDS as usize - 1 - seed], beside[0][seed], beside[1][seed]];
        if all.iter().any(|other| *other != all[0]) {
            return Err(format!("seed {seed} has the histories {all:x?}"));
        }
    }
    let different: BTreeSet<_> = alone.iter().collect();
    if different.len() != alone.len() {
        return Err("two seeds have one history".to_owned());
    }
    Ok(format!("  {SEEDS} seeds, four times each"))
}
