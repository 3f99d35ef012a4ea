//! Atomic operations on a word that the other end has granted. Each must find what the one before it has left.

use std::collections::VecDeque;
use std::time::Instant;

use zcmi::{AtomicOperation, RemoteValue};

use super::Figures;
use crate::bench::failure::{Failure, Result};
use crate::bench::pace::{Amount, Pace};
use crate::bench::samples::Samples;
use crate::bench::session::Session;
use crate::bench::test::{Case, Measure, Test};

pub(super) async fn run(session: &Session, case: &Case, pace: Pace) -> Result<Figures> {
    let remote = session.granted(size_of::<u64>()).await?;
    let word = remote.at::<u64>(0)?;
    let mut counter = Counter { session, word, is_swap: case.test == Test::CompareSwap, posted: 0, ended: 0 };
    session.attend(size_of::<u64>()).await?;
    let figures = match case.measure {
        Measure::Latency => {
            counter.one_by_one(pace.warm_up, &mut Samples::new(false)).await?;
            let mut samples = Samples::new(false);
            let operations = counter.one_by_one(pace.measured, &mut samples).await?;
            Figures::of_latency(&samples, operations)
        }
        Measure::Rate => {
            counter.many(pace.warm_up, case.depth).await?;
            counter.many(pace.measured, case.depth).await?
        }
    };
    let count = session.count().await?;
    if count != counter.posted {
        return Err(Failure::new(format!("the peer's word is {count} after {} operations", counter.posted)));
    }
    Ok(figures)
}

/// A word that each operation makes one more.
struct Counter<'a> {
    session: &'a Session,
    word: RemoteValue<u64>,
    is_swap: bool,
    posted: u64,
    ended: u64,
}

impl Counter<'_> {
    fn start(&mut self) -> AtomicOperation {
        let before = self.posted;
        self.posted += 1;
        let connection = &self.session.connection;
        if self.is_swap {
            connection.compare_swap(&self.word, before, self.posted)
        } else {
            connection.fetch_add(&self.word, 1)
        }
    }

    /// Takes what an operation found.
    fn end(&mut self, found: u64) -> Result<()> {
        if found != self.ended {
            return Err(Failure::new(format!("operation {} found {found} in the peer's word", self.ended)));
        }
        self.ended += 1;
        Ok(())
    }

    async fn one_by_one(&mut self, amount: Amount, samples: &mut Samples) -> Result<u64> {
        let mut run = amount.begin();
        loop {
            let begun = Instant::now();
            let found = self.start().await?;
            let ended = Instant::now();
            samples.record(ended - begun);
            self.end(found)?;
            if !run.goes_on_at(ended) {
                return Ok(run.done());
            }
        }
    }

    async fn many(&mut self, amount: Amount, depth: usize) -> Result<Figures> {
        let mut in_flight = VecDeque::with_capacity(depth);
        let mut run = amount.begin();
        loop {
            if in_flight.len() == depth {
                self.oldest(&mut in_flight).await?;
            }
            in_flight.push_back(self.start());
            if !run.goes_on() {
                break;
            }
        }
        while !in_flight.is_empty() {
            self.oldest(&mut in_flight).await?;
        }
        Ok(Figures::of_rate(run.done(), run.elapsed()))
    }

    async fn oldest(&mut self, in_flight: &mut VecDeque<AtomicOperation>) -> Result<()> {
        let Some(operation) = in_flight.pop_front() else { return Ok(()) };
        let found = operation.await?;
        self.end(found)
    }
}
