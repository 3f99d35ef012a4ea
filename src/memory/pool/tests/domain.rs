//! Registration: once per slab, and ended before the memory goes.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{MIB, pool};
use crate::memory::{Domain, RegionAccess, Registrable, Registration, fake_domain};
use crate::{Error, ErrorKind, Result};

/// A device that counts.
#[derive(Default)]
struct Counting {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    made: AtomicUsize,
    live: AtomicUsize,
    is_stuck: AtomicBool,
}

struct Region {
    state: Arc<State>,
    key: u32,
    memory: Arc<dyn Registrable>,
}

impl Domain for Counting {
    fn id(&self) -> u64 {
        Arc::as_ptr(&self.state).addr() as u64
    }

    fn nonce(&self) -> u64 {
        0
    }

    fn has_windows(&self) -> bool {
        false
    }

    fn register_dma_buf(&self, _: OwnedFd, _: u64, _: usize, _: RegionAccess) -> Result<Arc<dyn Registration>> {
        Err(Error::new(ErrorKind::Unsupported, "register memory"))
    }

    fn register(
        &self,
        memory: &Arc<dyn Registrable>,
        range: Range<usize>,
        access: RegionAccess,
    ) -> Result<Arc<dyn Registration>> {
        assert_eq!((range, access), (0..memory.length(), RegionAccess::Local));
        self.state.live.fetch_add(1, Ordering::Relaxed);
        let key = self.state.made.fetch_add(1, Ordering::Relaxed) as u32 + 1;
        Ok(Arc::new(Region { state: Arc::clone(&self.state), key, memory: Arc::clone(memory) }))
    }
}

impl Registration for Region {
    fn local_key(&self) -> u32 {
        self.key
    }

    fn remote_key(&self) -> u32 {
        0
    }

    fn end(self: Arc<Self>) -> Result<()> {
        if self.state.is_stuck.load(Ordering::Relaxed) {
            fake_domain::keep(Arc::clone(&self.memory));
            return Err(Error::new(ErrorKind::Other, "deregister memory"));
        }
        self.state.live.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn a_slab_is_registered_once_for_all_that_is_cut_from_it() {
    let (pool, domain) = (pool(MIB), Counting::default());
    let mut one = pool.allocate(1000).expect("room");
    let two = pool.allocate(1000).expect("room");
    let key = one.bind(&domain).expect("registered");
    assert_eq!(one.bind(&domain).expect("known"), key);
    let (front, mut rest) = two.split_at(10);
    assert_eq!(rest.bind(&domain).expect("known"), key);
    let shared = rest.freeze();
    assert_eq!(shared.bind(&domain).expect("known"), key);
    assert_eq!(front.freeze().slice(..5).bind(&domain).expect("known"), key);
    assert_eq!(domain.state.made.load(Ordering::Relaxed), 1);
    let other = Counting::default();
    one.bind(&other).expect("registered");
    assert_eq!(other.state.made.load(Ordering::Relaxed), 1);
    drop((one, shared));
    pool.trim();
    assert_eq!([&domain, &other].map(|domain| domain.state.live.load(Ordering::Relaxed)), [0, 0]);
    assert_eq!(pool.statistics().mapped_bytes, 0);
}

#[test]
fn no_bytes_are_registered_nowhere() {
    let domain = Counting::default();
    assert!(crate::Buffer::default().bind(&domain).is_ok());
    assert_eq!(domain.state.made.load(Ordering::Relaxed), 0);
}

#[test]
fn memory_that_a_device_does_not_let_go_of_stays_counted() {
    let (pool, domain) = (pool(MIB), Counting::default());
    let mut buffer = pool.allocate(1000).expect("room");
    buffer.bind(&domain).expect("registered");
    domain.state.is_stuck.store(true, Ordering::Relaxed);
    drop(buffer);
    let before = pool.statistics();
    pool.trim();
    assert_eq!(pool.statistics().mapped_bytes, before.mapped_bytes);
}
