//! What windows do not do: accesses that the device refuses, and requests that are refused before it sees them.

use std::sync::Arc;

use zcmi::verbs::{
    Access, CompletionStatus, ExposedRegion, QueuePairKind, SendFlags, SendOperation, UnboundWindow, WindowKind,
};

use crate::common::pattern;
use crate::memory_window::{
    ALL, LENGTH, after, allocate, bind, bound, contents, invalidate, read, region, unbound, write,
};
use crate::pair::{Ends, Memory, Settings, status};
use crate::support::with_device;

#[test]
fn accesses_outside_the_region_are_refused() {
    with_device(|fixture| {
        for kind in [WindowKind::One, WindowKind::Two] {
            // Across the begin, before it, across the end, behind it, wholly elsewhere.
            for (range, offset, length) in [
                (0..10, -1i64, 2),
                (0..10, -1, 1),
                (LENGTH - 10..LENGTH, 9, 2),
                (LENGTH - 10..LENGTH, 10, 1),
                (0..LENGTH, i64::MIN, 1),
            ] {
                let mut ends = Ends::reliable(fixture);
                let (b, region) = (ends.b, region(&ends));
                let window = allocate(&ends, kind);
                let window = bind(&mut ends, window, region.region(), range, Access::REMOTE_WRITE);
                let refused = write(&mut ends, b, after(window.remote(), offset as u64), &vec![0xee; length]);
                assert_eq!(status(refused), CompletionStatus::RemoteAccess, "{kind:?} {offset} {length}");
                assert_eq!(contents(&region), pattern(1, 0, LENGTH), "{kind:?} {offset} {length}");
            }
        }
    });
}

#[test]
fn accesses_outside_the_window_are_refused_except_by_soft_roce() {
    with_device(|fixture| {
        let is_soft = fixture.context.name().starts_with("rxe");
        for kind in [WindowKind::One, WindowKind::Two] {
            // Across the begin, before it, across the end, behind it.
            for (offset, length) in [(-1i64, 2), (-1, 1), (9, 2), (10, 1), (0, 11)] {
                let mut ends = Ends::reliable(fixture);
                let (b, region) = (ends.b, region(&ends));
                let window = allocate(&ends, kind);
                let access = Access::REMOTE_READ | Access::REMOTE_WRITE;
                let window = bind(&mut ends, window, region.region(), 100..110, access);
                let remote = after(window.remote(), offset as u64);
                match write(&mut ends, b, remote, &vec![0xee; length]) {
                    // It looks at the region's bounds alone. Should this fail one day, say so in `BoundWindow`.
                    Ok(_) => assert!(is_soft, "{kind:?} {offset} {length}"),
                    refused => {
                        assert!(!is_soft, "Soft-RoCE has learnt it");
                        assert_eq!(status(refused), CompletionStatus::RemoteAccess, "{kind:?} {offset} {length}");
                        assert_eq!(contents(&region), pattern(1, 0, LENGTH), "{kind:?} {offset} {length}");
                    }
                }
            }
        }
    });
}

#[test]
fn a_window_gives_no_more_than_its_rights() {
    with_device(|fixture| {
        for kind in [WindowKind::One, WindowKind::Two] {
            for given in ALL {
                for used in ALL {
                    let mut ends = Ends::reliable(fixture);
                    let (b, region) = (ends.b, region(&ends));
                    let window = allocate(&ends, kind);
                    let window = bind(&mut ends, window, region.region(), 0..8, given);
                    let remote = window.remote();
                    let result = if used == Access::REMOTE_READ {
                        read(&mut ends, b, remote, 8).map(|_| 0)
                    } else if used == Access::REMOTE_WRITE {
                        write(&mut ends, b, remote, b"12345678")
                    } else {
                        let sink = Memory::Buffer(ends.poisoned(8));
                        ends.post(b, 1, SendOperation::FetchAdd { remote, add: 1 }, sink);
                        ends.one().result
                    };
                    if given == used {
                        assert_eq!(result, Ok(0), "{kind:?} {given} {used}");
                    } else {
                        assert_eq!(status(result), CompletionStatus::RemoteAccess, "{kind:?} {given} {used}");
                        assert_eq!(contents(&region), pattern(1, 0, LENGTH), "{kind:?} {given} {used}");
                    }
                }
            }
        }
    });
}

#[test]
fn the_regions_own_key_does_not_open_what_only_windows_lend() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let (b, region) = (ends.b, region(&ends));
        let refused = write(&mut ends, b, region.remote(), b"x");
        assert_eq!(status(refused), CompletionStatus::RemoteAccess);
    });
}

