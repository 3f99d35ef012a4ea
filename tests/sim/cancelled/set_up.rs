//! Listening, connecting, accepting, shutting down.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use zcmi::internals::simulation::{Executor, Task, random, sleep, spawn};
use zcmi::{Connection, Connector, Listener, Worker};

use super::ends::{Got, config, connect};
use super::{Case, Cut, ROUNDS, Round};

pub(super) const CASES: &[Case] = &[
    Case {
        names: &["Connector::connect"],
        world: |executor, cut| {
            connecting(executor, cut, async |connector: Connector| connector.connect("sim://far").await)
        },
    },
    Case {
        names: &["Connector::connect_with"],
        world: |executor, cut| {
            connecting(executor, cut, async |connector: Connector| connector.connect_with("sim://far", b"hello").await)
        },
    },
    Case { names: &["Listener::accept"], world: accepting },
    Case { names: &["Listener::bind"], world: binding },
    Case { names: &["Listener::shutdown"], world: shutting_down },
];

/// Answers what comes until the connection ends, however it does.
async fn echo(connection: Connection) {
    while let Ok(message) = connection.recv().await {
        if connection.send(&message).await.is_err() {
            return;
        }
    }
}

async fn is_answered(connection: Connection) {
    connection.send(b"are you there").await.expect("sends");
    assert_eq!(connection.recv().await.expect("receives")[..], *b"are you there");
    connection.close().await.expect("closes");
}

/// Those whose peers have given up are accepted or not; the next is.
fn connecting<F: Future<Output = zcmi::Result<Connection>> + 'static>(
    executor: &mut Executor,
    cut: Cut,
    connect_once: impl Fn(Connector) -> F + 'static,
) -> Rc<Cell<u64>> {
    let dropped = Rc::new(Cell::new(0));
    let (near, far) = (executor.add_node("near", false), executor.add_node("far", false));
    let (done, mut is_done) = oneshot::channel::<()>();
    executor.spawn(far, async move {
        let worker = Worker::new(config()).expect("valid");
        let listener = Listener::bind(&worker, "sim://far").await.expect("listens");
        let mut conversations: Vec<Task<()>> = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = &mut is_done => break,
                accepted = listener.accept() => conversations.push(spawn(echo(accepted.expect("accepts")))),
            }
        }
        for conversation in conversations {
            conversation.await;
        }
    });
    let count = Rc::clone(&dropped);
    executor.spawn(near, async move {
        let worker = Worker::new(config()).expect("valid");
        // Until somebody listens.
        is_answered(connect(&worker, "sim://far").await).await;
        for _ in 0..ROUNDS {
            let got = Got::<Connection>::default();
            let (to, connected) = (Rc::clone(&got), connect_once(Connector::new(&worker)));
            let future = async move { *to.borrow_mut() = Some(connected.await.expect("connects")) };
            let worker = worker.clone();
            let round = Round::new(future, move |has_ended| async move {
                let connected = got.take();
                assert_eq!(connected.is_some(), has_ended);
                if let Some(connection) = connected {
                    is_answered(connection).await;
                }
                is_answered(connect(&worker, "sim://far").await).await;
            });
            count.set(count.get() + u64::from(round.run(cut).await));
        }
        done.send(()).expect("it waits");
    });
    dropped
}

/// Who accepts goes, and no peer is lost.
fn accepting(executor: &mut Executor, cut: Cut) -> Rc<Cell<u64>> {
    let dropped = Rc::new(Cell::new(0));
    let (near, far) = (executor.add_node("near", false), executor.add_node("far", false));
    executor.spawn(far, async move {
        let worker = Worker::new(config()).expect("valid");
        for _ in 0..ROUNDS {
            is_answered(connect(&worker, "sim://near").await).await;
        }
    });
    let count = Rc::clone(&dropped);
    executor.spawn(near, async move {
        let worker = Worker::new(config()).expect("valid");
        let listener = Rc::new(Listener::bind(&worker, "sim://near").await.expect("listens"));
        for _ in 0..ROUNDS {
            let got = Got::<Connection>::default();
            let (to, accepting) = (Rc::clone(&got), Rc::clone(&listener));
            let future = async move {
                let accepted = accepting.accept().await.expect("accepts");
                *to.borrow_mut() = Some(accepted);
            };
            let listener = Rc::clone(&listener);
            let round = Round::new(future, move |_| async move {
                let accepted = match got.take() {
                    Some(accepted) => accepted,
                    None => listener.accept().await.expect("accepts"),
                };
                echo(accepted).await;
            });
            count.set(count.get() + u64::from(round.run(cut).await));
        }
    });
    dropped
}

/// The address is free again.
fn binding(executor: &mut Executor, cut: Cut) -> Rc<Cell<u64>> {
    let dropped = Rc::new(Cell::new(0));
    let near = executor.add_node("near", false);
    let count = Rc::clone(&dropped);
    executor.spawn(near, async move {
        let worker = Worker::new(config()).expect("valid");
        for _ in 0..ROUNDS {
            let (binding, again) = (worker.clone(), worker.clone());
            let future = async move { drop(Listener::bind(&binding, "sim://near").await.expect("listens")) };
            let round = Round::new(future, move |_| async move {
                drop(Listener::bind(&again, "sim://near").await.expect("the address is free"));
            });
            count.set(count.get() + u64::from(round.run(cut).await));
        }
    });
    dropped
}

/// While a peer connects: it is refused, or a connection that somebody gets.
fn shutting_down(executor: &mut Executor, cut: Cut) -> Rc<Cell<u64>> {
    let dropped = Rc::new(Cell::new(0));
    let (near, far) = (executor.add_node("near", false), executor.add_node("far", false));
    let (done, mut is_done) = oneshot::channel::<()>();
    executor.spawn(far, async move {
        let worker = Worker::new(config()).expect("valid");
        loop {
            let connector = Connector::new(&worker);
            tokio::select! {
                biased;
                _ = &mut is_done => break,
                connected = connector.connect("sim://near") => match connected {
                    Ok(connection) => drop(connection.recv().await.map(drop)),
                    Err(_) => sleep(Duration::from_micros(20)).await,
                },
            }
        }
    });
    let count = Rc::clone(&dropped);
    executor.spawn(near, async move {
        let worker = Worker::new(config()).expect("valid");
        for _ in 0..ROUNDS {
            let listener = Rc::new(Listener::bind(&worker, "sim://near").await.expect("the address is free"));
            // Somebody is in set-up.
            tokio::select! {
                biased;
                accepted = listener.accept() => drop(accepted.expect("accepts")),
                () = sleep(Duration::from_micros(random(80))) => {}
            }
            let ending = Rc::clone(&listener);
            let future = async move { drop(ending.shutdown().await) };
            let round = Round::new(future, move |_| async move {
                drop(listener.shutdown().await);
                assert_eq!(listener.accept().await.expect_err("it is shut").kind(), zcmi::ErrorKind::Closed);
            });
            count.set(count.get() + u64::from(round.run(cut).await));
        }
        done.send(()).expect("it waits");
    });
    dropped
}
