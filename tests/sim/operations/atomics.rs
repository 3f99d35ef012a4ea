//! Atomic operations on words that the peer has granted.

use std::rc::Rc;

use crate::world::random;
use zcmi::Access;

use super::memory::{failed_atomic, put_back, take_handle};
use super::{Operation, Running};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "atomics", weight: 4, run };

fn run<'a>(actor: &'a Rc<Actor>, _lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        let Some(handle) = take_handle(actor, Access::ATOMIC) else { return };
        for _ in 0..1 + random(6) {
            if actor.is_over() {
                return;
            }
            let offset = random(handle.model.len() as u64 / 8) as usize * 8;
            let word = handle.remote.at::<u64>(offset as u64).expect("inside and aligned");
            let known = handle.model.word(offset);
            handle.model.forget(offset..offset + 8);
            let begun = actor.session.ledger.begin(OPERATION.name);
            let value = random(1 << 40);
            let (old, new) = if random(2) == 0 {
                let old = actor.connection.fetch_add(&word, value).await;
                (old, known.map(|known| known.wrapping_add(value)))
            } else {
                let compare = known.filter(|_| random(2) == 0).unwrap_or(1);
                let old = actor.connection.compare_swap(&word, compare, value).await;
                (old, known.map(|known| if known == compare { value } else { known }))
            };
            begun.end();
            match old {
                Ok(old) => {
                    assert!(known.is_none_or(|known| known == old), "a word was {old:#x}, not {known:x?}");
                    if let Some(new) = new {
                        handle.model.set(offset, &new.to_ne_bytes());
                    }
                }
                Err(error) => failed_atomic(actor, "atomic", &handle.model, &error),
            }
        }
        put_back(actor, handle);
    })
}
