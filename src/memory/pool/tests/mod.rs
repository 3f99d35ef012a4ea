//! Tests of the pool as a whole.

mod domain;
mod fork;
mod lifetime;
mod limit;
mod model;
mod threads;

use super::{HugePages, Pool};
use crate::memory::mapping::{HUGE_PAGE, Mapping, Pages};
use crate::{Buffer, ErrorKind};

const MIB: usize = 1 << 20;

fn pool(limit: usize) -> Pool {
    Pool::builder().limit(limit).build().expect("a pool")
}

fn address(buffer: &Buffer) -> usize {
    buffer.address().addr()
}

#[test]
fn what_was_released_comes_back_unless_zeros_are_asked_for() {
    let pool = pool(MIB);
    let mut buffer = pool.allocate(5000).expect("room");
    let place = address(&buffer);
    buffer.fill(0xaa);
    drop(buffer);
    let buffer = pool.allocate(5000).expect("room");
    assert_eq!((address(&buffer), buffer[4999]), (place, 0xaa));
    drop(buffer);
    let zeroed = pool.allocate_zeroed(6000).expect("room");
    assert_eq!(address(&zeroed), place);
    assert!(zeroed.iter().all(|&byte| byte == 0));
}

#[test]
fn the_first_buffers_pin_little() {
    let pool = pool(64 * MIB);
    let held: Vec<_> = [1, 64, 1000, 4096, 9000, 64 << 10].map(|length| pool.allocate(length).expect("room")).into();
    assert!(pool.statistics().mapped_bytes <= MIB / 2, "{:?}", pool.statistics());
    drop(held);
}

#[test]
fn buffers_are_aligned() {
    let pool = pool(64 * MIB);
    for length in [1, 65, 700, 4095, 4096, 5000, 20_000, 3 * MIB] {
        let natural = if length >= 4096 { 4096 } else { 64 };
        let two = [(); 2].map(|()| pool.allocate(length).expect("room"));
        assert!(two.iter().all(|buffer| address(buffer).is_multiple_of(natural)), "{length}");
        for bits in 0..=21 {
            let two = [(); 2].map(|()| pool.allocate_aligned(length, 1 << bits).expect("room"));
            assert!(two.iter().all(|buffer| address(buffer).is_multiple_of(1 << bits)), "{length} {bits}");
            assert!(two.iter().all(|buffer| buffer.len() == length));
        }
    }
    assert!(address(&pool.allocate_aligned(0, HUGE_PAGE).expect("nothing")).is_multiple_of(HUGE_PAGE));
    for alignment in [0, 3, 4 * MIB] {
        let error = pool.allocate_aligned(1, alignment).expect_err("not an alignment");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn long_buffers_have_a_slab_of_their_own_that_goes_with_them() {
    let pool = pool(100 * MIB);
    let mut buffer = pool.allocate(65 * MIB).expect("room");
    assert!(buffer[64 * MIB] == 0 && address(&buffer).is_multiple_of(HUGE_PAGE));
    buffer[64 * MIB] = 1;
    assert_eq!(pool.statistics().in_use_bytes, 65 * MIB);
    let error = pool.allocate(65 * MIB).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::PoolExhausted);
    drop(buffer);
    let statistics = pool.statistics();
    assert_eq!((statistics.mapped_bytes, statistics.in_use_bytes, statistics.slabs), (0, 0, 0));
}

#[test]
fn a_pool_without_huge_pages_takes_ordinary_ones() {
    // Whatever this machine has.
    let there_are = Mapping::of(HUGE_PAGE, Pages::Huge).is_ok();
    let pool = Pool::builder().limit(5 * MIB).huge_pages(HugePages::Try).build().expect("a pool");
    let mut held: Vec<_> = (0..4).map(|_| pool.allocate(MIB).expect("room")).collect();
    held.iter_mut().for_each(|buffer| buffer.fill(1));
    assert!(pool.statistics().mapped_bytes <= 5 * MIB);
    match Pool::builder().huge_pages(HugePages::Required).build() {
        Ok(pool) => {
            let mut buffer = pool.allocate(100).expect("there was one");
            buffer.fill(1);
            assert_eq!((there_are, pool.statistics().mapped_bytes), (true, HUGE_PAGE));
        }
        Err(error) => assert_eq!((there_are, error.kind()), (false, ErrorKind::ResourceExhausted)),
    }
}

#[test]
fn a_populated_pool_serves_too() {
    let pool = Pool::builder().limit(MIB).populate(true).build().expect("a pool");
    let mut buffer = pool.allocate_zeroed(100_000).expect("room");
    assert!(buffer.iter().all(|&byte| byte == 0));
    buffer.fill(1);
}

#[test]
fn trimming_gives_everything_idle_back() {
    let pool = pool(64 * MIB);
    let kept = pool.allocate(100).expect("room");
    drop([1000, 10_000, 100_000, MIB].map(|length| pool.allocate(length).expect("room")));
    let before = pool.statistics();
    assert_eq!((before.slabs, before.idle_bytes), (5, before.mapped_bytes - 128));
    let given = pool.trim();
    let after = pool.statistics();
    assert_eq!((after.slabs, after.mapped_bytes), (1, before.mapped_bytes - given));
    drop(kept);
    pool.trim();
    assert_eq!(pool.statistics().mapped_bytes, 0);
    assert_eq!(pool.allocate(100).expect("room").len(), 100);
}
