//! A completion is lent by its batch until that is polled into again.

use zcmi::verbs::{CompletionBatch, CompletionQueue};

fn main() {}

fn keep(queue: &CompletionQueue) {
    let mut batch = CompletionBatch::new();
    let completion = queue.poll(&mut batch).unwrap().next().unwrap();
    let _ = queue.poll(&mut batch);
    println!("{}", completion.wr_id());
}
