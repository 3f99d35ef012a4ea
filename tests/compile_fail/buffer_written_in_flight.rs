//! Nor is a buffer changed while it is being sent, by nobody who kept a slice of it.

use zcmi::verbs::{
    Local, OwningQueue, QueuePairKey, RegisteredBuffer, SendFlags, SendOperation, SendRequest,
};

fn main() {}

fn send(queue: &mut OwningQueue<RegisteredBuffer>, key: QueuePairKey, mut buffer: RegisteredBuffer) {
    let kept = &mut buffer[..];
    let request = SendRequest {
        token: 1,
        operation: SendOperation::Send,
        local: Local::Owned(buffer),
        flags: SendFlags::SIGNALED,
    };
    queue.post(key, request).unwrap();
    kept[0] = 1;
}