/// What a refused bind says; the window is there again.
#[track_caller]
fn refused_bind(
    ends: &mut Ends,
    window: UnboundWindow,
    region: &ExposedRegion,
    range: std::ops::Range<usize>,
    access: Access,
    parts: &[&str],
) -> UnboundWindow {
    let refused =
        ends.queue.bind_window(ends.a, 1, window, region.region(), range, access).expect_err("must be refused");
    let error = refused.error.expect("an error");
    assert_eq!(error.errno(), Some(libc::EINVAL), "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    refused.window.expect("the window")
}

#[test]
fn binds_that_cannot_be_are_refused_with_the_window() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let region = region(&ends);
        let mut window = allocate(&ends, WindowKind::Two);
        for range in [0..0, 5..5, 0..LENGTH + 1, LENGTH..LENGTH + 1, usize::MAX - 1..usize::MAX] {
            let parts = ["no range of bytes in a region of 4096"];
            window = refused_bind(&mut ends, window, &region, range, Access::REMOTE_READ, &parts);
        }
        for access in [Access::ON_DEMAND, Access::MW_BIND, Access::RELAXED_ORDERING, Access::HUGETLB] {
            let parts = ["does not give", &access.to_string()];
            window = refused_bind(&mut ends, window, &region, 0..8, access | Access::REMOTE_READ, &parts);
        }
        let without = ExposedRegion::allocate(&ends.domain, 64, Access::REMOTE_WRITE).expect("registers");
        window = refused_bind(&mut ends, window, &without, 0..8, Access::REMOTE_READ, &["lacks MW_BIND"]);
        let read_only = ExposedRegion::allocate(&ends.domain, 64, Access::MW_BIND | Access::REMOTE_READ);
        let read_only = read_only.expect("registers");
        for access in [Access::REMOTE_WRITE, Access::REMOTE_ATOMIC] {
            window = refused_bind(&mut ends, window, &read_only, 0..8, access, &["needs LOCAL_WRITE"]);
        }
        // Reading it is enough for a window to read.
        let readable = bind(&mut ends, window, read_only.region(), 0..8, Access::REMOTE_READ);
        let b = ends.b;
        assert_eq!(read(&mut ends, b, readable.remote(), 8), Ok(vec![0; 8]));

        let one = allocate(&ends, WindowKind::One);
        let zero_based = Access::REMOTE_READ | Access::ZERO_BASED;
        refused_bind(&mut ends, one, &region, 0..8, zero_based, &["type 1 cannot be ZERO_BASED"]);
        ends.still_works();
    });
}

#[test]
fn window_region_and_queue_pair_are_of_one_domain() {
    with_device(|fixture| {
        let (mut ends, other) = (Ends::reliable(fixture), Ends::reliable(fixture));
        let (ours, theirs) = (region(&ends), region(&other));
        for kind in [WindowKind::One, WindowKind::Two] {
            let window = allocate(&ends, kind);
            refused_bind(&mut ends, window, &theirs, 0..8, Access::REMOTE_READ, &["different protection domains"]);
            let window = allocate(&other, kind);
            refused_bind(&mut ends, window, &ours, 0..8, Access::REMOTE_READ, &["window and region"]);
            let window = allocate(&other, kind);
            refused_bind(&mut ends, window, &theirs, 0..8, Access::REMOTE_READ, &["window and queue pair"]);
        }
        ends.still_works();
    });
}

#[test]
fn queue_pairs_that_cannot_are_refused() {
    with_device(|fixture| {
        let mut datagrams = Ends::new(fixture, Settings { kind: QueuePairKind::Ud, ..Settings::default() });
        let ours = region(&datagrams);
        let window = allocate(&datagrams, WindowKind::Two);
        refused_bind(&mut datagrams, window, &ours, 0..8, Access::REMOTE_READ, &["of this type has no windows"]);

        let mut ends = Ends::reliable(fixture);
        let ours = region(&ends);
        let window = allocate(&ends, WindowKind::Two);
        drop(ends.queue.detach(ends.a));
        refused_bind(&mut ends, window, &ours, 0..8, Access::REMOTE_READ, &["removed"]);
    });
}

