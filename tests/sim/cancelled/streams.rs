//! Streams: no byte is lost with who reads or writes, and none comes twice.

use std::cell::Cell;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;
use zcmi::Stream;
use zcmi::internals::simulation::{now, random, sleep, spawn};

use super::ends::{Ends, world, world_on};
use super::{Boxed, Case, Round};

/// More than a stream has on its way at once.
const LONG: u64 = 900_000;
const SHORT: u64 = 3_000;
/// Bytes that are written or read in one go.
const PART: u64 = 100_000;

pub(super) const CASES: &[Case] = &[
    Case {
        names: &["Stream as AsyncWrite"],
        world: |executor, cut| {
            let round = |flow, round| -> Boxed<Round> { Box::pin(std::future::ready(writing(flow, round))) };
            world_on(executor, cut, Flow::out, round, Flow::end)
        },
    },
    Case {
        names: &["Stream as AsyncRead"],
        world: |executor, cut| {
            let round = |flow, round| -> Boxed<Round> { Box::pin(std::future::ready(reading(flow, round, read))) };
            world_on(executor, cut, Flow::back, round, Flow::end)
        },
    },
    Case {
        names: &["Stream as AsyncBufRead"],
        world: |executor, cut| {
            let round = |flow, round| -> Boxed<Round> { Box::pin(std::future::ready(reading(flow, round, fill))) };
            world_on(executor, cut, Flow::back, round, Flow::end)
        },
    },
    // Its end, and then what the peer still writes.
    Case { names: &["Stream as AsyncWrite"], world: |executor, cut| world(executor, cut, shutting_down) },
    // The stream goes with who writes.
    Case { names: &["Stream as AsyncWrite"], world: |executor, cut| world(executor, cut, dropping) },
];

/// What a stream carries from `at` on.
fn content(at: u64, length: u64) -> Vec<u8> {
    (at..at + length).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect()
}

/// Bytes of the length of a round.
fn length(round: u64) -> u64 {
    [LONG, SHORT, 7][round as usize % 3]
}

type Shared = Rc<Mutex<Stream>>;
type Count = Rc<Cell<u64>>;

/// A stream that goes one way.
#[derive(Clone)]
struct Flow {
    near: Shared,
    /// None if a task has it.
    far: Option<Shared>,
    written: Count,
    read: Count,
}

/// The two ends of a stream.
fn streams(ends: &Ends, channel: u32) -> (Stream, Stream) {
    let stream = |end: &super::ends::End| Stream::new(end.connection.channel(channel).expect("room"));
    (stream(&ends.near), stream(&ends.far))
}

impl Flow {
    /// The far end reads what comes.
    fn out(ends: &Ends) -> Self {
        let (near, mut far) = streams(ends, 9);
        let (written, read) = (Count::default(), Count::default());
        let count = Rc::clone(&read);
        spawn(async move {
            while self::read(&mut far, &count, PART).await {
                sleep(Duration::from_micros(random(30))).await;
            }
        });
        Self { near: Rc::new(Mutex::new(near)), far: None, written, read }
    }

    /// The far end writes when it is told to.
    fn back(ends: &Ends) -> Self {
        let (near, far) = streams(ends, 9);
        let [near, far] = [near, far].map(|stream| Rc::new(Mutex::new(stream)));
        Self { near, far: Some(far), written: Count::default(), read: Count::default() }
    }

    fn end(self) -> Boxed {
        Box::pin(async move {
            let Self { near, far, .. } = self;
            near.lock().await.shutdown().await.expect("it ends");
            if let Some(far) = far {
                far.lock().await.shutdown().await.expect("it ends");
                assert_eq!(near.lock().await.read(&mut [0; 9]).await.expect("it is the end"), 0);
            }
        })
    }
}

/// Reads some of what is next; answers whether there was any.
async fn read(stream: &mut Stream, read: &Cell<u64>, most: u64) -> bool {
    let mut part = vec![0; most as usize];
    let length = stream.read(&mut part).await.expect("it reads");
    assert!(part[..length] == content(read.get(), length as u64), "other bytes from {} on", read.get());
    read.set(read.get() + length as u64);
    length > 0
}

/// The same without a copy.
async fn fill(stream: &mut Stream, read: &Cell<u64>, most: u64) -> bool {
    let available = stream.fill_buf().await.expect("it reads");
    let length = (available.len() as u64).min(most);
    assert!(available[..length as usize] == content(read.get(), length), "other bytes from {} on", read.get());
    stream.consume(length as usize);
    read.set(read.get() + length);
    length > 0
}

