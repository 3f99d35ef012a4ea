//! Memory windows in good flow: bound, used, invalidated, by us and by the peer.

use std::ops::Range;
use std::sync::Arc;

use zcmi::verbs::{
    Access, BoundWindow, CompletedWindow, CompletionError, CompletionStatus, ExposedRegion, MemoryRegion, QueuePairKey,
    Remote, SendFlags, SendList, SendOperation, UnboundWindow, WindowKind, WorkOpcode,
};

use crate::common::pattern;
use crate::pair::{Ends, Memory, RawEnds, Settings, build, connect, segment, status, wait_raw};
use crate::support::{Fixture, with_device};

/// Bytes of the regions that windows are bound to.
pub(crate) const LENGTH: usize = 4096;
/// All that a window can give.
pub(crate) const ALL: [Access; 3] = [Access::REMOTE_READ, Access::REMOTE_WRITE, Access::REMOTE_ATOMIC];

/// A region for windows, which no peer can reach otherwise, filled with a pattern.
pub(crate) fn region(ends: &Ends) -> ExposedRegion {
    let region = ExposedRegion::allocate(&ends.domain, LENGTH, Access::LOCAL_WRITE | Access::MW_BIND);
    let region = region.expect("registers");
    region.store(0, &pattern(1, 0, LENGTH));
    region
}

/// All bytes of a region.
pub(crate) fn contents(region: &ExposedRegion) -> Vec<u8> {
    let mut bytes = vec![0; region.length()];
    region.load(0, &mut bytes);
    bytes
}

pub(crate) fn allocate(ends: &Ends, kind: WindowKind) -> UnboundWindow {
    UnboundWindow::allocate(&ends.domain, kind).expect("a window")
}

/// The window that came with a completion, bound.
#[track_caller]
pub(crate) fn bound(window: Option<CompletedWindow>) -> BoundWindow {
    match window {
        Some(CompletedWindow::Bound(window)) => window,
        other => panic!("{other:?}"),
    }
}

/// The window that came with a completion, unbound.
#[track_caller]
pub(crate) fn unbound(window: Option<CompletedWindow>) -> UnboundWindow {
    match window {
        Some(CompletedWindow::Unbound(window)) => window,
        other => panic!("{other:?}"),
    }
}

/// Binds at end `a`.
#[track_caller]
pub(crate) fn bind(
    ends: &mut Ends,
    window: UnboundWindow,
    region: &Arc<MemoryRegion>,
    range: Range<usize>,
    access: Access,
) -> BoundWindow {
    ends.queue.bind_window(ends.a, 71, window, region, range, access).expect("takes the bind");
    let done = ends.one();
    assert_eq!((done.token, done.result, done.queue_pair, done.is_receive), (71, Ok(0), ends.a, false));
    bound(done.window)
}

/// Invalidates at end `a`.
#[track_caller]
pub(crate) fn invalidate(ends: &mut Ends, window: BoundWindow) -> UnboundWindow {
    ends.queue.invalidate_window(ends.a, 72, window).expect("takes the request");
    let done = ends.one();
    assert_eq!((done.token, done.result), (72, Ok(0)));
    unbound(done.window)
}

/// A write of at most 64 bytes from `from`.
pub(crate) fn write(ends: &mut Ends, from: QueuePairKey, remote: Remote, bytes: &[u8]) -> Result<u32, CompletionError> {
    ends.post_inline(from, 73, SendOperation::Write(remote), bytes);
    ends.one().result
}

/// A read of `length` bytes by `from`.
pub(crate) fn read(
    ends: &mut Ends,
    from: QueuePairKey,
    remote: Remote,
    length: usize,
) -> Result<Vec<u8>, CompletionError> {
    let sink = Memory::Buffer(ends.poisoned(length));
    ends.post(from, 74, SendOperation::Read(remote), sink);
    let done = ends.one();
    done.result.map(|_| done.memory.expect("its buffer").buffer()[..length].to_vec())
}

pub(crate) fn after(remote: Remote, bytes: u64) -> Remote {
    Remote { address: remote.address.wrapping_add(bytes), ..remote }
}

