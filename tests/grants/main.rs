//! Exposure, grants, revocation and one-sided access, on a real device.

#[path = "../common/mod.rs"]
mod common;

mod holder;
mod leases;
mod one_sided;
mod random;
mod registered;
mod revocation;
mod revocation_races;
mod shared_memory;

/// A peer in a process of its own: it holds grants and does what it is told.
#[test]
fn peer() {
    if common::role().is_some() {
        common::play(holder::play());
    }
}
