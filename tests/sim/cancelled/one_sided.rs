//! Reads, writes, atomics, batches, notifications.

use std::rc::Rc;
use std::time::Duration;

use zcmi::internals::simulation::{random, sleep, spawn};
use zcmi::{Buffer, Connection, RemoteBuffer};

use super::ends::{End, Ends, GRANTED, Got, bytes, world};
use super::{Boxed, Case, READS, Round};

/// Bytes of a read or write.
const LENGTH: usize = 256;

/// A case that writes what it is given to the place of its round.
macro_rules! writes {
    ($names:expr, $write:expr) => {
        Case {
            names: $names,
            world: |executor, cut| {
                world(executor, cut, |ends, round| {
                    let write = $write;
                    Box::pin(writing(ends, round, move |near, remote, bytes| write(near, remote, bytes)))
                })
            },
        }
    };
}

/// A case that reads what is at the place of its round.
macro_rules! reads {
    ($names:expr, $read:expr) => {
        Case {
            names: $names,
            world: |executor, cut| {
                world(executor, cut, |ends, round| {
                    let read = $read;
                    Box::pin(reading(ends, round, move |near, remote| read(near, remote)))
                })
            },
        }
    };
}

pub(super) const CASES: &[Case] = &[
    writes!(&["Operation"], async |near: Connection, remote: RemoteBuffer, bytes: Vec<u8>| {
        near.write(buffer(&bytes), &remote).await.map(drop).expect("writes");
    }),
    writes!(&["Operation"], async |near: Connection, remote: RemoteBuffer, bytes: Vec<u8>| {
        let (first, second) = bytes.split_at(100);
        near.write_vectored(vec![buffer(first), buffer(second)], &remote).await.map(drop).expect("writes");
    }),
    writes!(&["Operation"], async |near: Connection, remote: RemoteBuffer, bytes: Vec<u8>| {
        let mut batch = near.batch();
        let read = batch.read(buffer(&bytes), &remote);
        let write = batch.fence().write(buffer(&bytes), &remote);
        batch.post();
        let (read, write) = tokio::join!(read, write);
        assert!(read.is_ok() && write.is_ok());
    }),
    writes!(&["Connection::write_value"], async |near: Connection, remote: RemoteBuffer, bytes: Vec<u8>| {
        let value: [u8; LENGTH] = bytes.try_into().expect("of this length");
        near.write_value(&remote.at::<[u8; LENGTH]>(0).expect("inside"), &value).await.expect("writes");
    }),
    reads!(&["Operation"], async |near: Connection, remote: RemoteBuffer| {
        near.read(Buffer::allocate(LENGTH).expect("memory"), &remote).await.expect("reads").to_vec()
    }),
    reads!(&["Operation"], async |near: Connection, remote: RemoteBuffer| {
        near.fenced().read(Buffer::allocate(LENGTH).expect("memory"), &remote).await.expect("reads").to_vec()
    }),
    reads!(&["Connection::read_value"], async |near: Connection, remote: RemoteBuffer| {
        near.read_value(&remote.at::<[u8; LENGTH]>(0).expect("inside")).await.expect("reads").to_vec()
    }),
    Case { names: &["AtomicOperation"], world: |executor, cut| world(executor, cut, adding) },
    Case { names: &["Connection::flush", "SendHalf::flush"], world: |executor, cut| world(executor, cut, flushing) },
    Case { names: &["Operation"], world: |executor, cut| world(executor, cut, notifying) },
    Case {
        names: &["Connection::notified", "ReceiveHalf::notified"],
        world: |executor, cut| world(executor, cut, hearing),
    },
];

fn buffer(bytes: &[u8]) -> Buffer {
    let mut buffer = Buffer::allocate(bytes.len()).expect("memory");
    buffer.copy_from_slice(bytes);
    buffer
}

/// The bytes of a round.
fn place(end: &End, round: u64) -> (RemoteBuffer, usize) {
    let offset = round as usize % (GRANTED / LENGTH) * LENGTH;
    (end.remote.slice(offset as u64..(offset + LENGTH) as u64).expect("inside"), offset)
}

/// Fills the queue with reads whose futures are gone, so that what comes next finds no room at once.
fn fill(near: &Connection, remote: &RemoteBuffer) {
    for _ in 0..READS {
        drop(near.read(Buffer::allocate(64).expect("memory"), &remote.slice(0..64).expect("inside")));
    }
}

/// All that was posted has been carried out, and as much can be outstanding as ever.
async fn settle(near: &Connection, remote: &RemoteBuffer) {
    near.flush().await.expect("it is alive");
    let reads: Vec<_> = (0..READS)
        .map(|_| near.read(Buffer::allocate(64).expect("memory"), &remote.slice(0..64).expect("inside")))
        .collect();
    assert!(reads.iter().all(zcmi::Operation::is_posted), "there is less room than there was");
    for read in reads {
        drop(read.await.expect("reads"));
    }
}

async fn writing<F: Future<Output = ()> + 'static>(
    ends: Ends,
    round: u64,
    write: impl FnOnce(Connection, RemoteBuffer, Vec<u8>) -> F,
) -> Round {
    let (remote, offset) = place(&ends.near, round);
    let near = ends.near.connection.clone();
    fill(&near, &remote);
    let seen = move |ends: &Ends| {
        let mut found = vec![0; LENGTH];
        ends.far.exposed.read_at(offset, &mut found);
        found
    };
    let before = seen(&ends);
    let new = bytes(500 + round, LENGTH);
    let future = write(near.clone(), remote, new.clone());
    Round::new(future, move |has_ended| async move {
        settle(&near, &remote).await;
        let found = seen(&ends);
        assert!(found == new || !has_ended && found == before, "neither what was there nor what was written");
        ends.far.exposed.write_at(offset, &before);
        sleep(Duration::from_micros(random(500))).await;
        assert!(seen(&ends) == before, "it writes when all has been carried out");
    })
}

