//! Atomics and atomic writes.

use zcmi::verbs::{
    Access, CompletionStatus, ExposedRegion, Local, QueuePair, Remote, SendFlags, SendOperation, SendRequest,
};

use crate::pair::{Ends, Memory, RawEnds, Settings, kernel_is_at_least, status};
use crate::support::with_device;

/// A region whose words are `0, 1, 2, …` times 1000.
fn words(ends: &Ends, access: Access) -> ExposedRegion {
    let region = ExposedRegion::allocate(&ends.domain, 4096, access).expect("memory");
    for word in 0..512 {
        region.store(word * 8, &(word as u64 * 1000).to_ne_bytes());
    }
    region
}

fn word(region: &ExposedRegion, index: usize) -> u64 {
    let mut bytes = [0; 8];
    region.load(index * 8, &mut bytes);
    u64::from_ne_bytes(bytes)
}

fn at(region: &ExposedRegion, offset: u64) -> Remote {
    Remote { address: region.remote().address + offset, ..region.remote() }
}

/// Posts an atomic and answers the old value.
fn old_value(ends: &mut Ends, operation: SendOperation<'_>) -> u64 {
    let sink = ends.poisoned(8);
    ends.post(ends.a, 1, operation, Memory::Buffer(sink));
    let done = ends.one();
    assert_eq!(done.result, Ok(0));
    u64::from_ne_bytes(done.memory.expect("its buffer").buffer()[..].try_into().expect("8 bytes"))
}

#[test]
fn fetch_and_add_answers_the_old_value_and_wraps() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let region = words(&ends, Access::REMOTE_ATOMIC);
        let add = |add| SendOperation::FetchAdd { remote: at(&region, 16), add };
        assert_eq!(old_value(&mut ends, add(5)), 2000);
        assert_eq!(old_value(&mut ends, add(0)), 2005, "read by a loopback operation");
        assert_eq!(old_value(&mut ends, add(u64::MAX)), 2005);
        assert_eq!(word(&region, 2), 2004, "as the processor sees it");
        assert_eq!((word(&region, 1), word(&region, 3)), (1000, 3000), "its neighbours");
    });
}

#[test]
fn compare_and_swap_hits_and_misses() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let region = words(&ends, Access::REMOTE_ATOMIC);
        let swap = |compare, swap| SendOperation::CompareSwap { remote: at(&region, 24), compare, swap };
        assert_eq!(old_value(&mut ends, swap(3000, 7)), 3000);
        assert_eq!(word(&region, 3), 7);
        assert_eq!(old_value(&mut ends, swap(3000, 8)), 7, "missed");
        assert_eq!(word(&region, 3), 7);
        assert_eq!(old_value(&mut ends, swap(7, u64::MAX)), 7);
        assert_eq!(word(&region, 3), u64::MAX);
    });
}

#[test]
fn many_atomics_in_flight_lose_no_addition() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let region = words(&ends, Access::REMOTE_ATOMIC);
        let mut seen = Vec::new();
        for _ in 0..16 {
            for _ in 0..8 {
                for key in [ends.a, ends.b] {
                    let sink = ends.poisoned(8);
                    ends.post(key, 1, SendOperation::FetchAdd { remote: at(&region, 0), add: 1 }, Memory::Buffer(sink));
                }
            }
            for done in ends.wait(16) {
                assert_eq!(done.result, Ok(0));
                let bytes = done.memory.expect("its buffer").buffer()[..].try_into().expect("8 bytes");
                seen.push(u64::from_ne_bytes(bytes));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..256).collect::<Vec<_>>(), "each old value once");
        assert_eq!(word(&region, 0), 256);
    });
}

#[test]
fn a_misaligned_atomic_is_refused_with_its_memory() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let region = words(&ends, Access::REMOTE_ATOMIC);
        for misaligned in 1..8 {
            let remote = at(&region, misaligned);
            for operation in
                [SendOperation::FetchAdd { remote, add: 1 }, SendOperation::CompareSwap { remote, compare: 0, swap: 1 }]
            {
                let local = Local::Owned(Memory::Buffer(ends.poisoned(8)));
                let request = SendRequest { token: 1, operation, local, flags: SendFlags::SIGNALED };
                let refused = ends.queue.post(ends.a, request).expect_err("misaligned");
                let error = refused.error.expect("a reason");
                assert!(error.detail().is_some_and(|detail| detail.contains("multiple of 8")), "{error}");
                assert!(refused.memory.is_some());
            }
        }
        assert!((0..512).all(|index| word(&region, index) == index as u64 * 1000), "nothing has changed");
        ends.still_works();
    });
}

