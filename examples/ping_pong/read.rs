//! RDMA reads: the client reads the server's memory, while the server does nothing.

use std::time::Instant;

use zcmi::{Access, Buffer, Connection, RemoteBuffer};

use crate::case::{Case, From};
use crate::common::{Progress, Result, hear, tell};
use crate::samples::Samples;

/// Bytes that the server fills at a time, if that is at least one iteration's.
const RING: usize = 1 << 20;
/// Iterations that it fills at a time at most.
const MOST_SLOTS: usize = 256;
/// Slots begin at multiples of this.
const ALIGNMENT: usize = 64;

/// The iterations between two fillings of the server's memory, each with a slot of its own.
struct Laps {
    slots: usize,
    stride: usize,
    all: u64,
}

/// The client: reads and checks.
pub(crate) async fn measure(case: &Case, connection: &Connection, progress: &Progress) -> Result<Samples> {
    let laps = Laps::of(case);
    let mut samples = Samples::of_operations(case.iterations);
    let mut buffer = Buffer::allocate(case.size())?;
    let mut expected = vec![0; case.size()];
    let handle: RemoteBuffer = hear(connection).await?;
    for lap in laps.starts() {
        // The server's memory has what this lap reads.
        hear::<()>(connection).await?;
        for iteration in laps.iterations(lap) {
            case.pattern(From::Server, iteration).fill(&mut expected);
            case.pattern(From::Server, iteration).poison(&mut buffer);
            let start = laps.offset(iteration) as u64;
            let source = handle.slice(start..start + case.size)?;

            let begun = Instant::now();
            buffer = connection.read(buffer, &source).await?;
            let time = begun.elapsed();

            case.check(iteration, &buffer, &expected)?;
            if case.is_measured(iteration) {
                samples.add(time);
            }
            progress.step();
        }
        tell(connection, &()).await?;
    }
    Ok(samples)
}

/// The server: fills its memory for each lap.
pub(crate) async fn serve(case: &Case, connection: &Connection, progress: &Progress) -> Result<()> {
    let laps = Laps::of(case);
    let length = laps.slots * laps.stride;
    let memory = Buffer::allocate(length)?.expose();
    let grant = memory.grant(connection, 0..length, Access::READ).await?;
    let mut scratch = vec![0; case.size()];
    tell(connection, &grant.remote_buffer()).await?;
    for lap in laps.starts() {
        for iteration in laps.iterations(lap) {
            case.pattern(From::Server, iteration).fill(&mut scratch);
            memory.write_at(laps.offset(iteration), &scratch);
        }
        tell(connection, &()).await?;
        hear::<()>(connection).await?;
        progress.step();
    }
    Ok(())
}

impl Laps {
    fn of(case: &Case) -> Self {
        let stride = case.size().next_multiple_of(ALIGNMENT);
        Self { slots: (RING / stride).clamp(1, MOST_SLOTS), stride, all: case.all() }
    }

    /// The first iteration of each lap.
    fn starts(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.all).step_by(self.slots)
    }

    /// The iterations of the lap that starts with `first`.
    fn iterations(&self, first: u64) -> std::ops::Range<u64> {
        first..self.all.min(first + self.slots as u64)
    }

    fn offset(&self, iteration: u64) -> usize {
        (iteration % self.slots as u64) as usize * self.stride
    }
}