async fn reading<F: Future<Output = Vec<u8>> + 'static>(
    ends: Ends,
    round: u64,
    read: impl FnOnce(Connection, RemoteBuffer) -> F,
) -> Round {
    let (remote, offset) = place(&ends.near, round);
    let near = ends.near.connection.clone();
    let there = bytes(700 + round, LENGTH);
    ends.far.exposed.write_at(offset, &there);
    fill(&near, &remote);
    let reading = read(near.clone(), remote);
    let future = async move { assert!(reading.await == there, "other bytes were read") };
    Round::new(future, move |_| async move { settle(&near, &remote).await })
}

fn adding(ends: Ends, round: u64) -> Boxed<Round> {
    let near = ends.near.connection.clone();
    let (remote, _) = place(&ends.near, round);
    let word = remote.at::<u64>(0).expect("aligned");
    Box::pin(async move {
        fill(&near, &remote);
        let adding = near.clone();
        let (before, got) = (near.read_value(&word).await.expect("reads"), Got::<u64>::default());
        fill(&near, &remote);
        let to = Rc::clone(&got);
        let future = async move {
            let old = if round.is_multiple_of(2) {
                adding.fetch_add(&word, 5).await
            } else {
                adding.compare_swap(&word, before, before.wrapping_add(5)).await
            };
            *to.borrow_mut() = Some(old.expect("changes it"));
        };
        Round::new(future, move |has_ended| async move {
            settle(&near, &remote).await;
            let now = near.read_value(&word).await.expect("reads");
            assert!(now == before.wrapping_add(5) || !has_ended && now == before, "{before} has become {now}");
            assert_eq!(got.take(), has_ended.then_some(before));
        })
    })
}

fn flushing(ends: Ends, round: u64) -> Boxed<Round> {
    let (near, half) = (ends.near.connection.clone(), ends.near.sends.clone());
    let (remote, offset) = place(&ends.near, round);
    Box::pin(async move {
        let new = bytes(900 + round, LENGTH);
        let write = near.write(buffer(&new), &remote);
        let was_posted = write.is_posted();
        drop(write);
        let flushing = near.clone();
        let future = async move {
            match round % 2 {
                0 => flushing.flush().await.expect("it is alive"),
                _ => half.flush().await.expect("it is alive"),
            }
        };
        Round::new(future, move |has_ended| async move {
            let mut found = vec![0; LENGTH];
            ends.far.exposed.read_at(offset, &mut found);
            assert!(!has_ended || !was_posted || found == new, "it was flushed, and is not there");
            settle(&near, &remote).await;
        })
    })
}

/// A write that notifies, and then one that does for certain.
fn notifying(ends: Ends, round: u64) -> Boxed<Round> {
    let near = ends.near.connection.clone();
    let (remote, offset) = place(&ends.near, round);
    Box::pin(async move {
        let new = bytes(300 + round, LENGTH);
        fill(&near, &remote);
        let (notifying, written) = (near.clone(), new.clone());
        let future = async move {
            let value = 2 * round as u32;
            if round.is_multiple_of(2) {
                notifying.write_notify(buffer(&written), &remote, value).await.map(drop).expect("writes");
            } else {
                notifying.fenced().write_notify(buffer(&written), &remote, value).await.map(drop).expect("writes");
            }
        };
        Round::new(future, move |has_ended| async move {
            let (far, last) = (ends.far.connection.clone(), 2 * round as u32 + 1);
            let (written, heard) = tokio::join!(near.write_notify(buffer(&new), &remote, last), async {
                let mut heard = Vec::new();
                while heard.last() != Some(&last) {
                    heard.push(far.notified().await.expect("it is alive"));
                }
                heard
            });
            drop(written.expect("writes"));
            assert!(heard == [last - 1, last] || !has_ended && heard == [last], "{heard:?} was heard");
            let mut found = vec![0; LENGTH];
            ends.far.exposed.read_at(offset, &mut found);
            assert!(found == new);
            settle(&near, &remote).await;
        })
    })
}

fn hearing(ends: Ends, round: u64) -> Boxed<Round> {
    let far = ends.far.connection.clone();
    let (remote, _) = place(&ends.far, round);
    Box::pin(async move {
        let value = 7 * round as u32;
        let written = spawn(async move {
            sleep(Duration::from_micros(random(60))).await;
            drop(far.write_notify(buffer(&[1; LENGTH]), &remote, value).await.expect("writes"));
        });
        let got = Got::<u32>::default();
        let (near, half, to) = (ends.near.connection.clone(), ends.near.receives.clone(), Rc::clone(&got));
        let future = async move {
            let heard = if round.is_multiple_of(2) { near.notified().await } else { half.notified().await };
            *to.borrow_mut() = Some(heard.expect("it is alive"));
        };
        let near = ends.near.connection.clone();
        Round::new(future, move |has_ended| async move {
            let heard = match got.take() {
                Some(heard) => heard,
                None => near.notified().await.expect("it is alive"),
            };
            assert_eq!(heard, value, "ended: {has_ended}");
            assert_eq!(near.try_notified().expect("it is alive"), None, "it is heard of twice");
            written.await.expect("alive");
        })
    })
}
