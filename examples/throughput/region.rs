//! The server's memory: one slot for each operation of the window.

use zcmi::{Access, Buffer, Connection, ExposedBuffer, Grant, RemoteBuffer};

use crate::case::Case;
use crate::common::{Progress, Result, hear, tell};
use crate::pace::Note;

/// Slots begin at multiples of this.
const ALIGNMENT: usize = 64;

/// The exposed memory.
pub(crate) struct Region {
    memory: ExposedBuffer,
    grant: Grant,
    stride: usize,
}

impl Region {
    /// Exposes a slot for each operation of the window; `prepare` fills it.
    pub(crate) async fn expose(
        case: &Case,
        connection: &Connection,
        access: Access,
        prepare: impl Fn(usize, &mut [u8]),
    ) -> Result<Self> {
        let stride = stride(case);
        let length = stride * case.depth();
        let memory = Buffer::allocate(length)?.expose();
        let mut bytes = vec![0; case.size()];
        for slot in 0..case.depth() {
            prepare(slot, &mut bytes);
            memory.write_at(slot * stride, &bytes);
        }
        let grant = memory.grant(connection, 0..length, access).await?;
        Ok(Self { memory, grant, stride })
    }

    /// Sends the client the handle, and waits until it is done; answers with how many operations.
    pub(crate) async fn lend(&self, connection: &Connection, progress: &Progress) -> Result<u64> {
        tell(connection, &self.grant.remote_buffer()).await?;
        loop {
            match hear(connection).await? {
                Note::AtWork => progress.step(),
                Note::Done(operations) => return Ok(operations),
            }
        }
    }

    /// Copies a slot.
    pub(crate) fn read(&self, slot: usize, bytes: &mut [u8]) {
        self.memory.read_at(slot * self.stride, bytes);
    }
}

/// Receives the handles of the slots.
pub(crate) async fn learn(case: &Case, connection: &Connection) -> Result<Vec<RemoteBuffer>> {
    let handle: RemoteBuffer = hear(connection).await?;
    let stride = stride(case) as u64;
    let slots = (0..u64::from(case.depth)).map(|slot| handle.slice(slot * stride..slot * stride + case.size));
    Ok(slots.collect::<zcmi::Result<_>>()?)
}

fn stride(case: &Case) -> usize {
    case.size().next_multiple_of(ALIGNMENT)
}
