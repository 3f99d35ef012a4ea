//! Calls that are given up: by dropping them, by their deadline; and those that go on meanwhile.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use zcmi::{ErrorKind, serve};

use super::{Count, channels, client, soon, until};
use crate::common::{on_device, worker};

#[test]
fn dropping_a_call_drops_its_handler_and_lets_the_next_go_on() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        let count = Count::default();
        let counted = count.clone();
        // One at a time, and it never ends by itself.
        tokio::spawn(serve(far, 1, move |waits: bool| {
            let one = counted.one();
            async move {
                if waits {
                    std::future::pending::<()>().await;
                }
                drop(one);
                Ok::<_, String>(waits)
            }
        }));
        let client = client(near);
        for _ in 0..3 {
            let waiting = tokio::spawn({
                let client = client.clone();
                async move { client.call::<_, bool>(&true).await }
            });
            until(|| count.now() == 1).await;
            // As many wait behind it as the server takes, and some more.
            let behind: Vec<_> = (0..25)
                .map(|_| {
                    let client = client.clone();
                    tokio::spawn(async move { client.call::<_, bool>(&false).await })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(20)).await;
            waiting.abort();
            for call in behind {
                assert!(!soon(call).await.expect("the task succeeds").expect("it is answered"));
            }
            until(|| count.now() == 0).await;
        }
        assert_eq!(count.most(), 1);
    });
}

#[test]
fn the_client_of_a_server_that_is_dropped_before_it_is_polled_hears_of_it() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        drop(serve(far, 1, async |text: String| Ok::<_, String>(text)));
        let gone = soon(client(near).call::<_, String>("anybody?")).await.expect_err("nobody serves");
        assert_eq!(gone.kind(), ErrorKind::PeerClosed, "{gone}");
    });
}

#[test]
fn a_call_that_is_given_up_before_it_begins_is_not_begun() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        let count = Count::default();
        let counted = count.clone();
        tokio::spawn(serve(far, 1, move |milliseconds: u64| {
            let one = counted.one();
            async move {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                std::mem::forget(one);
                Ok::<_, String>(())
            }
        }));
        let client = client(near);
        let begun = Instant::now();
        let first = client.call::<_, ()>(&300u64);
        // It is in the server's queue when it is given up.
        let second = tokio::time::timeout(Duration::from_millis(100), client.call::<_, ()>(&0u64));
        let (first, second) = soon(async { tokio::join!(first, second) }).await;
        first.expect("an answer");
        second.expect_err("it waited behind the first");
        assert!(begun.elapsed() >= Duration::from_millis(300));
        soon(client.call::<_, ()>(&0u64)).await.expect("an answer");
        assert_eq!(count.now(), 2, "handlers that have begun");
    });
}

#[test]
fn a_deadline_ends_the_call_at_both_ends() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        let count = Count::default();
        let counted = count.clone();
        tokio::spawn(serve(far, 10, move |(): ()| {
            let one = counted.one();
            async move {
                std::future::pending::<()>().await;
                drop(one);
                Ok::<_, String>(())
            }
        }));
        let client = client(near);
        // The server is told whole milliseconds, and may be that much sooner to say that it is too late.
        let in_time = |begun: Instant, timeout: Duration| {
            let passed = begun.elapsed();
            passed + Duration::from_millis(1) >= timeout && passed < timeout + Duration::from_secs(2)
        };
        for milliseconds in [300, 100, 1, 0] {
            let (begun, timeout) = (Instant::now(), Duration::from_millis(milliseconds));
            let error = soon(client.call_timeout::<_, ()>(&(), timeout)).await.expect_err("too late");
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            assert!(in_time(begun, timeout), "{:?} of {timeout:?}", begun.elapsed());
        }
        // Several at once, each at its own time.
        let begun = Instant::now();
        let ended = [150, 50, 100].map(|milliseconds| {
            let client = client.clone();
            async move {
                let timeout = Duration::from_millis(milliseconds);
                client.call_timeout::<_, ()>(&(), timeout).await.expect_err("too late");
                assert!(in_time(begun, timeout), "{:?} of {timeout:?}", begun.elapsed());
            }
        });
        let [slow, quick, middle] = ended;
        soon(async { tokio::join!(slow, quick, middle) }).await;
        until(|| count.now() == 0).await;
    });
}

