//! Many short runs of many cases in turn, and the median of each: what disturbs the machine disturbs all alike.

use std::hint::black_box;
use std::time::Instant;

use crate::allocations::ALLOCATIONS;

/// Something to measure.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// What is wanted of the median.
    pub(crate) goal: Option<Goal>,
    /// One short run, and what it gave.
    pub(crate) run: Box<dyn FnMut() -> f64>,
}

#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

pub(crate) struct Options {
    json: bool,
    only: Vec<String>,
}

impl Options {
    pub(crate) fn from_arguments() -> Self {
        let (flags, only): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
        Self { json: flags.iter().any(|flag| flag == "--json"), only }
    }
}

/// Runs all cases in turn, again and again, and prints their medians.
pub(crate) fn report(cases: Vec<Case>, options: &Options) {
    const ROUNDS: usize = 101;
    let chosen = |case: &Case| options.only.is_empty() || options.only.iter().any(|word| case.name.contains(word));
    let mut cases: Vec<(Case, Vec<f64>)> =
        cases.into_iter().filter(chosen).map(|case| (case, Vec::with_capacity(ROUNDS))).collect();
    // The first round only warms up.
    for round in 0..=ROUNDS {
        for (case, samples) in &mut cases {
            let sample = (case.run)();
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    if !options.json {
        println!("{:<52}{:>10}{:>10}{:>10}  goal", "", "p10", "median", "p90");
    }
    for (case, mut samples) in cases {
        samples.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| samples[samples.len() * percent / 100];
        let (low, median, high) = (at(10), at(50), at(90));
        if options.json {
            let Case { name, unit, .. } = case;
            println!(r#"{{"test":"{name}","unit":"{unit}","p10":{low:.2},"p50":{median:.2},"p90":{high:.2}}}"#);
            continue;
        }
        let goal = match case.goal {
            None => String::new(),
            Some(Goal::AtLeast(goal)) => format!(">= {goal}: {}", if median >= goal { "met" } else { "MISSED" }),
            Some(Goal::AtMost(goal)) => format!("<= {goal}: {}", if median <= goal { "met" } else { "MISSED" }),
        };
        println!("{:<52}{low:>10.2}{median:>10.2}{high:>10.2}  {goal}", format!("{} [{}]", case.name, case.unit));
    }
}

/// Nanoseconds that `body` takes for each of `items`.
pub(crate) fn nanoseconds_each<T>(items: &[T], mut body: impl FnMut(&T)) -> f64 {
    let begun = Instant::now();
    for item in items {
        body(black_box(item));
    }
    begun.elapsed().as_nanos() as f64 / items.len() as f64
}

/// Heap allocations of this thread that `body` makes for each of `items`.
pub(crate) fn allocations_each<T>(items: &[T], mut body: impl FnMut(&T)) -> f64 {
    let before = ALLOCATIONS.get();
    for item in items {
        body(black_box(item));
    }
    (ALLOCATIONS.get() - before) as f64 / items.len() as f64
}

/// Numbers that look random, the same in each run of the program.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ mixed >> 31) * bound as u128) >> 64) as usize
    }
}
