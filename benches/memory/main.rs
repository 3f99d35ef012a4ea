//! What memory costs before a device has any part in it. `cargo bench --features internals --bench memory`.
//!
//! `--json` prints one object a line; words choose the cases whose names contain one of them.

#![allow(unsafe_code, reason = "the counting allocator")]

#[path = "../../tests/common/allocations.rs"]
mod allocations;
mod cache;
mod measure;
mod pool;

fn main() {
    let options = measure::Options::from_arguments();
    let cases = cache::cases().into_iter().chain(pool::cases()).collect();
    measure::report(cases, &options);
}
