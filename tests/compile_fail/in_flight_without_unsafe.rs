//! So does memory that is to be handed to a device.

use zcmi::verbs::{InFlight, Segment};

fn main() {}

struct Mine(Vec<u8>);

impl InFlight for Mine {
    fn segment(&self) -> Segment {
        Segment { address: self.0.as_ptr() as u64, length: self.0.len() as u32, local_key: 0 }
    }
}
