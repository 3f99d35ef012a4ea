//! RDMA writes into the server's memory.

use zcmi::{Access, Batch, Buffer, Connection, Operation, RemoteBuffer};

use crate::case::Case;
use crate::common::{Progress, Result, hear, tell};
use crate::pace::{Moved, Note, Pace};
use crate::region::{self, Region};
use crate::stamp;
use crate::window::{Job, Window};

/// Writes the buffers, each with its number.
struct Write;

impl Job for Write {
    fn prepare(&self, number: u64, _slot: usize, buffer: &mut [u8]) {
        stamp::stamp(buffer, number);
    }

    fn add(&self, batch: &mut Batch<'_>, buffer: Buffer, remote: &RemoteBuffer) -> Operation {
        batch.write(buffer, remote)
    }

    fn inspect(&self, _number: u64, _slot: usize, _buffer: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// The client: writes.
pub(crate) async fn measure(case: &Case, connection: &Connection, progress: &Progress) -> Result<Moved> {
    let slots = region::learn(case, connection).await?;
    let fill = |slot, bytes: &mut [u8]| case.pattern(slot).fill(bytes);
    let mut window = Window::new(case, connection, progress, slots, Write, fill)?;
    window.run_once().await?;

    let mut pace = Pace::start(case);
    let written = window.run(&mut pace).await?;
    let moved = pace.stop(written);

    tell(connection, &Note::Done(window.posted())).await?;
    hear::<()>(connection).await?;
    Ok(moved)
}

/// The server: when all is written, and the message says so, checks what was written to each slot last.
pub(crate) async fn serve(case: &Case, connection: &Connection, progress: &Progress) -> Result<()> {
    let poison = |slot, bytes: &mut [u8]| stamp::poison(case, slot, 0, bytes);
    let region = Region::expose(case, connection, Access::WRITE, poison).await?;
    let written = region.lend(connection, progress).await?;
    let (mut found, mut expected) = (vec![0; case.size()], vec![0; case.size()]);
    for number in written.saturating_sub(case.depth.into())..written {
        let slot = (number % u64::from(case.depth)) as usize;
        stamp::fill(case, slot, number, &mut expected);
        region.read(slot, &mut found);
        stamp::check(case, number, &found, &expected)?;
        progress.step();
    }
    tell(connection, &()).await
}
