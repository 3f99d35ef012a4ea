//! Who keeps memory, and for how long.

use std::sync::Arc;

use bytes::Bytes;

use super::{MIB, address, pool};

#[test]
fn buffers_outlive_their_pool_and_unmap_with_the_last_of_a_slab() {
    let pool = pool(MIB);
    let mut one = pool.allocate(1000).expect("room");
    let two = pool.allocate(1000).expect("room");
    let idle = pool.allocate(50_000).expect("room");
    let slab_of = |buffer: &crate::Buffer| Arc::downgrade(buffer.slab().expect("it has bytes"));
    let (slab, other) = (slab_of(&one), slab_of(&idle));
    drop(idle);
    drop(pool.clone());
    assert!(other.upgrade().is_some(), "a clone is left");
    drop(pool);
    assert!(other.upgrade().is_none(), "idle memory goes with the pool");
    one.fill(3);
    assert!(one.iter().all(|&byte| byte == 3));
    drop(one);
    assert!(slab.upgrade().is_some());
    std::thread::spawn(move || drop(two)).join().expect("no panic");
    assert!(slab.upgrade().is_none());
}

#[test]
fn a_pool_made_after_another_does_not_get_its_buffers() {
    let old = pool(MIB);
    let buffer = old.allocate(1000).expect("room");
    drop(old);
    let new = pool(MIB);
    drop(buffer);
    assert_eq!((new.statistics().in_use_bytes, new.statistics().mapped_bytes), (0, 0));
    // Now the first one's remains may be used again.
    let newer = pool(MIB);
    let buffers = [&new, &newer].map(|pool| pool.allocate(1000).expect("room"));
    assert_ne!(address(&buffers[0]), address(&buffers[1]));
    assert_eq!([&new, &newer].map(|pool| pool.statistics().in_use_bytes), [1024, 1024]);
}

#[test]
fn the_last_bytes_returns_the_block() {
    let pool = pool(MIB);
    let mut buffer = pool.allocate(5000).expect("room");
    buffer.fill(9);
    let place = address(&buffer);
    let bytes = buffer.into_bytes();
    assert_eq!(bytes.as_ptr().addr(), place, "without a copy");
    let slice = bytes.slice(100..200);
    drop(bytes);
    assert_eq!(pool.statistics().in_use_bytes, 8192);
    assert_eq!(slice, [9; 100][..]);
    drop(slice);
    assert_eq!(pool.statistics().in_use_bytes, 0);
    let bytes = Bytes::from(pool.allocate(1).expect("room").freeze());
    std::thread::spawn(move || drop(bytes)).join().expect("no panic");
    assert_eq!(pool.statistics().in_use_bytes, 0);
}

#[test]
fn a_block_returns_with_its_last_piece() {
    let pool = pool(MIB);
    let (one, two) = pool.allocate(1000).expect("room").split_at(500);
    let (two, three) = two.split_at(0);
    assert!(two.is_empty());
    drop(one);
    assert_eq!(pool.statistics().in_use_bytes, 1024);
    drop(three);
    assert_eq!(pool.statistics().in_use_bytes, 0);
    drop(two);
    assert_eq!(pool.statistics().in_use_bytes, 0);
}
