//! A forked child inherits objects that are its parent's: it drops them, and nothing happens.

use std::sync::Arc;

use zcmi::verbs::{
    Access, AddressHandle, AddressVector, CompletionChannel, ExposedRegion, MemoryRegion, QueuePairKind, SendOperation,
};

use crate::common::pattern;
use crate::common::resources::Resources;
use crate::pair::{Ends, Memory, Settings, gid_index};
use crate::support::with_device;

/// Runs `part` in a child, which must end well.
fn in_a_child(part: impl FnOnce()) {
    // SAFETY: tests run one at a time, so no other thread holds a lock that the child would need; it exits without unwinding.
    match unsafe { libc::fork() } {
        0 => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(part));
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if result.is_ok() { 0 } else { 1 }) }
        }
        child => {
            let mut status = -1;
            // SAFETY: waits for the child just made; `status` is writable.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the child ended well");
        }
    }
}

#[test]
fn a_child_that_drops_everything_leaves_its_parents_objects_alone() {
    with_device(|fixture| {
        let mut ends = Ends::new(fixture, Settings { shared_receives: Some(8), ..Settings::default() });
        let target = ExposedRegion::allocate(&ends.domain, 4096, Access::REMOTE_WRITE).expect("memory");
        let channel = CompletionChannel::create(&fixture.context).expect("a channel");
        let index = gid_index(fixture);
        let vector = AddressVector::to(1, index, fixture.context.gid(1, index).expect("a GID"));
        let address = AddressHandle::create(&ends.domain, &vector).expect("an address handle");
        let datagrams = Ends::new(fixture, Settings { kind: QueuePairKind::Ud, ..Settings::default() });
        for token in 0..8 {
            let memory = Memory::Buffer(ends.poisoned(64));
            ends.queue.post_shared_receive(token, memory).expect("takes it");
        }
        let baseline = Resources::now();
        // The child has copies; the parent's own are not to go with them.
        let copies = std::mem::ManuallyDrop::new((ends, target, channel, address, datagrams));
        in_a_child(|| {
            // SAFETY: the child's memory is a copy, of which this is the only one that is dropped: `copies` never is.
            let (mut ends, target, channel, address, datagrams) = unsafe { std::ptr::read(&*copies) };
            drop(ends.queue.detach(ends.a).expect("it is there").destroy());
            drop(datagrams.queue);
            drop((ends, target, channel, address));
        });
        let (mut ends, target, channel, address, datagrams) = std::mem::ManuallyDrop::into_inner(copies);
        let now = Resources::now();
        for kind in ["ctx", "pd", "cq", "qp", "mr", "srq"] {
            assert_eq!(now.of(kind), baseline.of(kind), "{kind}");
        }
        // All of it still works.
        for seed in 0..8 {
            ends.post_inline(ends.a, 100, SendOperation::Send, &pattern(seed, 0, 40));
            let (sent, received) = ends.both();
            assert_eq!((sent.result, received.result), (Ok(0), Ok(40)));
            assert_eq!(received.memory.expect("its buffer").buffer()[..40], pattern(seed, 0, 40));
        }
        let source = ends.filled(5, 4096);
        ends.post(ends.a, 1, SendOperation::Write(target.remote()), Memory::Buffer(source));
        assert_eq!(ends.one().result, Ok(0));
        let mut seen = vec![0; 4096];
        target.load(0, &mut seen);
        assert!(seen == pattern(5, 0, 4096));
        assert_eq!(channel.next_event().expect("reads"), None);
        drop((ends, target, channel, address, datagrams));
    });
}

#[test]
fn a_region_that_a_child_deregisters_stays_registered() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let target = ExposedRegion::allocate(&ends.domain, 64, Access::REMOTE_WRITE).expect("memory");
        let region = Arc::clone(target.region());
        in_a_child(|| {
            // SAFETY: the child's memory is a copy; nothing else in the child drops this region.
            let region: MemoryRegion = unsafe { std::ptr::read(Arc::as_ptr(&region)) };
            region.deregister().expect("does nothing");
        });
        ends.post_inline(ends.a, 1, SendOperation::Write(target.remote()), b"still");
        assert_eq!(ends.one().result, Ok(0));
        ends.still_works();
    });
}
