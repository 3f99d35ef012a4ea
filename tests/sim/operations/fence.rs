//! Writes and atomic operations behind reads, which must not see what they leave.

use std::rc::Rc;

use crate::world::random;
use zcmi::{Access, Buffer};

use super::memory::{failed, failed_atomic, put_back, some_range, take_handle};
use super::{Operation, Running};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "fenced operations", weight: 3, run };

fn run<'a>(actor: &'a Rc<Actor>, _lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        let Some(handle) = take_handle(actor, Access::ALL) else { return };
        let range = some_range(handle.model.len());
        let target = handle.remote.slice(range.start as u64..range.end as u64).expect("inside");
        let word = handle.remote.at::<u64>(0).expect("inside and aligned");
        let (Ok(before), Ok(mut new)) = (Buffer::allocate(range.len()), Buffer::allocate(range.len())) else { return };
        new.fill(random(256) as u8);
        let bytes = new.to_vec();
        let begun = actor.session.ledger.begin(OPERATION.name);
        let known = handle.model.known(range.clone());
        // Whenever the grant ends from here on, the write may have been carried out.
        handle.model.forget(range.clone());
        let read = actor.connection.read(before, &target);
        let write = actor.connection.fenced().write(new, &target);
        let added = actor.connection.fenced().fetch_add(&word, 0);
        let in_order = read.is_posted() && write.is_posted();
        let is_last = added.is_posted() && write.is_posted();
        match read.await {
            Ok(found) if in_order => known.check("read before a fence", 0, &found),
            Ok(_) => {}
            Err(error) => failed(actor, "read", &handle.model, &error),
        }
        match write.await {
            Ok(_) => handle.model.set(range.start, &bytes),
            Err(error) => failed(actor, "fenced write", &handle.model, &error),
        }
        match added.await {
            Ok(old) => assert!(
                !is_last || handle.model.word(0).is_none_or(|known| known == old),
                "fenced: the word was {old:#x}"
            ),
            Err(error) => failed_atomic(actor, "fenced atomic", &handle.model, &error),
        }
        match in_order && is_last {
            true => begun.end(),
            false => drop(begun),
        }
        put_back(actor, handle);
    })
}
