//! The queue owns a buffer until its completion: the device may be writing it.

use zcmi::verbs::{OwningQueue, QueuePairKey, RegisteredBuffer};

fn main() {}

fn receive(queue: &mut OwningQueue<RegisteredBuffer>, key: QueuePairKey, buffer: RegisteredBuffer) {
    queue.post_receive(key, 1, buffer).unwrap();
    println!("{}", buffer[0]);
}
