//! Messages of every length on channels of their own, sent in every way, some given up.

use std::rc::Rc;
use std::time::Duration;

use crate::world::{random, sleep};
use bytes::Bytes;
use zcmi::{Buffer, Error, ErrorKind, Registered};

use super::{Operation, Running};
use crate::bulk::{Fate, HEAD};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "bulk", weight: 8, run };

fn run<'a>(actor: &'a Rc<Actor>, lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        actor.session.ledger.count(OPERATION.name);
        let Ok(channel) = actor.connection.channel(lane.bulk_channel()) else { return };
        for _ in 0..1 + random(8) {
            if actor.is_over() {
                return;
            }
            let most = actor.connection.max_message_size();
            let message = actor.bulk_message(lane, actor.session.sizes.message().min(most.saturating_sub(HEAD)));
            let (number, length) = (message.number, message.bytes.len());
            let is_short = length <= actor.connection.max_short_message_size();
            let begun = actor.session.ledger.begin("send in bulk");
            let sent: Result<(), Error> = match random(8) {
                0 if length > 0 => match Buffer::allocate(length) {
                    Ok(mut buffer) => {
                        buffer.copy_from_slice(&message.bytes);
                        channel.send_owned(buffer).await.map(drop).map_err(Error::from)
                    }
                    Err(error) => Err(error),
                },
                1 => channel.send_owned(Bytes::from(message.bytes)).await.map(drop).map_err(Error::from),
                2 => channel.send_owned(Registered::new(message.bytes)).await.map(drop).map_err(Error::from),
                3 => channel.send_acknowledged(&message.bytes).await,
                4 if is_short => channel.try_send(&message.bytes),
                5 => channel.send_timeout(&message.bytes, Duration::from_micros(random(300))).await,
                6 => tokio::select! {
                    biased;
                    sent = channel.send(&message.bytes) => sent,
                    () = sleep(Duration::from_micros(random(60))) => {
                        given_up(actor, lane, number, is_short);
                        begun.end();
                        continue;
                    }
                },
                _ => channel.send(&message.bytes).await,
            };
            begun.end();
            match sent {
                Ok(()) => actor.bulk_fate(lane, number, Fate::Sent),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => actor.bulk_fate(lane, number, Fate::NotSent),
                    ErrorKind::TimedOut => given_up(actor, lane, number, is_short),
                    // There may be no memory to copy it to, or to register.
                    ErrorKind::MemoryLimit | ErrorKind::PoolExhausted | ErrorKind::ResourceExhausted => {
                        actor.bulk_fate(lane, number, if is_short { Fate::NotSent } else { Fate::Doubtful });
                    }
                    _ => actor.failed("send in bulk", &error),
                },
            }
        }
    })
}

/// A send that was given up: what is short was not sent, what is long may have been offered.
fn given_up(actor: &Actor, lane: &Lane, number: u64, is_short: bool) {
    actor.session.ledger.count("given up");
    actor.bulk_fate(lane, number, if is_short { Fate::NotSent } else { Fate::Doubtful });
}
