//! Messages with both ends in one thread, for a program that counts instructions. What is counted has a function of its
//! own that is not inlined, so that it is told by its name.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::{Value, json};
use zcmi::{Connection, Connector, Listener, Message, Result, Worker};

use crate::{Arguments, Waiting};

/// Long enough for a message to arrive, in an emulator as well: then nobody looks in vain.
const ON_ITS_WAY: Duration = Duration::from_millis(20);
/// Round trips before those that are counted.
const BEFORE: u32 = 50;

#[inline(never)]
fn measured_send(from: &Connection, payload: &[u8]) -> Poll<Result<()>> {
    pin!(from.send(payload)).poll(&mut Context::from_waker(Waker::noop()))
}

#[inline(never)]
fn measured_receive(to: &Connection) -> Poll<Result<Message>> {
    pin!(to.recv()).poll(&mut Context::from_waker(Waker::noop()))
}

/// Where the message goes back to, which its next sender hears of.
#[inline(never)]
fn measured_drop(message: Message) {
    drop(black_box(message));
}

pub(crate) async fn run(arguments: &Arguments, place: &str) -> Value {
    let worker = Worker::new(arguments.config()).expect("valid settings");
    let listener = Listener::bind(&worker, place).await.expect("listens");
    let uri = listener.uri();
    let connector = Connector::new(&worker);
    let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
    let [client, server] = [client.expect("connects"), server.expect("accepts")];
    let payload = vec![7; arguments.size];
    // What happens once has happened.
    for _ in 0..BEFORE {
        for (from, to) in [(&client, &server), (&server, &client)] {
            // A long one waits for its receiver where none has been sent at once yet.
            let (sent, received) = tokio::join!(from.send(&payload), to.recv());
            sent.expect("sends");
            received.expect("receives");
        }
    }
    let (mut messages, mut late) = (0, 0);
    while messages < arguments.iterations {
        for (from, to) in [(&client, &server), (&server, &client)] {
            for _ in 0..arguments.burst {
                let sent = measured_send(from, &payload);
                assert!(matches!(sent, Poll::Ready(Ok(()))), "there is room");
            }
            // What waits for other frames is posted meanwhile. Who polls finds what comes through memory.
            if arguments.polling == Waiting::Event {
                std::thread::sleep(ON_ITS_WAY);
            }
            for _ in 0..arguments.burst {
                match measured_receive(to) {
                    Poll::Ready(message) => measured_drop(message.expect("receives")),
                    Poll::Pending => {
                        late += 1;
                        to.recv().await.expect("receives");
                    }
                }
            }
            messages += arguments.burst;
        }
    }
    json!({ "messages": messages, "late": late })
}