#[test]
fn the_server_keeps_the_deadline_of_a_client_that_does_not() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        let count = Count::default();
        let counted = count.clone();
        tokio::spawn(serve(far, 1, move |(): ()| {
            let one = counted.one();
            async move {
                std::future::pending::<()>().await;
                drop(one);
                Ok::<_, String>(())
            }
        }));
        // A request by hand, with 50 ms left; and one that waits behind it.
        for call in 1..=2u8 {
            near.send(&[1, 0, 0, 0, 50 * call, 0, 0, 0, call, 0, 0, 0, 0, 0, 0, 0]).await.expect("sends");
        }
        assert_eq!(soon(near.recv()).await.expect("the window")[0], 6);
        for call in 1..=2 {
            let refused = soon(near.recv()).await.expect("receives");
            assert_eq!(refused[..], [5, 0, 0, 0, 3, 0, 0, 0, call, 0, 0, 0, 0, 0, 0, 0]);
        }
        assert_eq!(count.now(), 0);
    });
}

#[test]
fn a_call_that_nobody_polls_keeps_no_other_waiting() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        tokio::spawn(serve(far, 10, |number: u64| async move { Ok::<_, String>(number) }));
        let client = client(near);
        for round in 0..20 {
            // Polled once, so that it receives for all; then left alone, but kept.
            let mut kept = pin!(client.call::<_, u64>(&round));
            assert!(kept.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(soon(client.call::<_, u64>(&(round + 1))).await.expect("an answer"), round + 1);
            assert_eq!(soon(kept).await.expect("an answer"), round);
            // And one that is dropped hands over.
            let mut dropped = Box::pin(client.call::<_, u64>(&round));
            assert!(dropped.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            let other = tokio::spawn({
                let client = client.clone();
                async move { client.call::<_, u64>(&7u64).await }
            });
            tokio::task::yield_now().await;
            drop(dropped);
            assert_eq!(soon(other).await.expect("the task succeeds").expect("an answer"), 7);
        }
    });
}

#[test]
fn calls_are_given_up_at_random_and_the_others_are_answered() {
    let Some(address) = crate::common::device_address() else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (near, far, _connections) = channels(&worker(), &address).await;
        let count = Count::default();
        let counted = count.clone();
        tokio::spawn(serve(far, 8, move |(microseconds, number): (u64, u64)| {
            let one = counted.one();
            async move {
                tokio::time::sleep(Duration::from_micros(microseconds)).await;
                drop(one);
                Ok::<_, String>(number)
            }
        }));
        let client = client(near);
        let tasks: Vec<_> = (0..8u64)
            .map(|task| {
                let client = client.clone();
                tokio::spawn(async move {
                    let mut answered = 0;
                    for round in 0..60u64 {
                        let number = task * 1000 + round;
                        let (work, patience) = (number * 7919 % 4000, number * 104_729 % 9000);
                        let request = (work, number);
                        let call = client.call::<_, u64>(&request);
                        match tokio::time::timeout(Duration::from_micros(patience), call).await {
                            Ok(answer) => {
                                assert_eq!(answer.expect("an answer"), number);
                                answered += 1;
                            }
                            Err(_) => continue,
                        }
                    }
                    answered
                })
            })
            .collect();
        for task in tasks {
            let _answered: i32 =
                tokio::time::timeout(Duration::from_secs(60), task).await.expect("in time").expect("no panic");
        }
        assert_eq!(soon(client.call::<_, u64>(&(0u64, 5u64))).await.expect("an answer"), 5);
        until(|| count.now() == 0).await;
        assert!(count.most() <= 8);
    });
}
