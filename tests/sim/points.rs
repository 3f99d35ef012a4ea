//! Each fault once, at each point of one short history where it can happen.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use zcmi::internals::simulation::{Fault, Faults};

use crate::mix::{self, Plan};

/// The history.
const SEED: u64 = 3;

/// Tries up to about `most` points of each fault, spread over all there are.
pub(crate) fn each_fault_at_each_point(most: u64) -> Result<String, String> {
    let faults = mix::faults();
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    reports.lock().expect("no panic").insert(*fault, at_each_point(*fault, most.max(1)));
                }
            });
        }
    });
    let reports: Result<Vec<_>, _> = reports.into_inner().expect("no panic").into_values().collect();
    reports.map(|reports| format!("  {}", reports.join(", ")))
}

fn at_each_point(fault: Fault, most: u64) -> Result<String, String> {
    let run = |point| {
        let faults = Faults::none().at(fault, point);
        mix::run(Plan { faults, is_faulty: true, ..Plan::of_seed(SEED) })
    };
    // At a point that never comes: how many there are.
    let points = run(u64::MAX).statistics.opportunities.get(&fault).copied().unwrap_or(0);
    let stride = points.div_ceil(most).max(1);
    let mut hits = 0;
    for point in (1..=points).step_by(stride as usize) {
        let run = run(point);
        if let Err(ended) = run.result {
            return Err(format!("  {fault:?} at point {point} of seed {SEED}: {}", ended.why));
        }
        hits += run.statistics.faults.get(&fault).copied().unwrap_or(0);
    }
    if hits == 0 {
        return Err(format!("  {fault:?} never happens"));
    }
    Ok(format!("{fault:?} {hits} of {points}"))
}
