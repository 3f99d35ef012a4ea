//! No queue owns what is only borrowed.

use zcmi::verbs::{InFlight, Segment};

fn main() {}

struct Borrowed<'a>(&'a [u8]);

// SAFETY: none; this is what must not compile.
unsafe impl<'a> InFlight for Borrowed<'a> {
    fn segment(&self) -> Segment {
        Segment { address: self.0.as_ptr() as u64, length: self.0.len() as u32, local_key: 0 }
    }
}
