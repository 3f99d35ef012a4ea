//! Pages that both ends of a connection share: what of ours the peer can access, and what of the peer's we can. In pages that are
//! handed over a message costs the same whatever its length; in pages that are granted the holder's own processor reads and writes.
//!
//! A *segment* is a file that its owner gives to the peer once, and calls by number from then on.

mod borrowed;
mod direct;
mod handing;
mod lent;
mod numbers;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::borrowed::Borrowed;
use self::lent::Lent;
use super::arrived::Arrived;
use super::link::Link;
use crate::Buffer;
use crate::memory::foreign::Returns;
use crate::protocol::{Handed, Record, SegmentPlace, returned_tokens};
use crate::transport::Courier;

/// The state of sharing on one connection.
pub(super) struct Pages {
    pub(super) lent: Lent,
    pub(super) borrowed: Borrowed,
    /// One-sided operations that the peer serves and that have not ended.
    pub(super) served: usize,
}

/// A message that has come in pages.
struct Message {
    channel: u32,
    buffer: Buffer,
}

impl Link {
    /// A record that is about pages has come; an error says how the peer violates the protocol.
    pub(super) fn handle_pages(&mut self, record: Record<'_>, arrived: &mut Arrived) -> Result<(), &'static str> {
        self.is_in_use = true;
        let pages = self.pages.as_mut().ok_or("pages on a connection that shares none")?;
        let Some(message) = pages.handle(record, &mut arrived.unwanted)? else { return Ok(()) };
        let index = self.channel_index(message.channel)?;
        self.count_received(message.buffer.len() as u64);
        arrived.unwanted.extend(self.conversations[index].handed(message.buffer)?);
        self.arrived_on(index, arrived);
        Ok(())
    }
}

impl Pages {
    pub(super) fn new(courier: Arc<dyn Courier>, returns: Arc<Returns>) -> Self {
        Self { lent: Lent::new(Arc::clone(&courier)), borrowed: Borrowed::new(courier, returns), served: 0 }
    }

    /// What a record says is done; answers the message that it is, if it is one. What is to be dropped goes into `garbage`.
    fn handle(&mut self, record: Record<'_>, garbage: &mut Vec<Buffer>) -> Result<Option<Message>, &'static str> {
        match record {
            Record::Segment { place } => self.borrowed.introduced(SegmentPlace::parse(*place)).map(|()| None),
            Record::Forget { segment } => self.borrowed.forget(segment).map(|()| None),
            Record::Hand { channel, back: false, place } => {
                let buffer = self.borrowed.arrived(Handed::parse(*place))?;
                Ok(Some(Message { channel, buffer }))
            }
            Record::Hand { channel, back: true, place } => {
                let buffer = self.lent.came_back(Handed::parse(*place))?;
                Ok(Some(Message { channel, buffer }))
            }
            Record::Returned { tokens } => {
                for token in returned_tokens(tokens) {
                    garbage.push(self.lent.returned(token)?);
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}
