//! Reads of what the peer has granted.

use std::rc::Rc;

use crate::world::random;
use zcmi::{Access, Buffer, Registered};

use super::memory::{failed, put_back, some_range, take_handle};
use super::{Operation, Running};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "reads", weight: 6, run };

fn run<'a>(actor: &'a Rc<Actor>, _lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        let Some(handle) = take_handle(actor, Access::READ) else { return };
        for _ in 0..1 + random(6) {
            if actor.is_over() {
                return;
            }
            let range = some_range(handle.model.len());
            let source = handle.remote.slice(range.start as u64..range.end as u64).expect("inside");
            actor.session.ledger.moved(range.len());
            let begun = actor.session.ledger.begin(OPERATION.name);
            if random(3) == 0 {
                let memory = Registered::new(vec![0xee; range.len()]);
                match actor.connection.read(memory, &source).await {
                    Ok(memory) => handle.model.check("read", range.start, &memory),
                    Err(error) => failed(actor, "read", &handle.model, &error),
                }
            } else {
                let Ok(mut buffer) = Buffer::allocate(range.len()) else { return };
                buffer.fill(0xee);
                match actor.connection.read(buffer, &source).await {
                    Ok(buffer) => handle.model.check("read", range.start, &buffer),
                    Err(error) => failed(actor, "read", &handle.model, &error),
                }
            }
            begun.end();
        }
        put_back(actor, handle);
    })
}
