//! Sending and receiving, finishing and closing.

use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

use zcmi::internals::simulation::{random, sleep, spawn};
use zcmi::{Bincode, Buffer, Codec, ErrorKind};

use super::ends::{End, Ends, Got, bytes, last_world, world};
use super::{Boxed, Case, Round};

const SHORT: usize = 120;
const LONG: usize = 9_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Calls a method by the way of a round: of the connection, of a channel, of a half.
macro_rules! by {
    ($round:expr, $end:expr, $half:ident . $method:ident ($($argument:expr),*)) => {
        match $round % 3 {
            0 => $end.connection.$method($($argument),*).await,
            1 => $end.channel.$method($($argument),*).await,
            _ => $end.$half.$method($($argument),*).await,
        }
    };
}

/// A case that sends what it is given.
macro_rules! sends {
    ($names:expr, $code:expr, $send:expr) => {
        Case {
            names: $names,
            world: |executor, cut| {
                world(executor, cut, |ends, round| {
                    let send = $send;
                    let future = |near, message| send(near, round, message);
                    Box::pin(std::future::ready(sending(ends, round, $code, future)))
                })
            },
        }
    };
}

/// A case that receives.
macro_rules! receives {
    ($names:expr, $code:expr, $receive:expr) => {
        Case {
            names: $names,
            world: |executor, cut| {
                world(executor, cut, |ends, round| {
                    let receive = $receive;
                    let future = |near| receive(near, round);
                    Box::pin(std::future::ready(receiving(ends, round, $code, future)))
                })
            },
        }
    };
}

pub(super) const CASES: &[Case] = &[
    sends!(
        &["Connection::send", "Channel::send", "SendHalf::send"],
        Code::Plain,
        async |near: End, round: u64, message: Vec<u8>| by!(round, near, sends.send(&message)).expect("sends")
    ),
    sends!(
        &["Connection::send_vectored", "Channel::send_vectored", "SendHalf::send_vectored"],
        Code::Plain,
        async |near: End, round: u64, message: Vec<u8>| {
            let (first, second) = message.split_at(50);
            let pieces = [IoSlice::new(first), IoSlice::new(second)];
            by!(round, near, sends.send_vectored(&pieces)).expect("sends");
        }
    ),
    sends!(
        &["Connection::hand_over", "Channel::hand_over", "SendHalf::hand_over"],
        Code::Plain,
        async |near: End, round: u64, message: Vec<u8>| {
            let mut buffer = near.connection.allocate(message.len()).expect("memory");
            buffer.copy_from_slice(&message);
            by!(round, near, sends.hand_over(buffer)).expect("sends");
        }
    ),
    sends!(
        &["Connection::send_owned", "Channel::send_owned", "SendHalf::send_owned"],
        Code::Plain,
        async |near: End, round: u64, message: Vec<u8>| {
            if round.is_multiple_of(2) {
                let mut buffer = Buffer::allocate(message.len()).expect("memory");
                buffer.copy_from_slice(&message);
                by!(round, near, sends.send_owned(buffer)).expect("sends");
            } else {
                by!(round, near, sends.send_owned(bytes::Bytes::from(message))).expect("sends");
            }
        }
    ),
    sends!(
        &["Connection::send_timeout", "Channel::send_timeout", "SendHalf::send_timeout"],
        Code::Plain,
        async |near: End, round: u64, message: Vec<u8>| {
            by!(round, near, sends.send_timeout(&message, PATIENCE)).expect("sends");
        }
    ),
    sends!(
        &["Connection::send_acknowledged", "Channel::send_acknowledged", "SendHalf::send_acknowledged"],
        Code::Acknowledged,
        async |near: End, round: u64, message: Vec<u8>| {
            by!(round, near, sends.send_acknowledged(&message)).expect("sends");
        }
    ),
    sends!(
        &["Connection::send_value", "Channel::send_value"],
        Code::Value,
        async |near: End, round: u64, message: Vec<u8>| match round % 3 {
            1 => near.channel.send_value(&message).await.expect("sends"),
            _ => near.connection.send_value(&message).await.expect("sends"),
        }
    ),
    sends!(
        &["Connection::send_value_with", "Channel::send_value_with"],
        Code::Value,
        async |near: End, round: u64, message: Vec<u8>| match round % 3 {
            1 => near.channel.send_value_with(&Bincode::default(), &message).await.expect("sends"),
            _ => near.connection.send_value_with(&Bincode::default(), &message).await.expect("sends"),
        }
    ),
    receives!(
        &["Connection::recv", "Channel::recv", "ReceiveHalf::recv"],
        Code::Plain,
        async |near: End, round: u64| by!(round, near, receives.recv()).expect("receives").to_vec()
    ),
    receives!(
        &["Connection::recv_timeout", "Channel::recv_timeout", "ReceiveHalf::recv_timeout"],
        Code::Plain,
        async |near: End, round: u64| by!(round, near, receives.recv_timeout(PATIENCE)).expect("receives").to_vec()
    ),
    receives!(
        &["Connection::recv_into", "Channel::recv_into", "ReceiveHalf::recv_into"],
        Code::Plain,
        async |near: End, round: u64| {
            let buffer = Buffer::allocate(LONG + 1).expect("memory");
            let (buffer, length) = by!(round, near, receives.recv_into(buffer)).expect("receives");
            buffer[..length].to_vec()
        }
    ),
    receives!(&["Connection::recv_value", "Channel::recv_value"], Code::Value, async |near: End, round: u64| {
        match round % 3 {
            1 => near.channel.recv_value().await.expect("receives"),
            _ => near.connection.recv_value().await.expect("receives"),
        }
    }),
    receives!(
        &["Connection::recv_value_with", "Channel::recv_value_with"],
        Code::Value,
        async |near: End, round: u64| {
            match round % 3 {
                1 => near.channel.recv_value_with(&Bincode::default()).await.expect("receives"),
                _ => near.connection.recv_value_with(&Bincode::default()).await.expect("receives"),
            }
        }
    ),
    Case { names: &["Channel::finish"], world: |executor, cut| world(executor, cut, finish_channel) },
    Case { names: &["Connection::finish"], world: |executor, cut| last_world(executor, cut, finish) },
    Case { names: &["SendHalf::finish"], world: |executor, cut| last_world(executor, cut, finish_half) },
    Case { names: &["Connection::close"], world: |executor, cut| last_world(executor, cut, close) },
];

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Code {
    /// Bytes, of which the peer's library tells that it has them.
    Acknowledged,
    Plain,
    /// A value that was encoded.
    Value,
}

