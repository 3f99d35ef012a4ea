//! A receiver that takes a message each second, from senders who send as fast as they can.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use zcmi::internals::simulation::{Executor, Settings, note_progress, now, pool_statistics, registered, sleep, spawn};
use zcmi::{Channel, Config, Connection, Connector, ErrorKind, Listener, Worker};

const SEEDS: u64 = 3;
const TIME: Duration = Duration::from_secs(20);
/// Between two messages that are taken, on each channel.
const PAUSE: Duration = Duration::from_secs(1);

const WINDOW: usize = 64 << 10;
const AHEAD: usize = 256 << 10;
const FRAME: usize = 4_096;
const RECEIVES: usize = 16;
/// Buffers for frames that an engine keeps, at most.
const SPARE: usize = 64;

const SHORT: usize = 200;
const LONG: usize = 96 << 10;
/// Who send long messages at once; each has one in hand.
const SENDERS: usize = 4;

/// What both ends have of the pool, at most: the window of short messages, frames to send and to receive, and of long
/// messages those in hand, those fetched ahead, and the one that is being taken. Size classes are up to a quarter larger.
const MOST: usize = (WINDOW + 2 * FRAME * (SPARE + RECEIVES + 8) + (SENDERS + 1) * LONG + AHEAD) * 5 / 4;
/// Slabs may have gaps.
const MOST_MAPPED: usize = 2 * MOST;

/// The most that was seen, in the first half of the time and in the second.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    in_use: [usize; 2],
    mapped: usize,
    registered: u64,
    short: u64,
    long: u64,
    round_trips: u64,
    slowest: Duration,
}

pub(crate) fn a_slow_receiver_costs_its_sender_no_more_than_it_may() -> Result<String, String> {
    let mut report = Vec::new();
    for seed in 1..=SEEDS {
        let seen = run(seed).map_err(|why| format!("  seed {seed}: {why}"))?;
        check(&seen).map_err(|why| format!("  seed {seed}: {why}: {seen:?}"))?;
        report.push(seen);
    }
    let most = |of: fn(&Seen) -> usize| report.iter().map(of).max().unwrap_or_default() >> 10;
    let (in_use, registered) = (most(|seen| seen.in_use[0]), most(|seen| seen.registered as usize));
    let slowest = report.iter().map(|seen| seen.slowest).max().unwrap_or_default();
    Ok(format!(
        "  both ends had at most {in_use} KiB of the pool (bound {}), the sender {registered} KiB registered; \
         beside it, {} round trips of at most {slowest:.0?}",
        MOST >> 10,
        report.iter().map(|seen| seen.round_trips).sum::<u64>()
    ))
}

fn check(seen: &Seen) -> Result<(), String> {
    let bounds = [
        (seen.in_use[0] <= MOST, "more of the pool than may be"),
        (seen.in_use[1] <= seen.in_use[0] + FRAME, "memory grows"),
        (seen.mapped <= MOST_MAPPED, "more is mapped than may be"),
        (seen.registered as usize <= seen.mapped + SENDERS * LONG, "more is registered than may be"),
        (seen.short >= TIME.as_secs() - 1 && seen.long >= TIME.as_secs() - 1, "not all was taken that could be"),
        (seen.slowest < Duration::from_millis(10), "other channels wait"),
    ];
    match bounds.iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err((*what).to_owned()),
        None => Ok(()),
    }
}

fn config() -> Config {
    Config {
        channel_window: WINDOW as u32,
        fetch_ahead: AHEAD as u32,
        frame_size: FRAME as u16,
        receive_depth: RECEIVES as u32,
        ..Config::default()
    }
}

fn run(seed: u64) -> Result<Seen, String> {
    let mut executor = Executor::new(Settings::new(seed));
    let (sender, receiver) = (executor.add_node("sender", false), executor.add_node("receiver", false));
    let seen = Rc::new(Cell::new(Seen::default()));
    executor.spawn(receiver, receive(Rc::clone(&seen)));
    executor.spawn(sender, send(Rc::clone(&seen)));
    executor.run().map_err(|ended| ended.why.clone())?;
    match executor.statistics().rnr {
        0 => Ok(seen.get()),
        rnr => Err(format!("{rnr} messages found no receive")),
    }
}

fn note(seen: &Cell<Seen>, change: impl FnOnce(&mut Seen)) {
    let mut changed = seen.get();
    change(&mut changed);
    seen.set(changed);
    note_progress();
}

async fn receive(seen: Rc<Cell<Seen>>) {
    let worker = Worker::new(config()).expect("valid");
    let listener = Listener::bind(&worker, "sim://receiver").await.expect("listens");
    let connection = listener.accept().await.expect("accepts");
    let channel = |id| connection.channel(id).expect("room");
    let short = take_slowly(channel(1), Rc::clone(&seen), |seen| seen.short += 1);
    let long = take_slowly(channel(2), Rc::clone(&seen), |seen| seen.long += 1);
    tokio::join!(short, long, echo(channel(3)));
}

async fn take_slowly(channel: Channel, seen: Rc<Cell<Seen>>, count: fn(&mut Seen)) {
    loop {
        sleep(PAUSE).await;
        match channel.recv().await {
            Ok(_) => note(&seen, count),
            Err(error) => return assert!(has_ended(error.kind()), "{error}"),
        }
    }
}

async fn echo(channel: Channel) {
    while let Ok(message) = channel.recv().await {
        if channel.send(&message).await.is_err() {
            break;
        }
    }
}

/// The connection was aborted.
fn has_ended(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Closed | ErrorKind::ConnectionBroken | ErrorKind::PeerClosed)
}

async fn send(seen: Rc<Cell<Seen>>) {
    let worker = Worker::new(config()).expect("valid");
    let connection = loop {
        match Connector::new(&worker).connect("sim://receiver").await {
            Ok(connection) => break connection,
            Err(_) => sleep(Duration::from_micros(50)).await,
        }
    };
    let tasks = RefCell::new(vec![spawn(send_on(connection.clone(), 1, SHORT))]);
    tasks.borrow_mut().extend((0..SENDERS).map(|_| spawn(send_on(connection.clone(), 2, LONG))));
    let beside = connection.channel(3).expect("room");
    let begun = now();
    while now() - begun < TIME {
        let asked = now();
        beside.send(b"there?").await.expect("sends");
        beside.recv().await.expect("receives");
        let (pool, round_trip) = (pool_statistics(), now() - asked);
        let half = usize::from(now() - begun > TIME / 2);
        note(&seen, |seen| {
            seen.in_use[half] = seen.in_use[half].max(pool.in_use_bytes);
            seen.mapped = seen.mapped.max(pool.mapped_bytes);
            seen.registered = seen.registered.max(registered("sender"));
            seen.round_trips += 1;
            seen.slowest = seen.slowest.max(round_trip);
        });
        sleep(Duration::from_millis(5)).await;
    }
    connection.abort();
    for task in tasks.into_inner() {
        task.await;
    }
}

async fn send_on(connection: Connection, channel: u32, length: usize) {
    let (channel, message) = (connection.channel(channel).expect("room"), vec![7; length]);
    loop {
        if let Err(error) = channel.send(&message).await {
            return assert!(has_ended(error.kind()), "{error}");
        }
    }
}
