//! What was taken out is destroyed once.

use zcmi::verbs::{Detached, RegisteredBuffer};

fn main() {}

fn destroy(detached: Detached<RegisteredBuffer>) {
    let first = detached.destroy();
    let second = detached.destroy();
    drop((first, second));
}