#[test]
fn a_window_opens_its_range_and_closes_it_again() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let (b, region) = (ends.b, region(&ends));
        let window = allocate(&ends, WindowKind::Two);
        assert_eq!((window.kind(), window.keys_left()), (WindowKind::Two, 255));
        assert!(Arc::ptr_eq(window.domain(), &ends.domain));
        let access = Access::REMOTE_READ | Access::REMOTE_WRITE;
        let window = bind(&mut ends, window, region.region(), 100..200, access);
        let remote = window.remote();
        assert_eq!((window.kind(), window.length(), window.access()), (WindowKind::Two, 100, access));
        assert_eq!(remote.address, region.region().address() + 100);
        assert_ne!(remote.key, region.region().remote_key());

        // The first and the last bytes, and all of it.
        let mut expected = pattern(1, 0, LENGTH);
        assert_eq!(write(&mut ends, b, remote, b"begin"), Ok(0));
        assert_eq!(write(&mut ends, b, after(remote, 97), b"end"), Ok(0));
        expected[100..105].copy_from_slice(b"begin");
        expected[197..200].copy_from_slice(b"end");
        assert_eq!(read(&mut ends, b, remote, 100).as_deref(), Ok(&expected[100..200]));
        assert_eq!(contents(&region), expected);

        let window = invalidate(&mut ends, window);
        assert_eq!(window.keys_left(), 254);
        ends.still_works();
        let refused = write(&mut ends, b, remote, b"late");
        assert_eq!(status(refused), CompletionStatus::RemoteAccess);
        assert_eq!(contents(&region), expected);
    });
}

#[test]
fn a_window_can_be_bound_again_under_another_key() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let (b, region, other) = (ends.b, region(&ends), region(&ends));
        let window = allocate(&ends, WindowKind::Two);
        let first = bind(&mut ends, window, region.region(), 0..LENGTH, Access::REMOTE_WRITE);
        let old = first.remote();
        let window = invalidate(&mut ends, first);
        let second = bind(&mut ends, window, other.region(), 8..16, Access::REMOTE_WRITE);
        assert_ne!(second.remote().key, old.key);
        assert_eq!(second.remote().address, other.region().address() + 8);
        assert_eq!(write(&mut ends, b, second.remote(), b"anew"), Ok(0));
        assert_eq!(&contents(&other)[8..12], b"anew");
        assert_eq!(status(write(&mut ends, b, old, b"late")), CompletionStatus::RemoteAccess);
        assert_eq!(contents(&region), pattern(1, 0, LENGTH));
    });
}

#[test]
fn atomics_need_and_have_their_own_right() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let region = region(&ends);
        region.store(64, &7u64.to_ne_bytes());
        let window = allocate(&ends, WindowKind::Two);
        let window = bind(&mut ends, window, region.region(), 64..72, Access::REMOTE_ATOMIC);
        let sink = Memory::Buffer(ends.poisoned(8));
        ends.post(ends.b, 1, SendOperation::FetchAdd { remote: window.remote(), add: 5 }, sink);
        let done = ends.one();
        assert_eq!(done.result, Ok(0));
        assert_eq!(done.memory.expect("its buffer").buffer()[..8], 7u64.to_ne_bytes());
        assert_eq!(contents(&region)[64..72], 12u64.to_ne_bytes());
    });
}

#[test]
fn a_window_can_count_from_zero() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let (b, region) = (ends.b, region(&ends));
        let window = allocate(&ends, WindowKind::Two);
        let access = Access::REMOTE_WRITE | Access::ZERO_BASED;
        let window = bind(&mut ends, window, region.region(), 40..50, access);
        assert_eq!((window.remote().address, window.access()), (0, access));
        assert_eq!(write(&mut ends, b, after(window.remote(), 3), b"zero"), Ok(0));
        assert_eq!(&contents(&region)[43..47], b"zero");
    });
}

#[test]
fn several_windows_lie_over_one_region() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let (b, region) = (ends.b, region(&ends));
        let mut windows = Vec::new();
        for index in 0..20 {
            let window = allocate(&ends, WindowKind::Two);
            // Each overlaps its neighbours.
            windows.push(bind(&mut ends, window, region.region(), index * 10..index * 10 + 20, Access::REMOTE_WRITE));
        }
        // Every other goes, and the rest still serve.
        let mut index = 0;
        windows.retain(|_| {
            index += 1;
            index % 2 == 0
        });
        for (index, window) in windows.iter().enumerate() {
            assert_eq!(write(&mut ends, b, window.remote(), &[index as u8 + 1]), Ok(0));
            assert_eq!(contents(&region)[20 * index + 10], index as u8 + 1);
        }
    });
}

