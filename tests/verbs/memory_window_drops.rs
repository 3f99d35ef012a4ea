//! Memory windows that are dropped, flushed or outlived: in every order, and soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zcmi::verbs::{Access, CompletionStatus, ExposedRegion, WindowKind};

use crate::memory_window::{LENGTH, allocate, bind, bound, contents, invalidate, region, unbound, write};
use crate::pair::{Ends, PATIENCE, status};
use crate::support::with_device;

/// Ends with a window bound over all of a region, for writing.
fn with_window(fixture: &crate::support::Fixture, kind: WindowKind) -> (Ends, ExposedRegion, zcmi::verbs::BoundWindow) {
    let mut ends = Ends::reliable(fixture);
    let region = region(&ends);
    let window = allocate(&ends, kind);
    let window = bind(&mut ends, window, region.region(), 0..LENGTH, Access::REMOTE_WRITE);
    (ends, region, window)
}

/// Does what blocks for 50 s where a window is still bound to a queue pair that is destroyed.
fn soon<R>(what: impl FnOnce() -> R) -> R {
    let begun = Instant::now();
    let result = what();
    assert!(begun.elapsed() < PATIENCE, "it took {:?}", begun.elapsed());
    result
}

#[test]
fn a_dropped_window_takes_its_key_back() {
    with_device(|fixture| {
        for kind in [WindowKind::One, WindowKind::Two] {
            let (mut ends, region, window) = with_window(fixture, kind);
            let (b, remote) = (ends.b, window.remote());
            assert_eq!(write(&mut ends, b, remote, b"in time"), Ok(0));
            let before = contents(&region);
            soon(|| drop(window));
            assert_eq!(status(write(&mut ends, b, remote, b"late")), CompletionStatus::RemoteAccess);
            assert_eq!(contents(&region), before);
            soon(|| drop(ends));
        }
    });
}

#[test]
fn a_window_holds_its_region_and_is_held_by_nothing() {
    with_device(|fixture| {
        let (mut ends, region, window) = with_window(fixture, WindowKind::Two);
        let (b, remote) = (ends.b, window.remote());
        let weak = Arc::downgrade(region.region());
        drop(region);
        assert!(weak.upgrade().is_some(), "the window leads there");
        assert_eq!(write(&mut ends, b, remote, b"still"), Ok(0));
        let window = invalidate(&mut ends, window);
        assert!(weak.upgrade().is_none(), "an unbound window leads nowhere");
        drop(window);
    });
}

#[test]
fn every_order_of_dropping_ends_soon() {
    with_device(|fixture| {
        // Window, queue with its queue pairs, region, domain.
        for order in permutations(vec![0, 1, 2, 3]) {
            let (Ends { queue, domain, .. }, region, window) = with_window(fixture, WindowKind::Two);
            let (mut window, mut queue, mut region, mut domain) =
                (Some(window), Some(queue), Some(region), Some(domain));
            soon(|| {
                for &what in &order {
                    match what {
                        0 => drop(window.take()),
                        1 => drop(queue.take()),
                        2 => drop(region.take()),
                        _ => drop(domain.take()),
                    }
                }
            });
        }
    });
}

fn permutations(items: Vec<u8>) -> Vec<Vec<u8>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let with = |first: &u8| {
        let rest: Vec<u8> = items.iter().copied().filter(|item| item != first).collect();
        permutations(rest).into_iter().map(|rest| [&[*first][..], &rest].concat()).collect::<Vec<_>>()
    };
    items.iter().flat_map(with).collect()
}

#[test]
fn the_end_of_a_queue_pair_frees_what_is_bound_to_it() {
    with_device(|fixture| {
        let (mut ends, region, window) = with_window(fixture, WindowKind::Two);
        let weak = Arc::downgrade(region.region());
        drop(region);
        let detached = ends.queue.detach(ends.a).expect("it is there");
        // Its key names no queue pair any more.
        let refused = ends.queue.invalidate_window(ends.a, 1, window).expect_err("it was removed");
        assert!(refused.error.expect("an error").to_string().contains("removed"));
        let window = refused.window.expect("the window");
        assert_ne!(window.length(), 0);
        assert!(soon(|| detached.destroy()).is_empty());
        assert!(weak.upgrade().is_none(), "the region goes with the window");
        assert_eq!((window.remote(), window.length(), window.access()), (Default::default(), 0, Access::LOCAL_READ));
        assert!(window.region().is_none());
        // Nothing can be done with it.
        let refused = ends.queue.invalidate_window(ends.b, 1, window).expect_err("it was freed");
        assert!(refused.error.expect("an error").to_string().contains("freed together with its queue pair"));
        drop(refused.window);
    });
}

#[test]
fn a_window_of_type_1_outlives_the_queue_pair_that_bound_it() {
    with_device(|fixture| {
        let (mut ends, _region, window) = with_window(fixture, WindowKind::One);
        assert!(soon(|| ends.queue.detach(ends.a).expect("it is there").destroy()).is_empty());
        assert_eq!(window.length(), LENGTH as u64);
        // Another queue pair of the domain unbinds it.
        ends.queue.invalidate_window(ends.b, 1, window).expect("takes the request");
        let done = ends.one();
        match done.result {
            Ok(_) => drop(unbound(done.window)),
            // Its peer is gone, which some devices notice first.
            Err(_) => drop(bound(done.window)),
        }
    });
}

