//! Writes to what the peer has granted.

use std::rc::Rc;

use crate::world::random;
use zcmi::{Access, Buffer, Registered};

use super::memory::{failed, put_back, some_range, take_handle};
use super::{Operation, Running};
use crate::pattern;
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "writes", weight: 6, run };

fn run<'a>(actor: &'a Rc<Actor>, _lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        let Some(handle) = take_handle(actor, Access::WRITE) else { return };
        for _ in 0..1 + random(6) {
            if actor.is_over() {
                return;
            }
            let range = some_range(handle.model.len());
            let mut bytes = vec![0; range.len()];
            pattern::fill(random(u64::MAX), 0, &mut bytes);
            let target = handle.remote.slice(range.start as u64..range.end as u64).expect("inside");
            handle.model.forget(range.clone());
            let ledger = &actor.session.ledger;
            let is_written = match random(4) {
                0 => {
                    let begun = ledger.begin("registered writes");
                    let written = actor.connection.write(Registered::new(bytes.clone()), &target).await;
                    begun.end();
                    written
                        .map(|memory| assert_eq!(*memory, *bytes))
                        .map_err(|error| failed(actor, "write", &handle.model, &error))
                }
                1 => {
                    // Its end is never known, only that of the write behind it.
                    ledger.count("detached writes");
                    let detached = Buffer::allocate(bytes.len()).map(|buffer| actor.connection.write(buffer, &target));
                    drop(detached);
                    Err(())
                }
                _ => {
                    let Ok(mut buffer) = Buffer::allocate(bytes.len()) else { return };
                    buffer.copy_from_slice(&bytes);
                    let begun = ledger.begin(OPERATION.name);
                    let written = actor.connection.write(buffer, &target).await;
                    begun.end();
                    written
                        .map(|memory| assert_eq!(*memory, *bytes))
                        .map_err(|error| failed(actor, "write", &handle.model, &error))
                }
            };
            if is_written.is_ok() {
                actor.session.ledger.moved(range.len());
                handle.model.set(range.start, &bytes);
            }
        }
        put_back(actor, handle);
    })
}
