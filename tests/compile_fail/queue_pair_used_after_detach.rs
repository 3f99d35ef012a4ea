//! Who looks at a queue pair keeps it in its queue.

use zcmi::verbs::{OwningQueue, QueuePairKey, RegisteredBuffer};

fn main() {}

fn look(queue: &mut OwningQueue<RegisteredBuffer>, key: QueuePairKey) {
    let pair = queue.queue_pair(key).unwrap();
    let detached = queue.detach(key);
    println!("{}", pair.number());
    drop(detached);
}
