//! Reads and writes that are posted together.

use std::rc::Rc;

use crate::world::random;
use zcmi::{Access, Buffer};

use super::memory::{failed, put_back, take_handle};
use super::{Operation, Running};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "batches", weight: 4, run };

fn run<'a>(actor: &'a Rc<Actor>, _lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        let Some(handle) = take_handle(actor, Access::READ_WRITE) else { return };
        let piece = handle.model.len() / 8;
        let begun = actor.session.ledger.begin(OPERATION.name);
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        let mut batch = actor.connection.batch();
        for place in 0..2 + random(6) as usize {
            let range = place * piece..(place + 1) * piece;
            let remote = handle.remote.slice(range.start as u64..range.end as u64).expect("inside");
            let Ok(mut buffer) = Buffer::allocate(piece) else { break };
            buffer.fill(random(256) as u8);
            if random(2) == 0 {
                handle.model.forget(range.clone());
                writes.push((range, buffer.to_vec(), batch.write(buffer, &remote)));
            } else {
                reads.push((range, batch.read(buffer, &remote)));
            }
        }
        batch.post();
        for (range, bytes, write) in writes {
            match write.await {
                Ok(_) => handle.model.set(range.start, &bytes),
                Err(error) => failed(actor, "write of a batch", &handle.model, &error),
            }
        }
        for (range, read) in reads {
            match read.await {
                Ok(buffer) => handle.model.check("read of a batch", range.start, &buffer),
                Err(error) => failed(actor, "read of a batch", &handle.model, &error),
            }
        }
        begun.end();
        put_back(actor, handle);
    })
}