#[test]
fn an_atomic_with_too_little_room_for_the_old_value_fails() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let region = words(&ends, Access::REMOTE_ATOMIC);
        let local = Local::Owned(Memory::Buffer(ends.poisoned(7)));
        let operation = SendOperation::FetchAdd { remote: at(&region, 0), add: 1 };
        let request = SendRequest { token: 1, operation, local, flags: SendFlags::SIGNALED };
        match ends.queue.post(ends.a, request) {
            // rxe's driver looks; and the memory is back at once.
            Err(refused) => {
                assert_eq!(refused.error.expect("a reason").errno(), Some(libc::EINVAL));
                assert!(refused.memory.is_some());
                assert_eq!((ends.queue.outstanding(ends.a), word(&region, 0)), (0, 0));
                let mut done = Vec::new();
                assert_eq!(ends.queue.poll(&mut done).expect("polls"), 0);
                assert!(done.is_empty(), "it is not reported once more: {done:?}");
                ends.still_works();
            }
            Ok(()) => drop(status(ends.one().result)),
        }
    });
}

#[test]
fn an_atomic_without_the_right_is_refused_by_the_peer() {
    with_device(|fixture| {
        let lacks_it = Access::REMOTE_READ | Access::REMOTE_WRITE;
        // The region's right, then the queue pair's.
        for (region, pair) in [(lacks_it, crate::pair::everything()), (crate::pair::everything(), lacks_it)] {
            let mut ends = Ends::new(fixture, Settings { access: pair, ..Settings::default() });
            let region = words(&ends, region);
            let sink = ends.poisoned(8);
            ends.post(ends.a, 1, SendOperation::FetchAdd { remote: at(&region, 0), add: 1 }, Memory::Buffer(sink));
            let refused = status(ends.one().result);
            assert!(
                matches!(refused, CompletionStatus::RemoteAccess | CompletionStatus::RemoteInvalidRequest),
                "{refused:?}"
            );
            assert_eq!(word(&region, 0), 0);
        }
    });
}

#[test]
fn an_atomic_write_puts_eight_bytes_or_is_honestly_not_there() {
    with_device(|fixture| {
        let settings = Settings { atomic_write: true, ..Settings::default() };
        let domain = zcmi::verbs::ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = zcmi::verbs::CompletionQueue::create(&fixture.context, 64).expect("a queue");
        if let Err(error) = QueuePair::builder(&domain, &completions).atomic_write().create() {
            assert_eq!(error.errno(), Some(libc::EOPNOTSUPP), "{error}");
            return;
        }
        let mut ends = Ends::new(fixture, settings);
        let region = words(&ends, Access::REMOTE_WRITE);
        assert!(ends.pair(ends.a).has_atomic_write());
        let bytes = 0x0102_0304_0506_0708_u64.to_ne_bytes();
        ends.queue.post_atomic_write(ends.a, 77, at(&region, 40), bytes, SendFlags::SIGNALED).expect("takes it");
        let done = ends.one();
        assert_eq!((done.token, done.is_receive), (77, false));
        if kernel_is_at_least(6, 2) {
            assert_eq!(done.result, Ok(0));
            assert_eq!(word(&region, 5), 0x0102_0304_0506_0708);
            assert_eq!((word(&region, 4), word(&region, 6)), (4000, 6000), "its neighbours");
            ends.still_works();
        } else {
            assert!(done.result.is_err(), "an older kernel does not know it");
            assert_eq!(word(&region, 5), 5000);
        }
    });
}

#[test]
fn an_atomic_write_that_cannot_be_is_refused_before_it_is_posted() {
    with_device(|fixture| {
        // Not made for it.
        let mut ends = Ends::reliable(fixture);
        let region = words(&ends, Access::REMOTE_WRITE);
        assert!(!ends.pair(ends.a).has_atomic_write());
        let refused = ends.queue.post_atomic_write(ends.a, 1, at(&region, 0), [1; 8], SendFlags::SIGNALED);
        let error = refused.expect_err("refused").error.expect("a reason");
        assert_eq!(error.errno(), Some(libc::EOPNOTSUPP), "{error}");
        assert_eq!(ends.queue.outstanding(ends.a), 0);
        ends.still_works();
        // Misaligned.
        let settings = Settings { atomic_write: true, ..Settings::default() };
        let raw = RawEnds::new(fixture, &settings, 64);
        if raw.a.has_atomic_write() {
            let remote = Remote { address: 4, key: 0 };
            // SAFETY: the completion queue is not that of an owning queue.
            let posted = unsafe { raw.a.post_atomic_write(1, remote, [0; 8], SendFlags::SIGNALED) };
            let error = posted.expect_err("misaligned");
            assert_eq!(error.errno(), Some(libc::EINVAL));
            assert!(error.detail().is_some_and(|detail| detail.contains("0x4")), "{error}");
        }
    });
}
