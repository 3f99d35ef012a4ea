//! Clients and servers that go away.

use std::time::Duration;

use zcmi::{Channel, Connector, ErrorKind, serve};

use super::{Count, SOON, channels, client, soon, until};
use crate::common::{Peer, aside, baseline, device_address, listen, nothing_left, on_device, play, role, say, worker};

/// Serves calls whose handlers never end, and counts those that are there.
async fn never_answer(channel: Channel, count: Count) -> zcmi::Result<()> {
    serve(channel, 30, move |(): ()| {
        let one = count.one();
        async move {
            std::future::pending::<()>().await;
            drop(one);
            Ok::<_, String>(())
        }
    })
    .await
}

#[test]
fn all_open_calls_fail_at_once_when_the_server_goes() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Way {
        Stops,
        Closes,
        Drops,
    }
    on_device(|address| async move {
        for way in [Way::Stops, Way::Closes, Way::Drops] {
            let (near, far, (_near_end, far_end)) = channels(&worker(), &address).await;
            let count = Count::default();
            let counted = count.clone();
            let serving = tokio::spawn(never_answer(far, counted));
            let client = client(near);
            let calls: Vec<_> = (0..20)
                .map(|_| {
                    let client = client.clone();
                    tokio::spawn(async move { client.call::<_, ()>(&()).await })
                })
                .collect();
            until(|| count.now() == 20).await;
            match way {
                Way::Stops => serving.abort(),
                Way::Closes => far_end.close().await.expect("closes"),
                Way::Drops => {
                    serving.abort();
                    drop(far_end);
                }
            }
            for call in calls {
                let error = soon(call).await.expect("the task succeeds").expect_err("the server is gone");
                assert_eq!(error.kind(), ErrorKind::PeerClosed, "{way:?}: {error}");
                assert_eq!(error.to_string().contains("stopped serving"), way != Way::Closes, "{way:?}: {error}");
            }
            let error = soon(client.call::<_, ()>(&())).await.expect_err("still gone");
            assert_eq!(error.kind(), ErrorKind::PeerClosed, "{way:?}: {error}");
            until(|| count.now() == 0).await;
        }
    });
}

/// The server's process.
#[test]
fn peer() {
    if role().is_none() {
        return;
    }
    play(async {
        let worker = worker();
        let listener = listen(&worker, &device_address().expect("the test has found it")).await;
        say(listener.uri());
        let connection = listener.accept().await.expect("accepts");
        let serving = serve(connection.channel(1).expect("a channel"), 5, |(): ()| async move {
            say("called");
            std::future::pending::<()>().await;
            Ok::<_, String>(())
        });
        serving.await.expect("it ends well");
    });
}

#[test]
fn all_open_calls_fail_at_once_when_the_servers_process_is_killed() {
    on_device(|_| async move {
        let server = Peer::start_test("lost::peer", "server");
        let connection = Connector::new(&worker()).connect(&server.hear()).await.expect("connects");
        let client = client(connection.channel(1).expect("a channel"));
        let calls = [1, 2, 3].map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, ()>(&()).await })
        });
        let server = aside(move || {
            (0..3).for_each(|_| assert_eq!(server.hear(), "called"));
            server
        });
        server.await.kill();
        for call in calls {
            let error = soon(call).await.expect("the task succeeds").expect_err("the server is dead");
            assert_eq!(error.kind(), ErrorKind::ConnectionBroken, "{error}");
        }
        let error = soon(client.call::<_, ()>(&())).await.expect_err("still dead");
        assert_eq!(error.kind(), ErrorKind::ConnectionBroken, "{error}");
    });
}

#[test]
fn the_server_ends_when_the_client_goes() {
    on_device(|address| async move {
        // A handler that never ends, of a client that closes or is dropped.
        for closes in [true, false] {
            let (near, far, (near_end, _far_end)) = channels(&worker(), &address).await;
            let count = Count::default();
            let counted = count.clone();
            let serving = tokio::spawn(never_answer(far, counted));
            let client = client(near);
            let calling = tokio::spawn({
                let client = client.clone();
                async move { client.call::<_, ()>(&()).await }
            });
            until(|| count.now() == 1).await;
            if closes {
                near_end.close().await.expect("closes");
            } else {
                calling.abort();
                drop((client, near_end));
            }
            soon(serving).await.expect("the task succeeds").expect("it ends well");
            assert_eq!(count.now(), 0);
        }
    });
}

#[test]
fn what_was_asked_before_the_client_finished_is_still_answered() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        let serving = tokio::spawn(serve(far, 5, |number: u8| async move {
            tokio::time::sleep(Duration::from_millis(150)).await;
            Ok::<_, String>(number)
        }));
        assert_eq!(soon(near.recv()).await.expect("the window")[0], 6);
        near.send(&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 77]).await.expect("sends");
        near.finish().await.expect("finishes");
        assert_eq!(
            soon(near.recv()).await.expect("an answer")[..],
            [3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 77]
        );
        soon(serving).await.expect("the task succeeds").expect("it ends well");
        assert_eq!(soon(near.recv()).await.expect_err("the end").kind(), ErrorKind::PeerClosed);
    });
}

#[test]
fn a_call_to_nobody_ends_at_its_deadline() {
    on_device(|address| async move {
        let (near, _far, _connections) = channels(&worker(), &address).await;
        let client = client(near);
        let calls = (0..40).map(|_| client.call_timeout::<_, ()>(&(), Duration::from_millis(100)));
        for call in calls.map(Box::pin).collect::<Vec<_>>() {
            let error = tokio::time::timeout(SOON, call).await.expect("in time").expect_err("nobody serves");
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        }
    });
}

#[test]
fn clients_and_servers_that_go_leave_nothing_behind() {
    on_device(|address| async move {
        let worker = worker();
        let baseline = baseline(&worker, &address).await;
        for round in 0..6 {
            let (near, far, ends) = channels(&worker, &address).await;
            let serving = tokio::spawn(serve(far, 3, |waits: bool| async move {
                if waits {
                    std::future::pending::<()>().await;
                }
                Ok::<_, String>(())
            }));
            let client = client(near);
            let calls: Vec<_> = (0..5)
                .map(|_| {
                    let client = client.clone();
                    tokio::spawn(async move { client.call_timeout::<_, ()>(&true, 2 * SOON).await })
                })
                .collect();
            // Before or behind those that wait for ever.
            let _ = soon(client.call_timeout::<_, ()>(&false, Duration::from_millis(50))).await;
            match round % 3 {
                0 => serving.abort(),
                1 => ends.0.close().await.expect("closes"),
                _ => calls.iter().for_each(tokio::task::JoinHandle::abort),
            }
        }
        nothing_left(&baseline).await;
    });
}
