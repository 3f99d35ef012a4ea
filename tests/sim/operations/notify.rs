//! Writes that notify: the owner hears of each once, when the bytes are there.

use std::rc::Rc;

use crate::world::random;
use zcmi::{Access, Buffer};

use super::memory::{failed, put_back, some_range, take_handle};
use super::{Operation, Running};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "notifying writes", weight: 6, run };

fn run<'a>(actor: &'a Rc<Actor>, _lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        let Some(handle) = take_handle(actor, Access::WRITE) else { return };
        for _ in 0..1 + random(8) {
            if actor.is_over() {
                return;
            }
            let range = some_range(handle.model.len());
            let target = handle.remote.slice(range.start as u64..range.end as u64).expect("inside");
            let Ok(mut buffer) = Buffer::allocate(range.len()) else { return };
            buffer.fill(random(256) as u8);
            let bytes = buffer.to_vec();
            handle.model.forget(range.clone());
            let value = actor.begin_notice(&handle.model, range.start, &bytes);
            let begun = actor.session.ledger.begin("write and notify");
            let written = actor.connection.write_notify(buffer, &target, value).await;
            begun.end();
            match written {
                Ok(_) => {
                    handle.model.set(range.start, &bytes);
                    // Until the owner has looked at the bytes nobody writes others there.
                    actor.notice_written(value).await;
                }
                Err(error) => {
                    failed(actor, "write and notify", &handle.model, &error);
                    // It may have been carried out all the same.
                    actor.notice_failed(value);
                }
            }
        }
        put_back(actor, handle);
    })
}