impl Code {
    fn encode(self, bytes: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        match self {
            Self::Acknowledged | Self::Plain => encoded.extend(bytes),
            Self::Value => Bincode::default().encode(bytes, &mut encoded).expect("it can be encoded"),
        }
        encoded
    }
}

/// A message, short or long, is sent to a receiver who has no room for it at first.
fn sending<F: Future<Output = ()> + 'static>(
    ends: Ends,
    round: u64,
    code: Code,
    send: impl FnOnce(End, Vec<u8>) -> F,
) -> Round {
    let lane = ends.near.lane(round);
    let is_long = round / 3 % 2 == 1;
    let mut expected = Vec::new();
    loop {
        let filling = bytes(1_000 * round + expected.len() as u64, 90);
        match lane.try_send(&filling) {
            Ok(()) => expected.push(filling),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    let last = bytes(1_000 * round + 999, 33);
    let received = ends.far.collect(round, last.clone());
    let message = bytes(1_000 * round + 998, if is_long { LONG } else { SHORT });
    let future = send(ends.near.clone(), message.clone());
    Round::new(future, move |has_ended| async move {
        lane.send(&last).await.expect("sends");
        let received = received.await.expect("alive");
        let message = code.encode(&message);
        let is_there = received.last() == Some(&message);
        assert!(is_there || !has_ended, "it was sent, and has not come");
        // What is long is received if it was offered.
        let may_come = has_ended || is_long || code == Code::Acknowledged;
        assert!(may_come || !is_there, "it was given up, and has come");
        expected.extend(is_there.then_some(message));
        assert!(received == expected, "{} messages came, not {}", received.len(), expected.len());
    })
}

/// A message, short or long, is received.
fn receiving<F: Future<Output = Vec<u8>> + 'static>(
    ends: Ends,
    round: u64,
    code: Code,
    receive: impl FnOnce(End) -> F,
) -> Round {
    let message = bytes(round, if (round / 3).is_multiple_of(2) { SHORT } else { LONG });
    let (far, near) = (ends.far.lane(round), ends.near.lane(round));
    let says = code.encode(&message);
    let sent = spawn(async move {
        sleep(Duration::from_micros(random(60))).await;
        far.send(&says).await.expect("sends");
        far.send(b"last").await.expect("sends");
    });
    let got: Got<Vec<u8>> = Got::default();
    let (to, receive) = (Rc::clone(&got), receive(ends.near));
    let future = async move {
        let received = receive.await;
        *to.borrow_mut() = Some(received);
    };
    Round::new(future, move |has_ended| async move {
        let received = got.take();
        assert_eq!(received.is_some(), has_ended);
        match received {
            Some(received) => assert!(received == message, "{} bytes came, or others", received.len()),
            None => {
                let received = near.recv().await.expect("receives");
                assert!(received[..] == code.encode(&message), "{} bytes came, or others", received.len());
            }
        }
        assert_eq!(near.recv().await.expect("receives")[..], *b"last");
        sent.await.expect("alive");
    })
}

fn finish(ends: Ends) -> Boxed<Round> {
    let near = ends.near.connection.clone();
    let future = async move { near.finish().await.expect("finishes") };
    Box::pin(std::future::ready(ending(ends, future, go_on_receiving)))
}

fn finish_half(ends: Ends) -> Boxed<Round> {
    let near = ends.near.sends.clone();
    let future = async move { near.finish().await.expect("finishes") };
    Box::pin(std::future::ready(ending(ends, future, go_on_receiving)))
}

/// The other direction goes on.
async fn go_on_receiving(ends: Ends) {
    ends.near.connection.finish().await.expect("again");
    let says = bytes(9, LONG);
    let (sent, received) = tokio::join!(ends.far.connection.send(&says), ends.near.connection.recv());
    sent.expect("sends");
    assert!(received.expect("receives")[..] == says);
}

fn close(ends: Ends) -> Boxed<Round> {
    let near = ends.near.connection.clone();
    let future = async move { near.close().await.expect("closes") };
    let again = async |ends: Ends| ends.near.connection.close().await.expect("again");
    Box::pin(std::future::ready(ending(ends, future, again)))
}

/// A channel of its own is finished.
fn finish_channel(ends: Ends, round: u64) -> Boxed<Round> {
    Box::pin(async move {
        let id = 100 + round as u32;
        let (near, far) = (ends.near.connection.channel(id).expect("room"), ends.far.connection.channel(id));
        let far = far.expect("room");
        near.try_send(b"one").expect("room");
        let finishing = near.clone();
        let future = async move { finishing.finish().await.expect("finishes") };
        Round::new(future, move |has_ended| async move {
            match near.finish().await {
                Ok(()) => assert!(!has_ended),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
            }
            assert_eq!(far.recv().await.expect("receives")[..], *b"one");
            assert_eq!(far.recv().await.expect_err("it is finished").kind(), ErrorKind::PeerClosed);
        })
    })
}

/// Our side ends, in one way or the other, behind messages of which one is offered and has lost its sender. It can be
/// done `again`.
fn ending<A: Future<Output = ()> + 'static>(
    ends: Ends,
    future: impl Future<Output = ()> + 'static,
    again: impl FnOnce(Ends) -> A + 'static,
) -> Round {
    let messages = [bytes(1, SHORT), bytes(2, LONG), bytes(3, SHORT)];
    let (near, far) = (ends.near.connection.clone(), ends.far.connection.clone());
    let sent = messages.clone();
    let receiving = spawn(async move {
        sleep(Duration::from_micros(random(300))).await;
        let mut received = Vec::new();
        loop {
            match far.recv().await {
                Ok(message) => received.push(message.to_vec()),
                Err(error) => return (received, error.kind()),
            }
        }
    });
    let future = async move {
        let [first, offered, last] = &sent;
        near.try_send(first).expect("room");
        let mut offering = Box::pin(near.send(offered));
        // Until it is offered.
        tokio::select! {
            biased;
            _ = &mut offering => {}
            () = sleep(Duration::from_micros(100)) => {}
        }
        drop(offering);
        near.try_send(last).expect("room");
        future.await;
    };
    Round::new(future, move |_| async move {
        again(ends.clone()).await;
        let (received, ended) = receiving.await.expect("alive");
        assert_eq!(ended, ErrorKind::PeerClosed);
        // The sender may have gone before any of them.
        assert!(
            received.iter().zip(&messages).all(|(received, sent)| received == sent),
            "others came, or in another order"
        );
        assert!(received.len() <= messages.len());
    })
}
