//! Nor does it outlive the batch.

use zcmi::verbs::{Completion, CompletionBatch, CompletionQueue};

fn main() {}

fn keep(queue: &CompletionQueue) -> Completion<'_> {
    let mut batch = CompletionBatch::new();
    queue.poll(&mut batch).unwrap().next().unwrap()
}