#[test]
fn a_window_is_bound_and_told_of_in_order() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let region = region(&ends);
        let (window, sink) = (allocate(&ends, WindowKind::Two), ends.poisoned(16));
        ends.receive(ends.b, 1, sink);
        ends.queue.bind_window(ends.a, 2, window, region.region(), 0..9, Access::REMOTE_READ).expect("takes the bind");
        ends.post_inline(ends.a, 3, SendOperation::Send, b"bound");
        let done = ends.wait(3);
        let ours: Vec<_> = done.iter().filter(|done| !done.is_receive).map(|done| (done.token, done.result)).collect();
        assert_eq!(ours, [(2, Ok(0)), (3, Ok(0))]);
        let window = done.into_iter().find_map(|done| done.window);
        let b = ends.b;
        assert_eq!(read(&mut ends, b, bound(window).remote(), 9).as_deref(), Ok(&pattern(1, 0, 9)[..]));
    });
}

/// A further pair of ends in the same protection domain.
fn further(fixture: &Fixture, ends: &mut Ends) -> (QueuePairKey, QueuePairKey) {
    let [c, d] = [(); 2].map(|()| {
        let pair = build(&ends.domain, ends.queue.completions(), None, &ends.settings);
        ends.queue.add(pair).expect("fits")
    });
    connect(fixture, ends.pair(c), ends.pair(d), ends.settings.access, &ends.settings.tuning);
    (c, d)
}

#[test]
fn a_window_of_type_2_serves_its_own_queue_pair_only() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let (b, region) = (ends.b, region(&ends));
        let (_, d) = further(fixture, &mut ends);
        let window = allocate(&ends, WindowKind::Two);
        let window = bind(&mut ends, window, region.region(), 0..64, Access::REMOTE_WRITE);
        assert_eq!(status(write(&mut ends, d, window.remote(), b"stranger")), CompletionStatus::RemoteAccess);
        assert_eq!(contents(&region), pattern(1, 0, LENGTH));
        assert_eq!(write(&mut ends, b, window.remote(), b"friend"), Ok(0));
        ends.still_works();
    });
}

#[test]
fn a_window_of_type_1_serves_its_domain_and_moves_by_binds() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let (a, b, region, other) = (ends.a, ends.b, region(&ends), region(&ends));
        let (_, d) = further(fixture, &mut ends);
        let window = allocate(&ends, WindowKind::One);
        let access = Access::REMOTE_READ | Access::REMOTE_WRITE;
        let window = bind(&mut ends, window, region.region(), 10..20, access);
        assert_eq!((window.kind(), window.length(), window.access()), (WindowKind::One, 10, access));
        let first = window.remote();
        assert_eq!(write(&mut ends, b, first, b"one"), Ok(0));
        assert_eq!(write(&mut ends, d, after(first, 5), b"two"), Ok(0));
        assert_eq!((&contents(&region)[10..13], &contents(&region)[15..18]), (&b"one"[..], &b"two"[..]));

        // Elsewhere, at once.
        ends.queue.rebind_window(a, 5, window, other.region(), 30..40, access).expect("takes the bind");
        let done = ends.one();
        assert_eq!((done.token, done.result), (5, Ok(0)));
        let window = bound(done.window);
        let second = window.remote();
        assert_ne!(second.key, first.key);
        assert!(Arc::ptr_eq(&window.region().expect("it is bound"), other.region()));
        assert_eq!(write(&mut ends, b, second, b"moved"), Ok(0));
        assert_eq!(&contents(&other)[30..35], b"moved");
        assert_eq!(status(write(&mut ends, d, first, b"late")), CompletionStatus::RemoteAccess);

        // And to nothing.
        let before = contents(&other);
        let window = invalidate(&mut ends, window);
        assert_eq!(window.keys_left(), 252);
        assert_eq!(status(write(&mut ends, b, second, b"late")), CompletionStatus::RemoteAccess);
        assert_eq!(contents(&other), before);
    });
}

