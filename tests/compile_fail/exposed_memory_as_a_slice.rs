//! There is no slice of memory that a peer may write.

use zcmi::verbs::ExposedRegion;

fn main() {}

fn look(region: &ExposedRegion) -> &[u8] {
    &region[..8]
}
