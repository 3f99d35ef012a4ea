//! Registering memory with the connection's device: for the first time, and again. It takes no peer.

use std::time::Instant;

use zcmi::SharedMemory;

use super::Figures;
use crate::bench::failure::{Failure, Result};
use crate::bench::pace::{Amount, Pace};
use crate::bench::samples::Samples;
use crate::bench::session::Session;
use crate::bench::test::Case;

/// Memory that nobody has registered, for each operation.
pub(super) fn miss(session: &Session, case: &Case, pace: Pace) -> Result<Figures> {
    run(session, pace, || memory(case), |before, after, operations| (after.misses - before.misses) == operations)
}

/// The same memory each time.
pub(super) fn hit(session: &Session, case: &Case, pace: Pace) -> Result<Figures> {
    let memory = memory(case);
    session.connection.register(&memory)?;
    run(session, pace, || memory.clone(), |before, after, operations| (after.hits - before.hits) == operations)
}

/// Its pages are there.
fn memory(case: &Case) -> SharedMemory {
    vec![1; case.size].into()
}

fn run(
    session: &Session,
    pace: Pace,
    memory: impl Fn() -> SharedMemory,
    is_right: impl Fn(&zcmi::CacheStatistics, &zcmi::CacheStatistics, u64) -> bool,
) -> Result<Figures> {
    let each = |amount: Amount, samples: &mut Samples| -> Result<u64> {
        let mut run = amount.begin();
        loop {
            let memory = memory();
            let begun = Instant::now();
            session.connection.register(&memory)?;
            let ended = Instant::now();
            samples.record(ended - begun);
            if !run.goes_on_at(ended) {
                return Ok(run.done());
            }
        }
    };
    each(pace.warm_up, &mut Samples::new(false))?;
    let before = session.connection.cache_statistics();
    let mut samples = Samples::new(false);
    let operations = each(pace.measured, &mut samples)?;
    let after = session.connection.cache_statistics();
    if !is_right(&before, &after, operations) {
        let text = format!(
            "of {operations} registrations the cache found {} and registered {}: it is off, or too small",
            after.hits - before.hits,
            after.misses - before.misses
        );
        return Err(Failure::new(text));
    }
    Ok(Figures::of_latency(&samples, operations))
}
