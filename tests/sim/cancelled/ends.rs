//! Two ends of a connection, both in one hand, and what they must still be able to do.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use zcmi::internals::simulation::{Executor, Task, random, sleep, spawn};
use zcmi::{
    Access, Buffer, Channel, Config, Connection, Connector, ErrorKind, ExposedBuffer, Grant, Listener, ReceiveHalf,
    RemoteBuffer, SendHalf, Worker,
};

use super::{Boxed, Cut, ROUNDS, Round};
use crate::pattern;

/// The channel beside channel 0.
const BESIDE: u32 = 5;
/// Bytes that each end has granted to the other.
pub(super) const GRANTED: usize = 4_096;

/// One end, by each way to it.
#[derive(Clone)]
pub(super) struct End {
    pub(super) connection: Connection,
    pub(super) channel: Channel,
    pub(super) sends: SendHalf,
    pub(super) receives: ReceiveHalf,
    /// What the other end has granted, and what is granted to it.
    pub(super) remote: RemoteBuffer,
    pub(super) exposed: Rc<ExposedBuffer>,
    _grant: Rc<Grant>,
}

#[derive(Clone)]
pub(super) struct Ends {
    pub(super) near: End,
    pub(super) far: End,
}

/// Small enough that a few messages fill them.
pub(super) fn config() -> Config {
    Config { channel_window: 600, receive_depth: 4, send_depth: 16, frame_size: 512, ..Config::default() }
}

/// Runs rounds, each with its number, and sees to it that the connection is none the worse for them.
pub(super) fn world(executor: &mut Executor, cut: Cut, round: fn(Ends, u64) -> Boxed<Round>) -> Rc<Cell<u64>> {
    world_on(executor, cut, Ends::clone, round, |_| Box::pin(std::future::ready(())))
}

/// The same for what is built on the connection once for all rounds, and ends after them.
pub(super) fn world_on<S: Clone + 'static>(
    executor: &mut Executor,
    cut: Cut,
    build: fn(&Ends) -> S,
    round: fn(S, u64) -> Boxed<Round>,
    end: fn(S) -> Boxed,
) -> Rc<Cell<u64>> {
    in_world(executor, move |ends, dropped| async move {
        let built = build(&ends);
        for number in 0..ROUNDS {
            let round = round(built.clone(), number).await;
            dropped.set(dropped.get() + u64::from(round.run(cut).await));
        }
        end(built).await;
        ends.carry().await;
        let Ends { near, far } = ends;
        let (closed, ended) = tokio::join!(near.connection.close(), far.connection.recv());
        closed.expect("it closes");
        assert_eq!(ended.expect_err("it has closed").kind(), ErrorKind::PeerClosed);
    })
}

/// The same for what ends the connection.
pub(super) fn last_world(executor: &mut Executor, cut: Cut, round: fn(Ends) -> Boxed<Round>) -> Rc<Cell<u64>> {
    in_world(executor, move |ends, dropped| async move {
        let round = round(ends).await;
        dropped.set(u64::from(round.run(cut).await));
    })
}

fn in_world<F: Future<Output = ()> + 'static>(
    executor: &mut Executor,
    program: impl FnOnce(Ends, Rc<Cell<u64>>) -> F + 'static,
) -> Rc<Cell<u64>> {
    let dropped = Rc::new(Cell::new(0));
    let (near, far) = (executor.add_node("near", false), executor.add_node("far", false));
    let (hand_over, accepted) = oneshot::channel();
    executor.spawn(far, async move {
        let worker = Worker::new(config()).expect("valid");
        let listener = Listener::bind(&worker, "sim://far").await.expect("listens");
        assert!(hand_over.send(listener.accept().await.expect("accepts")).is_ok());
    });
    let count = Rc::clone(&dropped);
    executor.spawn(near, async move {
        let worker = Worker::new(config()).expect("valid");
        let connected = connect(&worker, "sim://far").await;
        let ends = Ends::new(connected, accepted.await.expect("it has accepted")).await;
        program(ends, count).await;
    });
    dropped
}

/// Connects as soon as somebody listens.
pub(super) async fn connect(worker: &Worker, address: &str) -> Connection {
    loop {
        match Connector::new(worker).connect(address).await {
            Ok(connection) => return connection,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => sleep(Duration::from_micros(50)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Ends {
    async fn new(near: Connection, far: Connection) -> Self {
        let (near_grant, near_exposed) = grant(&near).await;
        let (far_grant, far_exposed) = grant(&far).await;
        let (near_remote, far_remote) = (far_grant.remote_buffer(), near_grant.remote_buffer());
        Self {
            near: End::new(near, near_remote, near_exposed, near_grant),
            far: End::new(far, far_remote, far_exposed, far_grant),
        }
    }

    /// Messages go both ways on both channels, short and long, in order and with their bytes.
    async fn carry(&self) {
        for (number, lane) in [0, 1].into_iter().enumerate() {
            let (near, far) = (self.near.lane(lane), self.far.lane(lane));
            let number = number as u64;
            tokio::join!(say(&near, number), hear(&far, number), say(&far, 10 + number), hear(&near, 10 + number));
        }
    }
}

impl End {
    fn new(connection: Connection, remote: RemoteBuffer, exposed: Rc<ExposedBuffer>, grant: Grant) -> Self {
        let channel = connection.channel(BESIDE).expect("room");
        let (sends, receives) = connection.clone().split();
        Self { connection, channel, sends, receives, remote, exposed, _grant: Rc::new(grant) }
    }

    /// The channel that the way of a round goes on: by the connection, by a channel, by a half.
    pub(super) fn lane(&self, round: u64) -> Channel {
        if round % 3 == 1 { self.channel.clone() } else { self.connection.channel(0).expect("it is there") }
    }

    /// Receives on a lane until `last` comes, from some time on; answers all before it.
    pub(super) fn collect(&self, round: u64, last: Vec<u8>) -> Task<Vec<Vec<u8>>> {
        let lane = self.lane(round);
        spawn(async move {
            sleep(Duration::from_micros(random(60))).await;
            let mut all = Vec::new();
            loop {
                let message = lane.recv().await.expect("receives").to_vec();
                if message == last {
                    return all;
                }
                all.push(message);
            }
        })
    }
}

async fn grant(to: &Connection) -> (Grant, Rc<ExposedBuffer>) {
    let mut buffer = Buffer::allocate(GRANTED).expect("memory");
    buffer.fill(0);
    let exposed = buffer.expose();
    let grant = exposed.grant(to, 0..GRANTED, Access::ALL).await.expect("grants");
    (grant, Rc::new(exposed))
}

const LENGTHS: [usize; 12] = [0, 1, 9, 400, 100, 100, 3_000, 100, 70_000, 1, 490, 600];

async fn say(lane: &Channel, number: u64) {
    for (place, length) in LENGTHS.into_iter().enumerate() {
        lane.send(&bytes(1_000 * number + place as u64, length)).await.expect("sends");
    }
}

async fn hear(lane: &Channel, number: u64) {
    for (place, length) in LENGTHS.into_iter().enumerate() {
        let message = lane.recv().await.expect("receives");
        assert!(message[..] == bytes(1_000 * number + place as u64, length), "message {place} of {number} is another");
    }
}

/// Bytes that tell what they are.
pub(super) fn bytes(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    pattern::fill(77, number, &mut bytes);
    bytes
}

/// What somebody has got.
pub(super) type Got<T> = Rc<RefCell<Option<T>>>;
