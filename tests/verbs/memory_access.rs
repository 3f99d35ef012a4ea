//! What registered memory lets requests and peers do.

use std::ops::Range;
use std::sync::Arc;

use zcmi::verbs::{Access, CompletionStatus, MemoryRegion, Registrable, Remote, Segment, SendOperation, SharedBytes};

use crate::common::pattern;
use crate::memory_region::{PAGE, Pages};
use crate::memory_window::{ALL, after, read, write};
use crate::pair::{Ends, Memory, RawMemory, status};
use crate::support::with_device;

fn register(ends: &Ends, memory: Arc<dyn Registrable>, range: Range<usize>, access: Access) -> MemoryRegion {
    MemoryRegion::register(&ends.domain, memory, range, access).expect("registers")
}

fn remote(region: &MemoryRegion) -> Remote {
    Remote { address: region.address(), key: region.remote_key() }
}

/// A request of our own that uses bytes of `region`, which the test keeps.
fn local(region: &MemoryRegion, range: Range<usize>) -> Memory {
    let address = region.address() + range.start as u64;
    let segment = Segment { address, length: range.len() as u32, local_key: region.local_key() };
    Memory::Raw(RawMemory { segment, keep: Vec::new() })
}

/// Shows that `region`, which names `pages` from `offset` on, is reached by its own addresses, by us and by the peer.
fn is_reached(ends: &mut Ends, region: &MemoryRegion, pages: &Pages, offset: usize) {
    let (a, b, length) = (ends.a, ends.b, region.length());
    // The peer writes and reads its first and its last bytes.
    assert_eq!(write(ends, b, remote(region), b"begin"), Ok(0));
    assert_eq!(write(ends, b, after(remote(region), length as u64 - 3), b"end"), Ok(0));
    assert_eq!((pages.read(offset, 5), pages.read(offset + length - 3, 3)), (b"begin".to_vec(), b"end".to_vec()));
    pages.write(offset, &pattern(9, 0, length));
    assert_eq!(read(ends, b, remote(region), length), Ok(pattern(9, 0, length)));
    // We send from it and receive into it.
    let (into, from) = (2..7, 10..20);
    let sent = pages.read(offset + from.start, from.len());
    let sink = ends.poisoned(10);
    ends.receive(b, 1, sink);
    ends.post(a, 2, SendOperation::Send, local(region, from));
    let (_, received) = ends.both();
    assert_eq!(received.result, Ok(10));
    assert_eq!(received.memory.expect("its buffer").buffer()[..10], sent);
    ends.queue.post_receive(a, 3, local(region, into.clone())).expect("takes the receive");
    ends.post_inline(b, 4, SendOperation::Send, b"hello");
    let (_, received) = ends.both();
    assert_eq!(received.result, Ok(5));
    assert_eq!(pages.read(offset + into.start, 5), b"hello");
    // Beyond it, nothing.
    let refused = write(ends, b, after(remote(region), length as u64), b"x");
    assert_eq!(status(refused), CompletionStatus::RemoteAccess);
}

#[test]
fn a_region_is_reached_by_the_address_it_was_given() {
    with_device(|fixture| {
        let access = Access::REMOTE_READ | Access::REMOTE_WRITE;
        for (range, start) in [(0..PAGE, 0x7000_0000_0000), (PAGE..3 * PAGE, 0), (37..PAGE + 5, 0xabc0_0025)] {
            let (mut ends, pages) = (Ends::reliable(fixture), Pages::new(4 * PAGE));
            let region = MemoryRegion::register_at(&ends.domain, pages.clone(), range.clone(), start, access);
            let region = region.expect("registers");
            is_reached(&mut ends, &region, &pages, range.start);
        }
        let (mut ends, pages) = (Ends::reliable(fixture), Pages::new(2 * PAGE));
        let region = register(&ends, pages.clone(), PAGE..2 * PAGE, access | Access::ZERO_BASED);
        is_reached(&mut ends, &region, &pages, PAGE);
    });
}

#[test]
fn the_address_in_this_process_is_not_that_of_a_region_with_another() {
    with_device(|fixture| {
        let (mut ends, pages) = (Ends::reliable(fixture), Pages::new(PAGE));
        let region =
            MemoryRegion::register_at(&ends.domain, pages.clone(), 0..PAGE, 0x7000_0000_0000, Access::REMOTE_WRITE);
        let region = region.expect("registers");
        let (b, by_its_old) = (ends.b, Remote { address: pages.address() as u64, key: region.remote_key() });
        assert_eq!(status(write(&mut ends, b, by_its_old, b"x")), CompletionStatus::RemoteAccess);
        assert_eq!(pages.read(0, PAGE), vec![0; PAGE]);
    });
}

