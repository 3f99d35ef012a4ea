//! Calls, many at once on one client, whose server lives through all of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use zcmi::internals::simulation::{Task, now, random, sleep, spawn};
use zcmi::{ApplicationError, Bincode, CallOptions, Client, ErrorKind, serve};

use super::ends::{End, Ends, bytes, world_on};
use super::{Boxed, Case, Round};

/// Handlers at once: fewer than calls of a round.
pub(super) const LIMIT: usize = 4;
/// More calls at once than a server takes that handles so many: the last wait until they may send.
pub(super) const CROWD: usize = 22;
/// Handlers of this number never end.
pub(super) const ENDLESS: u64 = u64::MAX;

/// A case that calls; answers what was answered.
macro_rules! calls {
    ($names:expr, $call:expr) => {
        Case {
            names: $names,
            world: |executor, cut| {
                world_on(
                    executor,
                    cut,
                    Called::new,
                    |called, round| Box::pin(calling(called, round, $call)),
                    Called::end,
                )
            },
        }
    };
}

pub(super) const CASES: &[Case] = &[
    calls!(&["Client::call"], async |client: Client, request: Request| client.call(&request).await),
    calls!(&["Client::call_timeout"], async |client: Client, request: Request| {
        client.call_timeout(&request, patience(&request)).await
    }),
    calls!(&["Client::call_with"], async |client: Client, request: Request| {
        let options = match request.0 % 2 {
            0 => CallOptions::default().timeout(patience(&request)),
            _ => CallOptions::default().deadline(now() + patience(&request)),
        };
        client.call_with(&Bincode::default(), &request, options).await
    }),
    // By its deadline.
    Case {
        names: &["Client::call_timeout"],
        world: |executor, cut| {
            world_on(executor, cut, Called::new, |called, _| Box::pin(std::future::ready(late(called))), Called::end)
        },
    },
];

/// A number, and bytes that are its own.
pub(super) type Request = (u64, Vec<u8>);

fn patience(_: &Request) -> Duration {
    Duration::from_secs(60)
}

/// A request whose answer is as long as it is.
pub(super) fn request(number: u64, length: usize) -> Request {
    (number, bytes(number, length))
}

/// Those that are being handled.
#[derive(Clone, Default)]
pub(super) struct Handlers(Rc<Cell<usize>>);

struct Handler(Handlers);

impl Drop for Handler {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

impl Handlers {
    /// The answer to a request, after some time.
    pub(super) async fn answer(self, (number, says): Request) -> Result<Vec<u8>, ApplicationError> {
        self.0.set(self.0.get() + 1);
        assert!(self.0.get() <= LIMIT, "there are more handlers than there may be");
        let _handler = Handler(self);
        if number == ENDLESS {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_micros(random(40))).await;
        assert!(says == bytes(number, says.len()), "other bytes have come");
        Ok(bytes(number + 1, says.len()))
    }

    pub(super) fn count(&self) -> usize {
        self.0.get()
    }

    /// They end soon.
    pub(super) async fn end(&self) {
        let begun = now();
        while self.count() > 0 {
            assert!(now() - begun < Duration::from_secs(1), "{} handlers of calls that are gone go on", self.count());
            sleep(Duration::from_micros(10)).await;
        }
    }
}

/// A client and its server.
#[derive(Clone)]
struct Called {
    client: Client,
    handlers: Handlers,
    served: Rc<RefCell<Option<Task<()>>>>,
}

impl Called {
    fn new(ends: &Ends) -> Self {
        let channel = |end: &End| end.connection.channel(9).expect("room");
        let (handlers, server) = (Handlers::default(), channel(&ends.far));
        let by = handlers.clone();
        let served = spawn(async move {
            serve(server, LIMIT, |request: Request| by.clone().answer(request)).await.expect("the client ends it");
        });
        Self { client: Client::new(channel(&ends.near)), handlers, served: Rc::new(RefCell::new(Some(served))) }
    }

    /// The server goes when the client has gone.
    fn end(self) -> Boxed {
        Box::pin(async move {
            let Self { client, handlers, served } = self;
            join_all((0..CROWD as u64).map(|number| answered(client.clone(), number))).await;
            // What was given up has its place back when its answer is received; or that is due when the client goes.
            let (begun, waits) = (now(), random(2) == 0);
            while waits && !format!("{client:?}").contains("open: 0, unanswered: 0,") {
                assert!(now() - begun < Duration::from_secs(1), "a call is left: {client:?}");
                answered(client.clone(), 900).await;
            }
            drop(client);
            let served = served.take().expect("one ends it");
            served.await.expect("alive");
            assert_eq!(handlers.count(), 0);
        })
    }
}

/// A call that is not given up is answered.
async fn answered(client: Client, number: u64) {
    let request = request(number, 80);
    let answer: Vec<u8> = client.call(&request).await.expect("an answer");
    assert!(answer == bytes(number + 1, 80), "another answer");
}

/// How many calls, and how long, in a round: some wait until they may send, some are longer than a frame.
fn calls_of(round: u64) -> (usize, usize) {
    [(1, 70), (3, 9_000), (CROWD, 70)][round as usize % 3]
}

/// Calls of which all are dropped at once, while others go on that somebody else waits for, and perhaps receives for all.
async fn calling<F: Future<Output = zcmi::Result<Vec<u8>>> + 'static>(
    called: Called,
    round: u64,
    call: impl Fn(Client, Request) -> F + 'static,
) -> Round {
    let others: Vec<_> = (0..3).map(|other| spawn(answered(called.client.clone(), 500 + other))).collect();
    // They may be the first.
    sleep(Duration::from_micros(random(20))).await;
    let (count, length) = calls_of(round);
    let client = called.client.clone();
    let future = async move {
        let numbers = (0..count as u64).map(|number| 1_000 * round + number);
        let answers = join_all(numbers.map(|number| {
            let answer = call(client.clone(), request(number, length));
            async move { (number, answer.await) }
        }));
        for (number, answer) in answers.await {
            assert!(answer.expect("an answer") == bytes(number + 1, length), "another answer");
        }
    };
    Round::new(future, move |_| async move {
        for other in others {
            other.await.expect("alive");
        }
        answered(called.client, 700 + round).await;
        called.handlers.end().await;
    })
}

/// Calls whose handlers would never end: their time is over, or they are dropped.
fn late(called: Called) -> Round {
    let client = called.client.clone();
    let future = async move {
        let late = join_all((0..1 + random(2 * LIMIT as u64)).map(|_| {
            let client = client.clone();
            async move {
                let (begun, patience) = (now(), Duration::from_micros(20 + random(200)));
                let late = client.call_timeout::<_, Vec<u8>>(&(ENDLESS, Vec::<u8>::new()), patience).await;
                assert_eq!(late.expect_err("its time is over").kind(), ErrorKind::TimedOut);
                // To the millisecond: that is what the server is told of it.
                assert!(now() - begun < patience + Duration::from_millis(2), "it is late by {:?}", now() - begun);
            }
        }));
        drop(late.await);
    };
    Round::new(future, move |_| async move {
        answered(called.client, 700).await;
        called.handlers.end().await;
    })
}
