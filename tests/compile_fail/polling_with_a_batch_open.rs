//! Nor is a queue polled while a batch is open.

use zcmi::verbs::{OwningQueue, QueuePairKey, RegisteredBuffer};

fn main() {}

fn poll(queue: &mut OwningQueue<RegisteredBuffer>, key: QueuePairKey) {
    let batch = queue.batch(key);
    let _ = queue.poll(&mut Vec::new());
    batch.post().unwrap();
}
