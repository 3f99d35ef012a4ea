//! Messages of all lengths.

use std::rc::Rc;

use crate::world::random;

use super::{Operation, Running};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "messages", weight: 8, run };

fn run<'a>(actor: &'a Rc<Actor>, lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        actor.session.ledger.count(OPERATION.name);
        for _ in 0..1 + random(20) {
            if actor.is_over() {
                return;
            }
            match random(8) {
                0 => actor.send_nothing().await,
                1 => actor.send(lane, usize::MAX).await,
                _ => actor.send(lane, random(600) as usize).await,
            }
        }
    })
}
