//! Bugs that are put in are found: what the mix checks is worth something.

use zcmi::internals::simulation::{Faults, Planted};

use crate::mix::{self, Plan};

/// Seeds within which each must be found.
const SEEDS: u64 = 60;

pub(crate) fn planted_bugs_are_found() -> Result<String, String> {
    let mut report = Vec::new();
    for planted in [Planted::DoubleCompletion, Planted::LostCredit, Planted::ReusedBuffer] {
        let run = |seed| {
            let plan = Plan { planted: Some(planted), faults: Faults::none(), is_faulty: false, ..Plan::of_seed(seed) };
            mix::run(plan).result.err()
        };
        let found = (0..SEEDS).find_map(|seed| Some((seed, run(seed)?)));
        let Some((seed, ended)) = found else {
            return Err(format!("{planted:?} is not found within {SEEDS} seeds"));
        };
        report.push(format!("  {planted:?} by seed {seed}: {}", ended.why.lines().next().unwrap_or_default()));
    }
    Ok(report.join("\n"))
}
