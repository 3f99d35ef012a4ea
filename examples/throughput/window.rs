//! A window of one-sided operations in flight.

use std::collections::VecDeque;

use zcmi::{Batch, Buffer, Connection, Operation, RemoteBuffer};

use crate::case::Case;
use crate::common::{Progress, Result};
use crate::pace::Pace;

/// What is done with each buffer.
pub(crate) trait Job {
    /// Prepares the buffer of operation `number`, just before it is posted.
    fn prepare(&self, number: u64, slot: usize, buffer: &mut [u8]);
    /// Adds the operation to a batch.
    fn add(&self, batch: &mut Batch<'_>, buffer: Buffer, remote: &RemoteBuffer) -> Operation;
    /// Looks at the buffer of operation `number`, which is complete.
    fn inspect(&self, number: u64, slot: usize, buffer: &[u8]) -> Result<()>;
}

/// One buffer for each slot. Operations complete in order, so buffer and slot stay together. All room is allocated
/// before the first operation.
pub(crate) struct Window<'a, J> {
    case: &'a Case,
    connection: &'a Connection,
    progress: &'a Progress,
    job: J,
    slots: Vec<RemoteBuffer>,
    ready: VecDeque<Buffer>,
    in_flight: VecDeque<Operation>,
    posted: u64,
    completed: u64,
}

impl<'a, J: Job> Window<'a, J> {
    /// A window of buffers that `fill` prepares once for their slots.
    pub(crate) fn new(
        case: &'a Case,
        connection: &'a Connection,
        progress: &'a Progress,
        slots: Vec<RemoteBuffer>,
        job: J,
        fill: impl Fn(usize, &mut [u8]),
    ) -> Result<Self> {
        let mut ready = VecDeque::with_capacity(case.depth());
        for slot in 0..case.depth() {
            let mut buffer = Buffer::allocate(case.size())?;
            fill(slot, &mut buffer);
            ready.push_back(buffer);
        }
        let in_flight = VecDeque::with_capacity(case.depth());
        Ok(Self { case, connection, progress, job, slots, ready, in_flight, posted: 0, completed: 0 })
    }

    /// Carries operations out, one for each slot, and waits for them.
    pub(crate) async fn run_once(&mut self) -> Result<()> {
        self.post(self.case.depth());
        self.drain().await
    }

    /// Carries operations out until the case's limit is reached, and waits for them.
    pub(crate) async fn run(&mut self, pace: &mut Pace<'_>) -> Result<u64> {
        let first = self.posted;
        let batch = self.case.batch as usize;
        loop {
            while self.ready.len() < batch {
                self.complete().await?;
            }
            let allowed = pace.allows(self.posted - first, batch as u64, self.connection).await?;
            if allowed == 0 {
                break;
            }
            self.post(allowed as usize);
        }
        self.drain().await?;
        Ok(self.posted - first)
    }

    /// Operations so far.
    pub(crate) fn posted(&self) -> u64 {
        self.posted
    }

    /// The buffers in the order of their next operations. Nothing is in flight.
    pub(crate) fn buffers(&mut self) -> &mut VecDeque<Buffer> {
        &mut self.ready
    }

    /// The slot of operation `number`.
    pub(crate) fn slot(&self, number: u64) -> usize {
        (number % self.slots.len() as u64) as usize
    }

    fn post(&mut self, count: usize) {
        let mut batch = self.connection.batch();
        for mut buffer in self.ready.drain(..count) {
            let slot = (self.posted % self.slots.len() as u64) as usize;
            self.job.prepare(self.posted, slot, &mut buffer);
            self.in_flight.push_back(self.job.add(&mut batch, buffer, &self.slots[slot]));
            self.posted += 1;
        }
        batch.post();
    }

    async fn complete(&mut self) -> Result<()> {
        if let Some(operation) = self.in_flight.pop_front() {
            let buffer = operation.await?;
            self.job.inspect(self.completed, self.slot(self.completed), &buffer)?;
            self.ready.push_back(buffer);
            self.completed += 1;
            self.progress.step();
        }
        Ok(())
    }

    async fn drain(&mut self) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.complete().await?;
        }
        Ok(())
    }
}
