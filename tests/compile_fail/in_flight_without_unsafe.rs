//! So does memory that is to be handed to a device, and none that is borrowed can be.

use zcmi::verbs::{InFlight, Segment};

fn main() {}

struct Mine(Vec<u8>);

impl InFlight for Mine {
    fn segment(&self) -> Segment {
        Segment { address: self.0.as_ptr() as u64, length: self.0.len() as u32, local_key: 0 }
    }
}

struct Borrowed<'a>(&'a [u8]);

unsafe impl<'a> InFlight for Borrowed<'a> {
    fn segment(&self) -> Segment {
        Segment { address: self.0.as_ptr() as u64, length: self.0.len() as u32, local_key: 0 }
    }
}
