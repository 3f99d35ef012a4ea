//! Writes that nobody waits for, and a flush that does.

use std::rc::Rc;

use crate::world::random;
use zcmi::{Access, Buffer};

use super::memory::{failed, put_back, take_handle};
use super::{Operation, Running};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "flushed writes", weight: 4, run };

fn run<'a>(actor: &'a Rc<Actor>, _lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        let Some(handle) = take_handle(actor, Access::WRITE) else { return };
        let piece = handle.model.len() / 4;
        let mut writes = Vec::new();
        for place in 0..1 + random(4) as usize {
            let range = place * piece..(place + 1) * piece;
            let remote = handle.remote.slice(range.start as u64..range.end as u64).expect("inside");
            let Ok(mut buffer) = Buffer::allocate(piece) else { break };
            buffer.fill(random(256) as u8);
            handle.model.forget(range.clone());
            let bytes = buffer.to_vec();
            let write = actor.connection.write(buffer, &remote);
            writes.push((range, bytes, write.is_posted(), write));
        }
        let begun = actor.session.ledger.begin("flush");
        let flushed = actor.connection.flush().await;
        begun.end();
        if let Err(error) = &flushed {
            actor.failed("flush", error);
        }
        // At once: nobody else has looked since.
        let seen: Vec<_> = writes.iter().map(|(range, ..)| handle.model.seen_by_owner(range.clone())).collect();
        for ((range, bytes, was_posted, write), seen) in writes.into_iter().zip(seen) {
            match write.await {
                Ok(_) => {
                    handle.model.set(range.start, &bytes);
                    if let (true, true, Some(seen)) = (was_posted, flushed.is_ok(), seen) {
                        assert_eq!(seen, bytes, "a write that was flushed is not there");
                        actor.session.ledger.count(OPERATION.name);
                    }
                }
                Err(error) => failed(actor, "flushed write", &handle.model, &error),
            }
        }
        put_back(actor, handle);
    })
}
