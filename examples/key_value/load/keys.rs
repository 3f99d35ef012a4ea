//! Which keys are used how often.

use clap::ValueEnum;
use rand::{Rng, RngExt};

/// The exponent of Zipf's law, as YCSB has it.
const EXPONENT: f64 = 0.99;

/// How often keys are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// All equally often.
    Uniform,
    /// The n-th 1/n^0.99 times as often as the first.
    Zipf,
}

/// Picks keys, numbers below a count.
pub(crate) struct Keys {
    count: usize,
    /// How probable it is that a key is this one or one before; empty if all are equally.
    up_to: Vec<f64>,
}

impl Keys {
    /// Keys below `count`.
    pub(crate) fn new(distribution: Distribution, count: usize) -> Self {
        let mut up_to = Vec::new();
        if distribution == Distribution::Zipf {
            let mut sum = 0.0;
            up_to.extend((1..=count).map(|rank| {
                sum += (rank as f64).powf(-EXPONENT);
                sum
            }));
            up_to.iter_mut().for_each(|up_to| *up_to /= sum);
        }
        Self { count, up_to }
    }

    /// The next key.
    pub(crate) fn pick(&self, random: &mut impl Rng) -> usize {
        if self.up_to.is_empty() {
            return random.random_range(0..self.count);
        }
        let at: f64 = random.random();
        self.up_to.partition_point(|&up_to| up_to <= at).min(self.count - 1)
    }
}