#[test]
fn relaxed_ordering_changes_nothing_of_what_arrives() {
    with_device(|fixture| {
        let (mut ends, pages) = (Ends::reliable(fixture), Pages::new(2 * PAGE));
        let access = Access::REMOTE_READ | Access::REMOTE_WRITE | Access::RELAXED_ORDERING;
        let region = register(&ends, pages.clone(), 0..2 * PAGE, access);
        is_reached(&mut ends, &region, &pages, 0);
    });
}

#[test]
fn pages_registered_on_demand_come_when_the_device_touches_them() {
    with_device(|fixture| {
        if !MemoryRegion::supports_on_demand(&fixture.context) {
            eprintln!("SKIPPED: the device has no on-demand paging");
            return;
        }
        let (mut ends, pages) = (Ends::reliable(fixture), Pages::new(64 * PAGE));
        let access = Access::ON_DEMAND | Access::REMOTE_READ | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC;
        let region = register(&ends, pages.clone(), 0..64 * PAGE, access);
        let b = ends.b;
        // Untouched until now by anybody.
        assert_eq!(read(&mut ends, b, after(remote(&region), 3 * PAGE as u64), 100), Ok(vec![0; 100]));
        assert_eq!(write(&mut ends, b, after(remote(&region), 9 * PAGE as u64), b"begins"), Ok(0));
        assert_eq!(pages.read(9 * PAGE, 6), b"begins");
        let sink = Memory::Buffer(ends.poisoned(8));
        let word = after(remote(&region), 20 * PAGE as u64);
        ends.post(b, 1, SendOperation::FetchAdd { remote: word, add: 3 }, sink);
        assert_eq!(ends.one().result, Ok(0));
        assert_eq!(pages.read(20 * PAGE, 8), 3u64.to_ne_bytes());
        // Only what begins at a page is right on Soft-RoCE, so memory that begins elsewhere is not even registered there.
        let failed = MemoryRegion::register(&ends.domain, pages, 16..PAGE, Access::ON_DEMAND).expect_err("refused");
        assert_eq!(failed.errno(), Some(libc::EINVAL), "{failed}");
        assert!(failed.to_string().contains("where in its page"), "{failed}");
    });
}

#[test]
fn peers_read_bytes_that_we_go_on_reading_and_cannot_write_them() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let b = ends.b;
        let bytes = SharedBytes::new(pattern(5, 0, 5000));
        let region = register(&ends, bytes.clone(), 1000..5000, Access::REMOTE_READ);
        assert_eq!(read(&mut ends, b, remote(&region), 4000).as_deref(), Ok(&bytes[1000..]));
        assert_eq!(status(write(&mut ends, b, remote(&region), b"x")), CompletionStatus::RemoteAccess);
        assert_eq!(bytes[..], pattern(5, 0, 5000));
    });
}

#[test]
fn a_region_gives_no_more_than_its_rights() {
    with_device(|fixture| {
        for given in [Access::LOCAL_WRITE].into_iter().chain(ALL) {
            for used in ALL {
                let (mut ends, pages) = (Ends::reliable(fixture), Pages::new(PAGE));
                let region = register(&ends, pages.clone(), 0..PAGE, given);
                let (b, place) = (ends.b, remote(&region));
                let result = if used == Access::REMOTE_READ {
                    read(&mut ends, b, place, 8).map(|_| 0)
                } else if used == Access::REMOTE_WRITE {
                    write(&mut ends, b, place, b"12345678")
                } else {
                    let sink = Memory::Buffer(ends.poisoned(8));
                    ends.post(b, 1, SendOperation::FetchAdd { remote: place, add: 1 }, sink);
                    ends.one().result
                };
                if given == used {
                    assert_eq!(result, Ok(0), "{given} {used}");
                } else {
                    assert_eq!(status(result), CompletionStatus::RemoteAccess, "{given} {used}");
                    assert_eq!(pages.read(0, PAGE), vec![0; PAGE], "{given} {used}");
                }
            }
        }
    });
}

#[test]
fn the_key_of_a_deregistered_region_opens_nothing() {
    with_device(|fixture| {
        let (mut ends, pages) = (Ends::reliable(fixture), Pages::new(PAGE));
        let region = register(&ends, pages.clone(), 0..PAGE, Access::REMOTE_WRITE);
        let (b, place) = (ends.b, remote(&region));
        assert_eq!(write(&mut ends, b, place, b"now"), Ok(0));
        region.deregister().expect("deregisters");
        assert_eq!(status(write(&mut ends, b, place, b"late")), CompletionStatus::RemoteAccess);
        assert_eq!(pages.read(0, 4), b"now\0");
    });
}
