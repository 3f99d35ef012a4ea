//! Servers that go while they serve: who calls hears of it, and no handler goes on.

use std::time::Duration;

use futures_util::future::join_all;
use zcmi::internals::simulation::{random, sleep, spawn};
use zcmi::{Bincode, Channel, Client, ErrorKind, serve, serve_with};

use super::calls::{CROWD, ENDLESS, Handlers, LIMIT, Request, request};
use super::ends::{Ends, bytes, world};
use super::{Boxed, Case, Round};

/// A case that serves.
macro_rules! serves {
    ($names:expr, $serve:expr) => {
        Case {
            names: $names,
            world: |executor, cut| {
                world(executor, cut, |ends, round| Box::pin(std::future::ready(serving(ends, round, $serve))))
            },
        }
    };
}

pub(super) const CASES: &[Case] = &[
    serves!(&["serve"], |channel: Channel, by: Handlers| -> Boxed<zcmi::Result<()>> {
        Box::pin(serve(channel, LIMIT, move |request: Request| by.clone().answer(request)))
    }),
    serves!(&["serve_with"], |channel: Channel, by: Handlers| -> Boxed<zcmi::Result<()>> {
        let answer = move |request: Request| by.clone().answer(request);
        Box::pin(serve_with(channel, Bincode::default(), LIMIT, answer))
    }),
];

/// A client that ends when all that it has called for is answered, given up or refused.
fn serving(ends: Ends, round: u64, serve: impl Fn(Channel, Handlers) -> Boxed<zcmi::Result<()>>) -> Round {
    let id = 20 + round as u32;
    let (near, far) = (ends.near.connection.channel(id).expect("room"), ends.far.connection.channel(id).expect("room"));
    let calling = spawn(async move {
        sleep(Duration::from_micros(random(60))).await;
        let client = Client::new(far);
        let count = [2, CROWD as u64][round as usize % 2];
        let calls = join_all((0..count).map(|number| call(client.clone(), number)));
        let given_up = async {
            let endless = (ENDLESS, Vec::new());
            tokio::select! {
                biased;
                answered = client.call::<Request, Vec<u8>>(&endless) => {
                    assert_eq!(answered.expect_err("it never ends").kind(), ErrorKind::PeerClosed);
                }
                () = sleep(Duration::from_micros(random(200))) => {}
            }
        };
        tokio::join!(calls, given_up).0
    });
    let handlers = Handlers::default();
    let serving = serve(near, handlers.clone());
    let future = async move { serving.await.expect("the client ends it") };
    Round::new(future, move |has_ended| async move {
        assert_eq!(handlers.count(), 0, "a handler is left");
        let answered = calling.await.expect("alive");
        assert!(!has_ended || answered.iter().all(|answered| *answered), "it has ended before its calls");
    })
}

/// Whether a call is answered; else it has heard that the server is gone.
async fn call(client: Client, number: u64) -> bool {
    let length = [70, 9_000][number as usize % 2];
    match client.call::<_, Vec<u8>>(&request(number, length)).await {
        Ok(answer) => {
            assert!(answer == bytes(number + 1, length), "another answer");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::PeerClosed, "{error}");
            false
        }
    }
}