#[test]
fn a_peer_can_invalidate_a_window_by_a_message() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let (a, b, region) = (ends.a, ends.b, region(&ends));
        let windows = [(); 2].map(|()| allocate(&ends, WindowKind::Two));
        let [window, other] =
            windows.map(|window| bind(&mut ends, window, region.region(), 0..64, Access::REMOTE_WRITE));
        let (remote, others) = (window.remote(), other.remote());

        let sink = ends.poisoned(16);
        ends.receive(a, 3, sink);
        ends.post_inline(b, 4, SendOperation::SendWithInvalidate(remote.key), b"done");
        let (sent, received) = ends.both();
        assert_eq!((sent.result, received.result), (Ok(0), Ok(4)));
        let mut arrival = received.arrival;
        if arrival.invalidated_key.is_none() {
            eprintln!("this device does not say what was invalidated; the test does");
            arrival.invalidated_key = Some(remote.key);
        }
        assert_eq!(arrival.invalidated_key, Some(remote.key));
        let refused = other.invalidated_by_peer(&arrival).expect_err("it was the other");
        assert!(refused.to_string().contains("another key"), "{refused}");
        let other = refused.window;
        let window = window.invalidated_by_peer(&arrival).expect("it has");

        // It can be bound again, and the other was left alone.
        assert_eq!(write(&mut ends, b, others, b"mine"), Ok(0));
        let window = bind(&mut ends, window, region.region(), 64..128, Access::REMOTE_WRITE);
        assert_eq!(write(&mut ends, b, window.remote(), b"new"), Ok(0));
        drop(other);
        assert_eq!(status(write(&mut ends, b, remote, b"late")), CompletionStatus::RemoteAccess);
        assert_eq!(&contents(&region)[..4], b"mine");
    });
}

#[test]
fn an_invalidation_that_the_completion_does_not_name_is_not_believed() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let (a, b, region) = (ends.a, ends.b, region(&ends));
        let window = allocate(&ends, WindowKind::Two);
        let window = bind(&mut ends, window, region.region(), 0..64, Access::REMOTE_WRITE);
        let remote = window.remote();
        let sink = ends.poisoned(16);
        ends.receive(a, 1, sink);
        ends.post_inline(b, 2, SendOperation::Send, b"plain");
        let (_, received) = ends.both();
        let refused = window.invalidated_by_peer(&received.arrival).expect_err("it has not");
        assert_eq!(refused.error.errno(), Some(libc::EINVAL));
        assert!(refused.to_string().contains("names no key"), "{refused}");
        // Had the peer done it and the device not told, doing it again could crash the host.
        let refused = ends.queue.invalidate_window(a, 3, refused.window).expect_err("it is in doubt");
        assert!(refused.error.expect("an error").to_string().contains("can only be dropped"));
        drop(refused.window);
        assert_eq!(status(write(&mut ends, b, remote, b"late")), CompletionStatus::RemoteAccess);
    });
}

#[test]
fn a_window_of_type_1_cannot_be_invalidated_by_a_peer() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let region = region(&ends);
        let window = allocate(&ends, WindowKind::One);
        let window = bind(&mut ends, window, region.region(), 0..64, Access::REMOTE_WRITE);
        let sink = ends.poisoned(16);
        ends.receive(ends.a, 1, sink);
        ends.post_inline(ends.b, 2, SendOperation::Send, b"plain");
        let (_, received) = ends.both();
        let refused = window.invalidated_by_peer(&received.arrival).expect_err("it cannot");
        assert!(refused.to_string().contains("type 1"), "{refused}");
        invalidate(&mut ends, refused.window);
    });
}

#[test]
fn a_window_retires_before_an_old_key_comes_again() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let region = region(&ends);
        let mut window = allocate(&ends, WindowKind::Two);
        let mut keys = std::collections::HashSet::new();
        for left in (0..255).rev() {
            let bound = bind(&mut ends, window, region.region(), 0..1, Access::REMOTE_READ);
            assert!(keys.insert(bound.remote().key), "a key came again");
            window = invalidate(&mut ends, bound);
            assert_eq!(window.keys_left(), left);
        }
        let refused = ends.queue.bind_window(ends.a, 1, window, region.region(), 0..1, Access::REMOTE_READ);
        let refused = refused.expect_err("no key is left");
        let error = refused.error.expect("an error");
        assert_eq!(error.errno(), Some(libc::ENOSPC), "{error}");
        assert!(error.to_string().contains("drop it and allocate another"), "{error}");
        drop(refused.window.expect("the window"));

        // One of type 1 needs a key to be unbound, too.
        let mut window = allocate(&ends, WindowKind::One);
        for _ in 0..127 {
            let bound = bind(&mut ends, window, region.region(), 0..1, Access::REMOTE_READ);
            window = invalidate(&mut ends, bound);
        }
        assert_eq!(window.keys_left(), 1);
        let refused = ends.queue.bind_window(ends.a, 1, window, region.region(), 0..1, Access::REMOTE_READ);
        assert_eq!(refused.expect_err("too few").error.expect("an error").errno(), Some(libc::ENOSPC));
        ends.still_works();
    });
}

