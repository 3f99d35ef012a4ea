//! A world in which several nodes talk to one, made from a seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use zcmi::internals::simulation::{
    Ended, Executor, Fault, Faults, Planted, Settings, Statistics, Task, random, sleep, spawn,
};
use zcmi::{Connection, Connector, Listener, Worker};

use crate::ledger::Ledger;
use crate::session::{Actor, Session};
use crate::settings::config;
use crate::sizes::Sizes;

/// How a world ended.
pub(crate) struct Run {
    pub(crate) result: Result<(), Box<Ended>>,
    pub(crate) ledger: Rc<Ledger>,
    pub(crate) statistics: Statistics,
    pub(crate) hash: u64,
    pub(crate) time: u64,
    /// The last of what happened.
    pub(crate) trace: Vec<String>,
}

/// What is to be run.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Faults,
    pub(crate) is_faulty: bool,
    pub(crate) sizes: Sizes,
    pub(crate) planted: Option<Planted>,
    pub(crate) trace: usize,
}

impl Plan {
    /// Without faults for even seeds, with some for odd ones.
    pub(crate) fn of_seed(seed: u64) -> Self {
        let is_faulty = seed % 2 == 1;
        let faults = if is_faulty { some_faults(seed) } else { Faults::none() };
        Self { seed, faults, is_faulty, sizes: Sizes::of_seed(seed), planted: None, trace: 0 }
    }
}

/// How likely each fault is where it is chosen.
const RATES: &[(Fault, f64)] = &[
    (Fault::ConnectDelayed, 0.2),
    (Fault::ConnectLost, 0.1),
    (Fault::ConnectRefused, 0.1),
    (Fault::Death, 0.000_05),
    (Fault::DelaySpike, 0.01),
    (Fault::Flush, 0.000_1),
    (Fault::LostDisconnect, 0.3),
    (Fault::MuteDeath, 0.000_05),
    (Fault::PostRefused, 0.003),
    (Fault::QueueFull, 0.05),
    (Fault::ReceiveLost, 0.3),
    (Fault::Registration, 0.03),
    (Fault::Reorder, 0.05),
    (Fault::Rnr, 0.005),
    (Fault::SilentDeath, 0.000_05),
    (Fault::Stop, 0.000_1),
    (Fault::WindowRefused, 0.05),
    (Fault::WithheldFlush, 0.5),
];

/// All faults that can be.
pub(crate) fn faults() -> Vec<Fault> {
    RATES.iter().map(|(fault, _)| *fault).collect()
}

/// About a third of the faults.
fn some_faults(seed: u64) -> Faults {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    RATES.iter().fold(Faults::none(), |faults, &(fault, rate)| {
        bits = bits.rotate_left(7).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        if bits >> 32 & 3 == 0 { faults.with(fault, rate) } else { faults }
    })
}

/// What all tasks of a world have in common.
struct Shared {
    sessions: RefCell<BTreeMap<u64, Rc<Session>>>,
    next_session: Cell<u64>,
    is_faulty: bool,
    sizes: Sizes,
    ledger: Rc<Ledger>,
    clients_left: Cell<usize>,
    done: Notify,
}

/// Runs a world.
pub(crate) fn run(plan: Plan) -> Run {
    let settings =
        Settings { faults: plan.faults.clone(), planted: plan.planted, trace: plan.trace, ..Settings::new(plan.seed) };
    let mut executor = Executor::new(settings);
    let clients = 1 + plan.seed / 2 % 3;
    let shared = Rc::new(Shared {
        sessions: RefCell::default(),
        next_session: Cell::new(0),
        is_faulty: plan.is_faulty,
        sizes: plan.sizes,
        ledger: Rc::default(),
        clients_left: Cell::new(clients as usize),
        done: Notify::new(),
    });
    let server = executor.add_node("server", true);
    executor.spawn(server, serve(Rc::clone(&shared)));
    for number in 0..clients {
        let name = format!("client {number}");
        let client = executor.add_node(&name, true);
        let task = executor.spawn(client, connect_and_talk(Rc::clone(&shared)));
        // On the server, which learns when it is done or dead.
        let shared = Rc::clone(&shared);
        executor.spawn(server, async move {
            task.await;
            shared.clients_left.set(shared.clients_left.get() - 1);
            shared.done.notify_waiters();
        });
    }
    let result = executor.run();
    let (statistics, hash, time) = (executor.statistics(), executor.trace_hash(), executor.time());
    Run { result, ledger: Rc::clone(&shared.ledger), statistics, hash, time, trace: executor.trace() }
}

async fn serve(shared: Rc<Shared>) {
    let worker = Worker::new(config(shared.sizes)).expect("valid");
    let listener = Listener::bind(&worker, "sim://server").await.expect("nobody else listens there");
    let mut conversations: Vec<Task<()>> = Vec::new();
    while shared.clients_left.get() > 0 {
        let accepted = tokio::select! {
            biased;
            () = shared.done.notified() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => conversations.push(spawn(answer(Rc::clone(&shared), connection))),
            Err(error) => panic!("nothing can be accepted any more: {error}"),
        }
    }
    drop(listener);
    for conversation in conversations {
        conversation.await;
    }
}

/// The accepting end: the first message says which session it is.
async fn answer(shared: Rc<Shared>, connection: Connection) {
    match connection.recv().await {
        Ok(message) => {
            let id = u64::from_le_bytes(message[..].try_into().expect("the number of a session"));
            drop(message);
            let session = Rc::clone(&shared.sessions.borrow()[&id]);
            Actor::new(connection, &session, 1).converse().await;
        }
        Err(error) => assert!(shared.is_faulty, "the first message did not come: {error}"),
    }
}

async fn connect_and_talk(shared: Rc<Shared>) {
    let worker = Worker::new(config(shared.sizes)).expect("valid");
    for _ in 0..1 + random(3) {
        let begun = shared.ledger.begin("connect");
        let connected = Connector::new(&worker).connect("sim://server").await;
        begun.end();
        let session = Session::new(shared.next_session.get(), shared.is_faulty, shared.sizes, &shared.ledger);
        match connected {
            Ok(connection) => {
                shared.next_session.set(session.id + 1);
                shared.sessions.borrow_mut().insert(session.id, Rc::clone(&session));
                match connection.send(&session.id.to_le_bytes()).await {
                    Ok(()) => Actor::new(connection, &session, 0).converse().await,
                    Err(error) => session.tolerate("first send", &error),
                }
            }
            Err(error) => {
                session.tolerate("connect", &error);
                sleep(Duration::from_millis(random(100))).await;
            }
        }
    }
}
