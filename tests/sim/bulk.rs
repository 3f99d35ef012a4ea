//! What is known of the messages on channels of their own: each is received once, in order, whole, unless it was not sent.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::world::{random, sleep};
use serde::{Deserialize, Serialize};
use zcmi::{Buffer, Channel, Error, ErrorKind, Registered};

use crate::pattern;
use crate::session::{Actor, Lane};
use crate::sizes::LONGEST;

/// Bytes before the body: number, length.
pub(crate) const HEAD: usize = 16;

/// The messages of one side's lanes, by channel and number.
pub(crate) type Ledger = RefCell<BTreeMap<u32, BTreeMap<u64, Fate>>>;

/// What has become of a message.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Fate {
    /// Its sending has not ended, or nobody knows how.
    Doubtful,
    NotSent,
    Received,
    Sent,
}

pub(crate) struct BulkMessage {
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Actor {
    /// The next message on the lane's channel, with so many bytes behind its head.
    pub(crate) fn bulk_message(&self, lane: &mut Lane, length: usize) -> BulkMessage {
        let number = lane.next_bulk();
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.extend((length as u64).to_le_bytes());
        bytes.resize(HEAD + length, 0);
        pattern::fill(self.bulk_stream(self.side(), lane.bulk_channel()), number, &mut bytes[HEAD..]);
        self.bulk_of(self.side()).borrow_mut().entry(lane.bulk_channel()).or_default().insert(number, Fate::Doubtful);
        BulkMessage { number, bytes }
    }

    /// What has become of a message, as far as its sender knows.
    pub(crate) fn bulk_fate(&self, lane: &Lane, number: u64, fate: Fate) {
        let mut ledger = self.bulk_of(self.side()).borrow_mut();
        let known = ledger.entry(lane.bulk_channel()).or_default().entry(number).or_insert(fate);
        match (*known, fate) {
            (Fate::Received, Fate::NotSent) => panic!("message {number} was not sent, and was received"),
            (Fate::Received, _) => {}
            _ => *known = fate,
        }
    }

    /// Receives on one channel until the connection ends, or the end is to stop.
    pub(crate) async fn receive_bulk(self: Rc<Self>, id: u32) {
        let Ok(channel) = self.connection.channel(id) else { return };
        let (mut last, mut given_up) = (None, 0);
        while !self.is_stopped() {
            let received = tokio::select! {
                biased;
                () = self.stopping() => return,
                received = receive_somehow(&channel, given_up > 5) => received,
            };
            match received {
                Ok(Some(message)) => {
                    given_up = 0;
                    self.check_bulk(id, &message, &mut last);
                }
                Ok(None) => {
                    given_up += 1;
                    if given_up > 1_000 {
                        // There will never be the memory.
                        self.connection.abort();
                    }
                    self.session.ledger.count("given up receives");
                }
                Err(error) => return self.received_all_bulk(id, &error),
            }
        }
    }

    fn check_bulk(&self, id: u32, message: &[u8], last: &mut Option<u64>) {
        let place = format!("session {} side {} channel {id}", self.session.id, self.side());
        assert!(message.len() >= HEAD, "{place}: a message of {} bytes", message.len());
        let word = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().expect("eight"));
        let (number, length) = (word(0), word(8));
        assert!(last.is_none_or(|last| last < number), "{place}: message {number} after {last:?}");
        *last = Some(number);
        assert_eq!(message.len() as u64, HEAD as u64 + length, "{place}: message {number}");
        let stream = self.bulk_stream(1 - self.side(), id);
        let difference = pattern::difference(stream, number, &message[HEAD..]);
        assert_eq!(difference, None, "{place}: message {number} has another byte");
        let mut ledger = self.bulk_of(1 - self.side()).borrow_mut();
        let known = ledger.entry(id).or_default();
        if self.session.far.is_some() {
            // Its sender tells at the end.
            known.entry(number).or_insert(Fate::Doubtful);
        }
        let fate = known.get_mut(&number).expect("a message that somebody sent");
        assert_ne!(*fate, Fate::NotSent, "{place}: message {number} was not sent, and was received");
        assert_ne!(*fate, Fate::Received, "{place}: message {number} was received twice");
        *fate = Fate::Received;
        self.session.ledger.count("bulk messages");
        self.session.ledger.moved(message.len());
    }

    /// There will be no more messages on a channel.
    fn received_all_bulk(&self, id: u32, error: &Error) {
        match error.kind() {
            ErrorKind::PeerClosed => {
                let ledger = self.bulk_of(1 - self.side()).borrow();
                let lost = ledger.get(&id).and_then(|lane| lane.iter().find(|(_, fate)| **fate == Fate::Sent));
                assert_eq!(lost, None, "the peer has closed, and not all that it sent on channel {id} has come");
            }
            ErrorKind::Closed => {}
            _ => self.session.tolerate("receive in bulk", error),
        }
    }
}

/// The next message, received in one of several ways; none if that was given up, which a patient receiver does not.
async fn receive_somehow(channel: &Channel, is_patient: bool) -> Result<Option<Vec<u8>>, Error> {
    match if is_patient { 5 } else { random(6) } {
        0 => {
            let room = 1usize << random(18);
            let Ok(buffer) = Buffer::allocate(room) else { return Ok(None) };
            match channel.recv_into(buffer).await {
                Ok((buffer, length)) => Ok(Some(buffer[..length].to_vec())),
                Err(failed) if failed.error.kind() == ErrorKind::TooLong => {
                    channel.recv().await.map(|message| Some(message.to_vec())).or_else(none_without_memory)
                }
                Err(failed) => none_without_memory(failed.error),
            }
        }
        1 => tokio::select! {
            biased;
            received = channel.recv() => received.map(|message| Some(message.to_vec())).or_else(none_without_memory),
            () = sleep(Duration::from_micros(random(100))) => Ok(None),
        },
        2 => {
            let Ok(buffer) = Buffer::allocate(1 << 17) else { return Ok(None) };
            tokio::select! {
                biased;
                received = channel.recv_into(buffer) => match received {
                    Ok((buffer, length)) => Ok(Some(buffer[..length].to_vec())),
                    Err(failed) if failed.error.kind() == ErrorKind::TooLong => {
                        channel.recv().await.map(|message| Some(message.to_vec())).or_else(none_without_memory)
                    }
                    Err(failed) => none_without_memory(failed.error),
                },
                () = sleep(Duration::from_micros(random(100))) => Ok(None),
            }
        }
        3 => match channel.try_recv() {
            Ok(Some(message)) => Ok(Some(message.to_vec())),
            Ok(None) => {
                sleep(Duration::from_micros(random(100))).await;
                Ok(None)
            }
            Err(error) => none_without_memory(error),
        },
        _ => match channel.recv().await {
            Ok(message) => Ok(Some(message.to_vec())),
            Err(error) => match none_without_memory(error)? {
                // The pool may never have so much.
                None => {
                    sleep(Duration::from_micros(100)).await;
                    match channel.recv_into(Registered::new(vec![0; LONGEST + HEAD])).await {
                        Ok((memory, length)) => Ok(Some(memory[..length].to_vec())),
                        Err(failed) => none_without_memory(failed.error),
                    }
                }
                message => Ok(message),
            },
        },
    }
}

/// A message that there was no memory for is still there.
fn none_without_memory(error: Error) -> Result<Option<Vec<u8>>, Error> {
    match error.kind() {
        ErrorKind::MemoryLimit | ErrorKind::PoolExhausted | ErrorKind::ResourceExhausted => Ok(None),
        _ => Err(error),
    }
}
