//! Reads and writes of memory that the other end has granted.

use std::collections::VecDeque;
use std::time::Instant;

use zcmi::{Buffer, Connection, Operation, RemoteBuffer};

use super::Figures;
use crate::bench::failure::{Failure, Result};
use crate::bench::pace::{Amount, Pace};
use crate::bench::samples::Samples;
use crate::bench::session::Session;
use crate::bench::test::{Case, Measure, Test};
use crate::bench::wire::{Command, fill, is_filled};

pub(super) async fn run(session: &Session, case: &Case, pace: Pace) -> Result<Figures> {
    let remote = session.granted(case.size).await?;
    let count = if case.measure == Measure::Latency { 1 } else { case.depth };
    let buffers = (0..count).map(|_| Ok(session.connection.allocate(case.size)?)).collect::<Result<VecDeque<_>>>()?;
    let mut target = Target { session, remote, is_write: case.test == Test::Write, buffers };
    target.try_once(1).await?;
    session.attend(case.size).await?;
    let figures = match case.measure {
        Measure::Latency => {
            target.one_by_one(pace.warm_up, &mut Samples::new(false)).await?;
            let mut samples = Samples::new(false);
            let operations = target.one_by_one(pace.measured, &mut samples).await?;
            Figures::of_latency(&samples, operations)
        }
        Measure::Rate => {
            target.many(pace.warm_up).await?;
            target.many(pace.measured).await?
        }
    };
    target.try_once(2).await?;
    Ok(figures)
}

struct Target<'a> {
    session: &'a Session,
    remote: RemoteBuffer,
    is_write: bool,
    /// Those that are not in flight.
    buffers: VecDeque<Buffer>,
}

impl Target<'_> {
    /// Moves the pattern of `seed` with each buffer, and compares.
    async fn try_once(&mut self, seed: u64) -> Result<()> {
        for number in 0..self.buffers.len() as u64 {
            // No other operation has made these.
            let (seed, other) = (seed << 32 | number, 3 << 32 | number);
            let mut buffer = self.take()?;
            self.session.done(&Command::Fill { seed: if self.is_write { other } else { seed } }).await?;
            fill(&mut buffer, if self.is_write { seed } else { other });
            let buffer = self.start(buffer).await?;
            self.session.check(seed).await?;
            if !is_filled(&buffer, seed) {
                return Err(Failure::new("what was read is not what the peer's memory has"));
            }
            self.buffers.push_back(buffer);
        }
        Ok(())
    }

    async fn one_by_one(&mut self, amount: Amount, samples: &mut Samples) -> Result<u64> {
        let mut buffer = self.take()?;
        let mut run = amount.begin();
        loop {
            let begun = Instant::now();
            buffer = self.start(buffer).await?;
            let ended = Instant::now();
            samples.record(ended - begun);
            if !run.goes_on_at(ended) {
                break;
            }
        }
        self.buffers.push_back(buffer);
        Ok(run.done())
    }

    async fn many(&mut self, amount: Amount) -> Result<Figures> {
        let mut in_flight = VecDeque::with_capacity(self.buffers.len());
        let mut run = amount.begin();
        loop {
            let buffer = match self.buffers.pop_front() {
                Some(buffer) => buffer,
                None => oldest(&mut in_flight).await?,
            };
            in_flight.push_back(self.start(buffer));
            if !run.goes_on() {
                break;
            }
        }
        while !in_flight.is_empty() {
            self.buffers.push_back(oldest(&mut in_flight).await?);
        }
        Ok(Figures::of_rate(run.done(), run.elapsed()))
    }

    fn start(&self, buffer: Buffer) -> Operation {
        let connection: &Connection = &self.session.connection;
        if self.is_write { connection.write(buffer, &self.remote) } else { connection.read(buffer, &self.remote) }
    }

    fn take(&mut self) -> Result<Buffer> {
        self.buffers.pop_front().ok_or_else(|| Failure::new("there is no buffer"))
    }
}

/// The end of the operation that was posted first: they end in this order.
async fn oldest(in_flight: &mut VecDeque<Operation>) -> Result<Buffer> {
    match in_flight.pop_front() {
        Some(operation) => Ok(operation.await?),
        None => Err(Failure::new("nothing is in flight")),
    }
}
