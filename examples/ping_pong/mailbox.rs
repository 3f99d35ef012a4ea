//! Memory that the peer writes into, iteration after iteration.

use std::time::{Duration, Instant};

use zcmi::{Access, Buffer, Connection, ExposedBuffer, Grant, RemoteBuffer};

use crate::case::{Case, From};
use crate::common::{Failure, Result, hear, tell};

/// Slots that the iterations use in turn. While one is checked and poisoned, the peer may write the next.
const SLOTS: u64 = 2;
/// Slots begin at multiples of this.
const ALIGNMENT: usize = 64;
/// Looks at the memory before other tasks of this thread have their turn.
const LOOKS_PER_TURN: u32 = 1 << 14;
/// How long nothing comes before the connection is asked whether it is still there.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the rest of a slot may take after its last byte.
const REST_LIMIT: Duration = Duration::from_secs(1);

/// Our memory: slots that the peer writes. The bytes of each are poisoned before it can.
pub(crate) struct Mailbox {
    case: Case,
    writer: From,
    memory: ExposedBuffer,
    grant: Grant,
    found: Vec<u8>,
    expected: Vec<u8>,
}

/// The peer's memory.
pub(crate) struct RemoteMailbox([RemoteBuffer; SLOTS as usize]);

impl Mailbox {
    /// Exposes memory for what `writer`, the peer, writes.
    pub(crate) async fn open(case: &Case, writer: From, connection: &Connection) -> Result<Self> {
        let length = stride(case) * SLOTS as usize;
        let memory = Buffer::allocate(length)?.expose();
        let grant = memory.grant(connection, 0..length, Access::WRITE).await?;
        let mut mailbox =
            Self { case: *case, writer, memory, grant, found: vec![0; case.size()], expected: vec![0; case.size()] };
        (0..SLOTS).for_each(|iteration| mailbox.poison(iteration));
        Ok(mailbox)
    }

    /// Sends the peer the handle.
    pub(crate) async fn announce(&self, connection: &Connection) -> Result<()> {
        tell(connection, &self.grant.remote_buffer()).await
    }

    /// Makes ready for an iteration: what it should bring.
    pub(crate) fn expect(&mut self, iteration: u64) {
        self.case.pattern(self.writer, iteration).fill(&mut self.expected);
    }

    /// Waits until the last byte of the expected iteration is there. The last, because reliable connections place the packets of
    /// a write in order; the bytes of a packet can become visible in any order, which `check` allows for.
    pub(crate) async fn wait(&self, iteration: u64, connection: &Connection) -> Result<()> {
        let last = self.case.size() - 1;
        let (at, expected) = (self.offset(iteration) + last, self.expected[last]);
        let mut begun = None;
        loop {
            for _ in 0..LOOKS_PER_TURN {
                let mut byte = [0];
                self.memory.read_at(at, &mut byte);
                if byte[0] == expected {
                    return Ok(());
                }
            }
            tokio::task::yield_now().await;
            if begun.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                begun = None;
                still_there(connection).await?;
            }
        }
    }

    /// Checks every byte of an iteration that has come, and poisons its slot for a later one.
    pub(crate) fn check(&mut self, iteration: u64) -> Result<()> {
        let mut begun = None;
        loop {
            self.memory.read_at(self.offset(iteration), &mut self.found);
            let Err(wrong) = self.case.check(iteration, &self.found, &self.expected) else { break };
            if begun.get_or_insert_with(Instant::now).elapsed() > REST_LIMIT {
                return Err(wrong.into());
            }
        }
        self.poison(iteration + SLOTS);
        Ok(())
    }

    fn poison(&mut self, iteration: u64) {
        self.case.pattern(self.writer, iteration).poison(&mut self.found);
        self.memory.write_at(self.offset(iteration), &self.found);
    }

    fn offset(&self, iteration: u64) -> usize {
        stride(&self.case) * (iteration % SLOTS) as usize
    }
}

impl RemoteMailbox {
    /// Receives the handle that the peer announces.
    pub(crate) async fn learn(case: &Case, connection: &Connection) -> Result<Self> {
        let handle: RemoteBuffer = hear(connection).await?;
        let slot = |index: u64| {
            let start = stride(case) as u64 * index;
            handle.slice(start..start + case.size)
        };
        Ok(Self([slot(0)?, slot(1)?]))
    }

    /// Where to write in an iteration.
    pub(crate) fn slot(&self, iteration: u64) -> &RemoteBuffer {
        &self.0[(iteration % SLOTS) as usize]
    }
}

fn stride(case: &Case) -> usize {
    case.size().next_multiple_of(ALIGNMENT)
}

/// Fails if the connection has ended: memory alone would never tell. No message is due while writes are awaited.
async fn still_there(connection: &Connection) -> Result<()> {
    tokio::select! {
        biased;
        message = connection.recv() => {
            message?;
            Err(Failure::Other("a message came where a write was due".to_owned()))
        }
        () = std::future::ready(()) => Ok(()),
    }
}
