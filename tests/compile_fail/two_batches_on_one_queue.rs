//! One batch at a time is open on a queue: two would post each other's requests.

use zcmi::verbs::{Local, OwningQueue, QueuePairKey, RegisteredBuffer, SendFlags, SendOperation, SendRequest};

fn main() {}

fn post(queue: &mut OwningQueue<RegisteredBuffer>, one: QueuePairKey, other: QueuePairKey) {
    let request = || SendRequest {
        token: 1,
        operation: SendOperation::Send,
        local: Local::Inline(b"x"),
        flags: SendFlags::SIGNALED,
    };
    let mut first = queue.batch(one);
    let mut second = queue.batch(other);
    first.push(request()).unwrap();
    second.push(request()).unwrap();
}