#[test]
fn an_unreliable_connection_has_windows_too() {
    with_device(|fixture| {
        let mut ends = Ends::new(fixture, Settings { kind: QueuePairKind::Uc, ..Settings::default() });
        let (b, region) = (ends.b, region(&ends));
        let window = allocate(&ends, WindowKind::Two);
        let window = bind(&mut ends, window, region.region(), 0..64, Access::REMOTE_WRITE);
        assert_eq!(write(&mut ends, b, window.remote(), b"unreliable"), Ok(0));
        // A message behind it has arrived: so has the write.
        ends.still_works();
        assert_eq!(&contents(&region)[..10], b"unreliable");
        ends.queue.invalidate_window(ends.a, 1, window).expect("takes the request");
        let done = ends.one();
        match done.result {
            Ok(_) => drop(unbound(done.window)),
            // Soft-RoCE binds here and does not invalidate.
            Err(_) => drop(bound(done.window)),
        }
    });
}

#[test]
fn a_full_queue_gives_the_window_back() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let (a, ours) = (ends.a, region(&ends));
        let (window, other) = (allocate(&ends, WindowKind::Two), allocate(&ends, WindowKind::Two));
        let other = bind(&mut ends, other, ours.region(), 0..8, Access::REMOTE_READ);
        let theirs = ExposedRegion::allocate(&ends.domain, 64, Access::REMOTE_WRITE).expect("registers");
        let mut posted = 0;
        while ends.queue.room(a) > 0 {
            ends.post_inline(a, posted, SendOperation::Write(theirs.remote()), b"full");
            posted += 1;
        }
        let refused = ends.queue.bind_window(a, 1, window, ours.region(), 0..8, Access::REMOTE_READ);
        let refused = refused.expect_err("it is full");
        assert!(refused.error.is_none(), "{:?}", refused.error);
        let window = refused.window.expect("the window");
        let refused = ends.queue.invalidate_window(a, 1, other).expect_err("it is full");
        assert!(refused.error.is_none(), "{:?}", refused.error);
        let other = refused.window.expect("the window");
        assert!(ends.wait(posted as usize).iter().all(|done| done.result.is_ok()));
        // Neither has been touched.
        let again = bind(&mut ends, window, ours.region(), 8..16, Access::REMOTE_READ);
        invalidate(&mut ends, other);
        invalidate(&mut ends, again);
    });
}

#[test]
fn a_window_of_type_2_is_invalidated_where_it_is_bound_and_not_rebound() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let (b, region) = (ends.b, region(&ends));
        let window = allocate(&ends, WindowKind::Two);
        let window = bind(&mut ends, window, region.region(), 0..8, Access::REMOTE_WRITE);
        let refused = ends.queue.invalidate_window(ends.b, 1, window).expect_err("it is bound elsewhere");
        let error = refused.error.expect("an error");
        assert!(error.to_string().contains("bound to another queue pair"), "{error}");
        let window = refused.window.expect("the window");
        let refused = ends.queue.rebind_window(ends.a, 1, window, region.region(), 8..16, Access::REMOTE_WRITE);
        let refused = refused.expect_err("it is of type 2");
        let error = refused.error.expect("an error");
        assert!(error.to_string().contains("invalidated before it is bound"), "{error}");
        let window = refused.window.expect("the window");
        assert_eq!(write(&mut ends, b, window.remote(), b"as ever"), Ok(0));
        invalidate(&mut ends, window);
    });
}

#[test]
fn windows_are_no_ordinary_requests() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let region = region(&ends);
        let window = allocate(&ends, WindowKind::Two);
        let binding = window.binding(region.region(), 0..8, Access::REMOTE_READ).expect("can be bound");
        let operations = [SendOperation::BindWindow(&binding), SendOperation::LocalInvalidate(7)];
        for operation in operations {
            let local = zcmi::verbs::Local::Inline(b"");
            let request = zcmi::verbs::SendRequest { token: 1, operation, local, flags: SendFlags::SIGNALED };
            let refused = ends.queue.post(ends.a, request).expect_err("must be refused");
            let error = refused.error.expect("an error");
            assert!(error.to_string().contains("calls of their own"), "{error}");
        }
        drop(binding);
        // It can still be bound.
        bind(&mut ends, window, region.region(), 0..8, Access::REMOTE_READ);
    });
}

#[test]
fn a_queue_pair_that_cannot_send_yet_gives_the_window_back() {
    with_device(|fixture| {
        let mut ends = Ends::unconnected(fixture, Settings::default());
        let region = region(&ends);
        for kind in [WindowKind::One, WindowKind::Two] {
            let window = allocate(&ends, kind);
            let held = Arc::strong_count(region.region());
            let parts = ["not yet moved to state RTS"];
            let window = refused_bind(&mut ends, window, &region, 0..8, Access::REMOTE_READ, &parts);
            assert_eq!(Arc::strong_count(region.region()), held, "nothing leads there");
            drop(window);
        }
    });
}
