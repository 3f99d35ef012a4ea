//! The fast tier asks for a promise.

use zcmi::verbs::{QueuePair, SendFlags, SendOperation};

fn main() {}

fn post(pair: &QueuePair) {
    pair.post_send(1, SendOperation::Send, &[], SendFlags::NONE).unwrap();
    pair.post_receive(1, &[]).unwrap();
}
