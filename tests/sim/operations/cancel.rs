//! Sending of what fits a frame that is given up before it has ended: nothing was sent.

use std::rc::Rc;
use std::time::Duration;

use crate::world::{random, sleep};

use super::{Operation, Running};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "cancelled sends", weight: 2, run };

fn run<'a>(actor: &'a Rc<Actor>, lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        actor.session.ledger.count(OPERATION.name);
        for _ in 0..1 + random(10) {
            if actor.is_over() {
                return;
            }
            let message = actor.data(lane, (random(600) as usize).min(actor.connection.max_short_message_size() - 16));
            tokio::select! {
                biased;
                sent = actor.connection.send(&message) => match sent {
                    Ok(()) => actor.was_sent(lane),
                    Err(error) => actor.failed("send", &error),
                },
                // Its number is the next message's: should it have been sent, there are two.
                () = sleep(Duration::from_micros(random(20))) => actor.session.ledger.count("cancelled"),
            }
        }
    })
}
