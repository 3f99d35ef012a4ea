//! Registration: once per slab, and ended before the memory goes.

use super::{MIB, pool};
use crate::memory::fake_domain::{FakeDomain, Faults};

#[test]
fn a_slab_is_registered_once_for_all_that_is_cut_from_it() {
    let (pool, domain) = (pool(MIB), FakeDomain::without_snapshots());
    let mut one = pool.allocate(1000).expect("room");
    let two = pool.allocate(1000).expect("room");
    let key = one.bind(&domain).expect("registered");
    assert_eq!(one.bind(&domain).expect("known"), key);
    let (front, mut rest) = two.split_at(10);
    assert_eq!(rest.bind(&domain).expect("known"), key);
    let shared = rest.freeze();
    assert_eq!(shared.bind(&domain).expect("known"), key);
    assert_eq!(front.freeze().slice(..5).bind(&domain).expect("known"), key);
    assert_eq!(domain.registered(), 1);
    let other = FakeDomain::without_snapshots();
    one.bind(&other).expect("registered");
    assert_eq!(other.registered(), 1);
    drop((one, shared));
    pool.trim();
    assert_eq!([&domain, &other].map(FakeDomain::live), [0, 0]);
    assert_eq!(pool.statistics().mapped_bytes, 0);
}

#[test]
fn no_bytes_are_registered_nowhere() {
    let domain = FakeDomain::without_snapshots();
    assert!(crate::Buffer::default().bind(&domain).is_ok());
    assert_eq!(domain.registered(), 0);
}

#[test]
fn memory_that_a_device_does_not_let_go_of_stays_counted() {
    let (pool, domain) = (pool(MIB), FakeDomain::without_snapshots());
    let mut buffer = pool.allocate(1000).expect("room");
    buffer.bind(&domain).expect("registered");
    domain.set_faults(Faults { stuck: 1, ..Faults::default() });
    drop(buffer);
    let before = pool.statistics();
    pool.trim();
    assert_eq!(pool.statistics().mapped_bytes, before.mapped_bytes);
}