/// Writes so many bytes more, in two pieces at a time in every other round.
async fn write(stream: &mut Stream, written: &Cell<u64>, more: u64, round: u64) {
    let end = written.get() + more;
    while written.get() < end {
        let part = content(written.get(), (end - written.get()).min(PART));
        let count = if round.is_multiple_of(2) {
            stream.write(&part).await
        } else {
            let (first, second) = part.split_at(part.len() / 3);
            stream.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]).await
        };
        written.set(written.get() + count.expect("it writes") as u64);
    }
}

/// What was written comes though nobody flushes it or waits for it.
async fn arrive(written: &Cell<u64>, read: &Cell<u64>) {
    let begun = now();
    while read.get() < written.get() {
        assert!(now() - begun < Duration::from_secs(1), "{} of {} bytes have come", read.get(), written.get());
        sleep(Duration::from_micros(100)).await;
    }
    assert_eq!(read.get(), written.get(), "more has come than was written");
}

fn writing(flow: Flow, round: u64) -> Round {
    let (near, written) = (Rc::clone(&flow.near), Rc::clone(&flow.written));
    let future = async move {
        let mut near = near.lock().await;
        write(&mut near, &written, length(round), round).await;
        if !round.is_multiple_of(4) {
            near.flush().await.expect("it flushes");
        }
    };
    Round::new(future, move |_| async move { arrive(&flow.written, &flow.read).await })
}

fn reading(flow: Flow, round: u64, read: impl AsyncFn(&mut Stream, &Cell<u64>, u64) -> bool + 'static) -> Round {
    let far = flow.far.clone().expect("it is there");
    let (begun, written) = (flow.written.get(), Rc::clone(&flow.written));
    let end = begun + length(round);
    let writing = spawn(async move {
        sleep(Duration::from_micros(random(60))).await;
        let mut far = far.lock().await;
        write(&mut far, &written, end - begun, round).await;
        far.flush().await.expect("it flushes");
    });
    let (near, count) = (Rc::clone(&flow.near), Rc::clone(&flow.read));
    let future = async move {
        let mut near = near.lock().await;
        while count.get() < end {
            assert!(read(&mut near, &count, PART).await, "the stream has ended");
        }
    };
    Round::new(future, move |_| async move {
        let mut near = flow.near.lock().await;
        while flow.read.get() < end {
            assert!(self::read(&mut near, &flow.read, PART).await, "the stream has ended");
        }
        writing.await.expect("alive");
    })
}

fn shutting_down(ends: Ends, round: u64) -> Boxed<Round> {
    let (near, mut far) = streams(&ends, 40 + round as u32);
    let answering = spawn(async move {
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.expect("it reads");
        far.write_all(&content(3, SHORT)).await.expect("it writes");
        far.shutdown().await.expect("it ends");
        all
    });
    let (near, written) = (Rc::new(Mutex::new(near)), Count::default());
    let (writing, count) = (Rc::clone(&near), Rc::clone(&written));
    let future = async move {
        let mut near = writing.lock().await;
        write(&mut near, &count, length(round), round).await;
        near.shutdown().await.expect("it ends");
    };
    Box::pin(std::future::ready(Round::new(future, move |_| async move {
        let mut near = near.lock().await;
        near.shutdown().await.expect("it can be done again");
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.expect("it reads");
        assert!(answer == content(3, SHORT), "another answer");
        let all = answering.await.expect("alive");
        assert!(all == content(0, written.get()), "{} bytes have come of {}", all.len(), written.get());
    })))
}

fn dropping(ends: Ends, round: u64) -> Boxed<Round> {
    let (mut near, mut far) = streams(&ends, 60 + round as u32);
    let reading = spawn(async move {
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.expect("it reads");
        all
    });
    let written = Count::default();
    let count = Rc::clone(&written);
    let future = async move {
        write(&mut near, &count, length(round), round).await;
        if !round.is_multiple_of(4) {
            near.flush().await.expect("it flushes");
        }
    };
    Box::pin(std::future::ready(Round::new(future, move |_| async move {
        let all = reading.await.expect("alive");
        assert!(all == content(0, written.get()), "{} bytes have come of {}", all.len(), written.get());
    })))
}
