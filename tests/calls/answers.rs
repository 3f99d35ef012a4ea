//! What comes back: responses in any order, errors as values, panics, what is no value.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zcmi::{ApplicationError, CallOptions, Codec, CodecError, Config, ErrorKind, Worker, serve, serve_with};

use super::{channels, client, soon};
use crate::common::{on_device, pattern, worker};

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Sleep { milliseconds: u64, answer: u64 },
    Fail(u32, String),
    Panic,
}

async fn handle(request: Request) -> Result<u64, ApplicationError> {
    match request {
        Request::Sleep { milliseconds, answer } => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            Ok(answer)
        }
        Request::Fail(code, text) => Err(ApplicationError::new(code, text)),
        Request::Panic => panic!("on purpose"),
    }
}

#[test]
fn many_calls_at_once_each_get_their_own_response_in_any_order() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        let serving = tokio::spawn(serve(far, 50, handle));
        let client = client(near);
        let calls: Vec<_> = (0..200u64)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    // The first ones take longest.
                    let request = Request::Sleep { milliseconds: 40 - number % 40, answer: number * 3 };
                    let answer: u64 = client.call(&request).await.expect("an answer");
                    assert_eq!(answer, number * 3);
                })
            })
            .collect();
        for call in calls {
            soon(call).await.expect("the call succeeds");
        }
        // The last handle of the client ends the server.
        drop(client);
        soon(serving).await.expect("the task succeeds").expect("it ends well");
    });
}

#[test]
fn an_error_of_the_handler_travels_as_a_value_and_a_panic_takes_nobody_down() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        let serving = tokio::spawn(serve(far, 5, handle));
        let client = client(near);
        for round in 0..3 {
            let failing = Request::Fail(round, "so it is".to_owned());
            let error = soon(client.call::<_, u64>(&failing)).await.expect_err("the handler's");
            assert_eq!(error.kind(), ErrorKind::Application, "{error}");
            let reason = error.application().expect("the value");
            assert_eq!((reason.code(), reason.text()), (round, "so it is"));
            assert_eq!(error.peer(), Some(client.channel().connection().peer()));

            let error = soon(client.call::<_, u64>(&Request::Panic)).await.expect_err("a panic");
            assert_eq!(error.kind(), ErrorKind::Panicked, "{error}");
            assert!(error.application().is_none());
        }
        let answer: u64 = soon(client.call(&Request::Sleep { milliseconds: 0, answer: 5 })).await.expect("it goes on");
        assert_eq!(answer, 5);
        drop(client);
        soon(serving).await.expect("the task succeeds").expect("it ends well");
    });
}

#[test]
fn a_panic_before_the_future_or_while_decoding_is_the_calls_own() {
    #[derive(Debug, Serialize)]
    struct Trap(bool);
    impl<'de> Deserialize<'de> for Trap {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let is_armed = bool::deserialize(deserializer)?;
            assert!(!is_armed, "on purpose");
            Ok(Self(is_armed))
        }
    }
    impl Drop for Trap {
        fn drop(&mut self) {}
    }
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        tokio::spawn(serve(far, 5, |trap: (Trap, bool)| {
            assert!(!trap.1, "on purpose");
            async move { Ok::<_, String>(7) }
        }));
        let client = client(near);
        for trap in [(Trap(true), false), (Trap(false), true)] {
            let error = soon(client.call::<_, i32>(&trap)).await.expect_err("a panic");
            assert_eq!(error.kind(), ErrorKind::Panicked, "{error}");
        }
        assert_eq!(soon(client.call::<_, i32>(&(Trap(false), false))).await.expect("it goes on"), 7);
    });
}

#[test]
fn long_requests_and_responses_do_not_block_each_other() {
    on_device(|address| async move {
        let settings = Config { receive_depth: 2, ..Config::default() };
        let (near, far, _connections) = channels(&Worker::new(settings).expect("valid"), &address).await;
        tokio::spawn(serve(far, 30, |mut bytes: Vec<u8>| async move {
            bytes.reverse();
            Ok::<_, String>(bytes)
        }));
        let client = client(near);
        let calls: Vec<_> = (0..10u64)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    let mut bytes = pattern(1, number, 40_000);
                    let reversed: Vec<u8> = client.call(&bytes).await.expect("an answer");
                    bytes.reverse();
                    assert!(reversed == bytes, "call {number}");
                })
            })
            .collect();
        for call in calls {
            soon(call).await.expect("the call succeeds");
        }
        let large = pattern(2, 2, 500_000);
        let answer: Vec<u8> = soon(client.call(&large)).await.expect("an answer");
        assert!(answer.iter().rev().eq(large.iter()));
    });
}

struct Json;

impl Codec for Json {
    fn encode<T: Serialize + ?Sized>(&self, value: &T, out: impl std::io::Write) -> Result<(), CodecError> {
        Ok(serde_json::to_writer(out, value)?)
    }

    fn decode<'de, T: Deserialize<'de>>(&self, bytes: &'de [u8]) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

#[test]
fn other_codecs_and_values_that_are_none() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        tokio::spawn(serve_with(far, Json, 5, |key: String| async move {
            // JSON has no such keys.
            let keys = if key == "long" { vec![vec![1]] } else { vec![] };
            Ok::<_, String>(
                keys.into_iter().map(|wrong| (wrong, key.clone())).collect::<std::collections::HashMap<_, _>>(),
            )
        }));
        let client = client(near);
        let options = CallOptions::default().timeout(super::SOON);
        let error = client.call_with::<_, Vec<u8>>(&Json, &7, options).await.expect_err("not a text");
        assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
        assert!(error.to_string().contains("the server cannot decode the request: invalid type: integer"), "{error}");
        let error = client.call_with::<_, Vec<u8>>(&Json, "long", options).await.expect_err("not JSON");
        assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
        assert!(error.to_string().contains("the server cannot encode its response"), "{error}");
        let error = client.call_with::<_, Vec<u8>>(&Json, "abc", options).await.expect_err("another type");
        assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
        assert!(error.to_string().contains("expected a sequence"), "{error}");
        // bincode is no JSON.
        let error = client.call::<_, Vec<u8>>("abc").await.expect_err("another codec");
        assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
    });
}

#[test]
fn a_response_that_is_another_type_is_an_error_of_the_call_alone() {
    on_device(|address| async move {
        let (near, far, _connections) = channels(&worker(), &address).await;
        tokio::spawn(serve(far, 5, |number: u8| async move { Ok::<_, String>(number) }));
        let client = client(near);
        let error = soon(client.call::<_, String>(&200u8)).await.expect_err("a number");
        assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
        assert_eq!(soon(client.call::<_, u8>(&200u8)).await.expect("a number"), 200);
    });
}
