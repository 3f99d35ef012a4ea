//! What an end does: each operation in a file of its own, chosen at random by weight.

mod atomics;
mod batch;
mod bulk;
mod cancel;
mod domain_grant;
mod fence;
mod flush;
mod grant;
mod lease;
mod memory;
mod message;
mod notify;
mod read;
mod write;

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use crate::world::{random, sleep};

use crate::session::{Actor, Lane};

pub(crate) use memory::Model;

/// Something that an end can do.
pub(crate) struct Operation {
    name: &'static str,
    /// How often it is chosen, compared with others.
    weight: u64,
    run: for<'a> fn(&'a Rc<Actor>, &'a mut Lane) -> Running<'a>,
}

type Running<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// All there are. A new one is added here, and nowhere else.
const OPERATIONS: &[Operation] = &[
    atomics::OPERATION,
    batch::OPERATION,
    bulk::OPERATION,
    cancel::OPERATION,
    domain_grant::OPERATION,
    fence::OPERATION,
    flush::OPERATION,
    grant::OPERATION,
    lease::OPERATION,
    message::OPERATION,
    notify::OPERATION,
    read::OPERATION,
    write::OPERATION,
];

/// Their names, to see that all have run.
pub(crate) fn names() -> Vec<&'static str> {
    OPERATIONS.iter().map(|operation| operation.name).collect()
}

/// Does one of them.
pub(crate) async fn run_one(actor: &Rc<Actor>, lane: &mut Lane) {
    let total = OPERATIONS.iter().map(|operation| operation.weight).sum();
    let mut chosen = random(total);
    for operation in OPERATIONS {
        if chosen < operation.weight {
            (operation.run)(actor, lane).await;
            break;
        }
        chosen -= operation.weight;
    }
    if random(3) == 0 {
        sleep(Duration::from_micros(random(200))).await;
    }
}