#[test]
fn the_unsafe_tier_binds_and_invalidates() {
    with_device(|fixture| {
        let ends = RawEnds::new(fixture, &Settings::default(), 64);
        let region = ExposedRegion::allocate(&ends.domain, LENGTH, Access::LOCAL_WRITE | Access::MW_BIND);
        let region = region.expect("registers");
        let mut source = zcmi::verbs::RegisteredBuffer::allocate(&ends.domain, 8).expect("memory");
        for kind in [WindowKind::One, WindowKind::Two] {
            source.copy_from_slice(if kind == WindowKind::One { b"type one" } else { b"type two" });
            let window = UnboundWindow::allocate(&ends.domain, kind).expect("a window");
            let binding = window.binding(region.region(), 16..24, Access::REMOTE_WRITE).expect("can be bound");
            // SAFETY: the window lives and is not used otherwise until its completion, which is waited for.
            unsafe { ends.a.post_bind(1, &binding, SendFlags::SIGNALED) }.expect("posts");
            let seen = wait_raw(&ends.completions, 1)[0];
            assert_eq!((seen.wr_id, seen.status, seen.opcode), (1, CompletionStatus::Success, WorkOpcode::BindWindow));
            let key = binding.key();
            // SAFETY: it was posted and has completed.
            let window = unsafe { window.assume_bound(&ends.a, binding) };
            assert!(key.is_none_or(|key| key == window.remote().key));

            // SAFETY: the source is not touched until the completion, which is waited for.
            let posted = unsafe {
                let write = SendOperation::Write(window.remote());
                ends.b.post_send(2, write, &[segment(&source)], SendFlags::SIGNALED)
            };
            posted.expect("posts");
            assert_eq!(wait_raw(&ends.completions, 1)[0].status, CompletionStatus::Success);
            assert_eq!(&contents(&region)[16..24], &source[..]);

            let opcode = match kind {
                WindowKind::One => {
                    let unbinding = window.unbinding().expect("can be unbound");
                    // SAFETY: as for the bind.
                    unsafe { ends.a.post_bind(3, &unbinding, SendFlags::SIGNALED) }.expect("posts");
                    WorkOpcode::BindWindow
                }
                WindowKind::Two => {
                    window.unbinding().expect_err("by an invalidation only");
                    let operation = SendOperation::LocalInvalidate(window.remote().key);
                    // SAFETY: the window is bound to this queue pair, and nobody else invalidates it.
                    unsafe { ends.a.post_send(3, operation, &[], SendFlags::SIGNALED) }.expect("posts");
                    WorkOpcode::LocalInvalidate
                }
            };
            let seen = wait_raw(&ends.completions, 1)[0];
            assert_eq!((seen.wr_id, seen.status, seen.opcode), (3, CompletionStatus::Success, opcode));
            // SAFETY: it has completed.
            let window = unsafe { window.assume_invalidated() };
            assert_eq!(window.keys_left(), if kind == WindowKind::One { 253 } else { 254 });

            // A bind in a list, with a message behind it.
            if kind == WindowKind::Two {
                let binding = window.binding(region.region(), 0..8, Access::REMOTE_READ).expect("can be bound");
                let mut list = SendList::new();
                list.push(4, SendOperation::BindWindow(&binding), &[], SendFlags::SIGNALED);
                // No key is looked at for no bytes.
                list.push(5, SendOperation::Write(region.remote()), &[], SendFlags::SIGNALED);
                // SAFETY: as for the bind above; the write has no memory.
                unsafe { ends.a.post_send_list(&mut list) }.expect("posts");
                let seen = wait_raw(&ends.completions, 2);
                assert!(seen.iter().all(|seen| seen.status == CompletionStatus::Success), "{seen:?}");
                // SAFETY: it was posted and has completed.
                drop(unsafe { window.assume_bound(&ends.a, binding) });
            }
        }
    });
}
