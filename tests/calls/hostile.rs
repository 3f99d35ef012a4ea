//! Peers that send what no client and no server sends.

use zcmi::{ErrorKind, serve};

use super::{channels, client, soon};
use crate::common::{on_device, worker};

fn message(kind: u8, argument: u32, call: u64, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0], &argument.to_le_bytes()[..], &call.to_le_bytes(), payload].concat()
}

#[test]
fn a_malformed_message_ends_the_server_with_an_error_and_not_the_connection() {
    on_device(|address| async move {
        let (_, _, (near_end, far_end)) = channels(&worker(), &address).await;
        let hostile = [
            vec![],
            vec![1; 15],
            vec![0xff; 100],
            message(0, 0, 1, b""),
            message(1, 0, 0, b""),
            message(2, 0, 1, b"payload"),
            message(3, 0, 1, b""),
            message(6, 9, 0, b""),
            [message(1, 0, 5, b""), message(1, 0, 5, b"")].concat(),
        ];
        for (number, hostile) in hostile.into_iter().enumerate() {
            let [near, far] = [&near_end, &far_end].map(|end| end.channel(10 + number as u32).expect("a channel"));
            let serving = tokio::spawn(serve(far, 5, |(): ()| async move {
                std::future::pending::<()>().await;
                Ok::<_, String>(())
            }));
            assert_eq!(soon(near.recv()).await.expect("the window")[0], 6);
            if hostile.len() == 32 {
                // Two of one name.
                near.send(&hostile[..16]).await.expect("sends");
                near.send(&hostile[16..]).await.expect("sends");
            } else {
                near.send(&hostile).await.expect("sends");
            }
            let error = soon(serving).await.expect("no panic").expect_err("hostile");
            assert_eq!(error.kind(), ErrorKind::Protocol, "{number}: {error}");
            // The peer is told why.
            let told = soon(near.recv()).await.expect("receives");
            assert_eq!(told[0], 7);
            assert!(String::from_utf8_lossy(&told[16..]).contains("violated the protocol"), "{told:?}");
        }
        // A request that is no value is the call's own.
        let [near, far] = [&near_end, &far_end].map(|end| end.channel(5).expect("a channel"));
        tokio::spawn(serve(far, 5, |text: String| async move { Ok::<_, String>(text) }));
        near.send(&message(1, 0, 1, &[253, 1, 2])).await.expect("sends");
        assert_eq!(soon(near.recv()).await.expect("the window")[0], 6);
        assert_eq!(soon(near.recv()).await.expect("refused")[..9], message(5, 1, 1, b"")[..9]);
        soon(client(near).call::<_, String>("text")).await.expect("it goes on");
    });
}

#[test]
fn a_malformed_answer_ends_the_client_with_an_error_and_not_the_connection() {
    on_device(|address| async move {
        let (_, _, (near_end, far_end)) = channels(&worker(), &address).await;
        let hostile = [
            vec![],
            vec![3; 15],
            message(9, 0, 1, b""),
            message(1, 0, 1, b""),
            message(3, 7, 1, b""),
            message(3, 0, 99, b""),
            message(5, 77, 1, b""),
            message(6, 7, 1, b""),
        ];
        for (number, hostile) in hostile.into_iter().enumerate() {
            let [near, far] = [&near_end, &far_end].map(|end| end.channel(10 + number as u32).expect("a channel"));
            let client = client(near);
            let calls = (0..3).map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.call::<_, ()>(&()).await })
            });
            let calls: Vec<_> = calls.collect();
            for _ in 0..3 {
                assert_eq!(soon(far.recv()).await.expect("a request")[0], 1);
            }
            far.send(&hostile).await.expect("sends");
            for call in calls {
                let error = soon(call).await.expect("no panic").expect_err("hostile");
                assert_eq!(error.kind(), ErrorKind::Protocol, "{number}: {error}");
            }
            let error = soon(client.call::<_, ()>(&())).await.expect_err("it has ended");
            assert_eq!(error.kind(), ErrorKind::Protocol, "{number}: {error}");
        }
    });
}

#[test]
fn an_answer_to_a_call_that_was_given_up_is_ignored() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        let client = client(near);
        let given_up = tokio::spawn({
            let client = client.clone();
            async move { client.call::<_, u8>(&()).await }
        });
        let request = soon(far.recv()).await.expect("a request");
        let id = request[8];
        given_up.abort();
        assert_eq!(soon(far.recv()).await.expect("it is cancelled")[..], message(2, 0, id.into(), b""));
        // It was answered all the same; and the cancellation confirmed.
        far.send(&message(3, 0, id.into(), &[1])).await.expect("sends");
        far.send(&message(5, 5, id.into(), b"")).await.expect("sends");
        let next = tokio::spawn(async move { client.call::<_, u8>(&()).await });
        let request = soon(far.recv()).await.expect("a request");
        far.send(&message(3, 0, request[8].into(), &[2])).await.expect("sends");
        assert_eq!(soon(next).await.expect("the task succeeds").expect("its own answer"), 2);
    });
}