#[test]
fn dropping_everything_with_requests_in_flight_ends_soon() {
    with_device(|fixture| {
        for kind in [WindowKind::One, WindowKind::Two] {
            for _ in 0..8 {
                let mut ends = Ends::reliable(fixture);
                let region = region(&ends);
                let window = allocate(&ends, kind);
                ends.queue
                    .bind_window(ends.a, 1, window, region.region(), 0..8, Access::REMOTE_READ)
                    .expect("takes it");
                soon(|| drop(ends));

                let (mut ends, _region, window) = with_window(fixture, kind);
                ends.queue.invalidate_window(ends.a, 1, window).expect("takes it");
                soon(|| drop(ends));
            }
        }
    });
}

#[test]
fn windows_in_flight_come_back_with_their_queue_pair() {
    with_device(|fixture| {
        let (mut ends, region, window) = with_window(fixture, WindowKind::Two);
        let other = allocate(&ends, WindowKind::Two);
        ends.queue.bind_window(ends.a, 1, other, region.region(), 0..8, Access::REMOTE_READ).expect("takes it");
        ends.queue.invalidate_window(ends.a, 2, window).expect("takes it");
        let detached = ends.queue.detach(ends.a).expect("it is there");
        let done = soon(|| detached.destroy());
        let tokens: Vec<_> = done.iter().map(|done| (done.token, status(done.result))).collect();
        assert_eq!(tokens, [(1, CompletionStatus::Flushed), (2, CompletionStatus::Flushed)]);
        let mut windows = done.into_iter().map(|done| done.window);
        let (other, window) = (unbound(windows.next().expect("two")), bound(windows.next().expect("two")));
        assert!(window.region().is_none(), "it was freed with the queue pair");
        let error = other.binding(region.region(), 0..8, Access::REMOTE_READ).expect_err("it was freed");
        assert!(error.to_string().contains("freed"), "{error}");
    });
}

#[test]
fn a_flushed_bind_gives_a_window_that_can_only_be_dropped() {
    with_device(|fixture| {
        for kind in [WindowKind::One, WindowKind::Two] {
            let mut ends = Ends::reliable(fixture);
            let (a, region) = (ends.a, region(&ends));
            ends.pair(a).fail().expect("ERROR");
            let window = allocate(&ends, kind);
            ends.queue.bind_window(a, 1, window, region.region(), 0..8, Access::REMOTE_READ).expect("takes it");
            let done = drained(&mut ends);
            assert_eq!((done.token, status(done.result)), (1, CompletionStatus::Flushed));
            let window = unbound(done.window);
            let refused = ends.queue.bind_window(ends.b, 2, window, region.region(), 0..8, Access::REMOTE_READ);
            let refused = refused.expect_err("it is in doubt");
            let error = refused.error.expect("an error");
            assert_eq!(error.errno(), Some(libc::EINVAL));
            assert!(error.to_string().contains("can only be dropped"), "{error}");
            soon(|| drop(refused.window.expect("the window")));
            soon(|| drop(ends));
        }
    });
}

#[test]
fn a_flushed_invalidation_gives_a_window_that_can_only_be_dropped() {
    with_device(|fixture| {
        for kind in [WindowKind::One, WindowKind::Two] {
            let (mut ends, _region, window) = with_window(fixture, kind);
            let a = ends.a;
            ends.pair(a).fail().expect("ERROR");
            ends.queue.invalidate_window(a, 1, window).expect("takes it");
            let done = drained(&mut ends);
            assert_eq!((done.token, status(done.result)), (1, CompletionStatus::Flushed));
            let window = bound(done.window);
            let refused = ends.queue.invalidate_window(a, 2, window).expect_err("it is in doubt");
            let error = refused.error.expect("an error");
            assert_eq!(error.errno(), Some(libc::EINVAL));
            assert!(error.to_string().contains("can only be dropped"), "{error}");
            let window = refused.window.expect("the window");
            assert_eq!(window.length(), LENGTH as u64, "it may still be bound");
            soon(|| drop(window));
            soon(|| drop(ends));
        }
    });
}

/// The one request of end `a`, which is in ERROR. The driver may withhold its completion until the queue pair ends.
fn drained(ends: &mut Ends) -> zcmi::verbs::Completed<crate::pair::Memory> {
    let mut done = Vec::new();
    if !ends.queue.drain(ends.a, Duration::from_secs(5), &mut done).expect("drains") {
        eprintln!("the driver withholds a flushed window request");
        done.extend(ends.queue.detach(ends.a).expect("it is there").destroy());
    }
    assert_eq!(done.len(), 1, "{done:?}");
    done.remove(0)
}

#[test]
fn a_reset_queue_pair_still_knows_its_windows() {
    with_device(|fixture| {
        let (ends, _region, window) = with_window(fixture, WindowKind::Two);
        ends.pair(ends.a).reset().expect("RESET");
        assert_eq!(window.length(), LENGTH as u64, "it stays bound");
        soon(|| drop(ends));
        assert!(window.region().is_none());
    });
}

#[test]
fn a_forked_child_leaves_the_window_to_its_parent() {
    with_device(|fixture| {
        let (mut ends, region, window) = with_window(fixture, WindowKind::Two);
        // SAFETY: the child only drops, and leaves without unwinding.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(window);
            drop(ends);
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        let mut child_status = 0;
        // SAFETY: the child is ours and the status is writable.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut child_status, 0) }, child);
        assert_eq!(child_status, 0);
        let b = ends.b;
        assert_eq!(write(&mut ends, b, window.remote(), b"parent"), Ok(0));
        assert_eq!(&contents(&region)[..6], b"parent");
    });
}
