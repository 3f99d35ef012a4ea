//! RDMA reads of the server's memory.

use zcmi::{Access, Batch, Buffer, Connection, Operation, RemoteBuffer};

use crate::case::Case;
use crate::common::{Progress, Result, hear, tell};
use crate::pace::{Moved, Note, Pace};
use crate::region::{self, Region};
use crate::stamp;
use crate::window::{Job, Window};

/// Bytes at each end of a buffer that are looked at after every read.
const EDGE: usize = 8;

/// Reads the slots, and looks at the edges.
struct Read<'a> {
    case: &'a Case,
    /// The first and last bytes of each slot.
    edges: Vec<[Vec<u8>; 2]>,
}

impl<'a> Read<'a> {
    fn new(case: &'a Case) -> Self {
        let mut bytes = vec![0; case.size()];
        let edges = (0..case.depth()).map(|slot| {
            stamp::fill(case, slot, slot as u64, &mut bytes);
            let (first, last) = edges(&bytes);
            [first.to_vec(), last.to_vec()]
        });
        Self { case, edges: edges.collect() }
    }
}

impl Job for Read<'_> {
    fn prepare(&self, _number: u64, slot: usize, buffer: &mut [u8]) {
        let length = buffer.len();
        let edge = length.min(EDGE);
        let [first, last] = &self.edges[slot];
        buffer[..edge].iter_mut().zip(first).for_each(|(byte, expected)| *byte = !expected);
        buffer[length - edge..].iter_mut().zip(last).for_each(|(byte, expected)| *byte = !expected);
    }

    fn add(&self, batch: &mut Batch<'_>, buffer: Buffer, remote: &RemoteBuffer) -> Operation {
        batch.read(buffer, remote)
    }

    fn inspect(&self, number: u64, slot: usize, buffer: &[u8]) -> Result<()> {
        let (first, last) = edges(buffer);
        let [expected_first, expected_last] = &self.edges[slot];
        stamp::check(self.case, number, first, expected_first)?;
        Ok(stamp::check(self.case, number, last, expected_last)?)
    }
}

/// The client: reads; at the end it reads all slots once more over poisoned buffers and checks every byte.
pub(crate) async fn measure(case: &Case, connection: &Connection, progress: &Progress) -> Result<Moved> {
    let slots = region::learn(case, connection).await?;
    let mut window = Window::new(case, connection, progress, slots, Read::new(case), |_, _| ())?;
    window.run_once().await?;

    let mut pace = Pace::start(case);
    let read = window.run(&mut pace).await?;
    let moved = pace.stop(read);

    // The buffers stand in the order of the numbers that come next.
    let first = window.posted();
    let slots: Vec<usize> = (0..u64::from(case.depth)).map(|index| window.slot(first + index)).collect();
    for (buffer, &slot) in window.buffers().iter_mut().zip(&slots) {
        stamp::poison(case, slot, slot as u64, buffer);
    }
    window.run_once().await?;
    let mut expected = vec![0; case.size()];
    for (buffer, &slot) in window.buffers().iter().zip(&slots) {
        stamp::fill(case, slot, slot as u64, &mut expected);
        stamp::check(case, first + slot as u64, buffer, &expected)?;
        progress.step();
    }
    tell(connection, &Note::Done(window.posted())).await?;
    hear::<()>(connection).await?;
    Ok(moved)
}

/// The server: fills its memory and leaves it alone.
pub(crate) async fn serve(case: &Case, connection: &Connection, progress: &Progress) -> Result<()> {
    let fill = |slot, bytes: &mut [u8]| stamp::fill(case, slot, slot as u64, bytes);
    let region = Region::expose(case, connection, Access::READ, fill).await?;
    region.lend(connection, progress).await?;
    tell(connection, &()).await
}

fn edges(bytes: &[u8]) -> (&[u8], &[u8]) {
    let edge = bytes.len().min(EDGE);
    (&bytes[..edge], &bytes[bytes.len() - edge..])
}
