//! What is in flight when its queue pair ends: it comes back, once, and only when the device has let go of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use zcmi::verbs::{
    CompletionStatus as Status, ExposedRegion, InFlight, Local, OwningQueue, ProtectionDomain, QueuePairKey,
    RegisteredBuffer, Remote, Segment, SendFlags, SendOperation, SendRequest, Tuning,
};

use crate::common::resources::Resources;
use crate::pair::{Ends, Memory, PATIENCE, POISON, RawMemory, Settings, connect, everything, status};
use crate::support::{Fixture, with_device};

#[test]
fn draining_completes_everything_or_says_that_it_did_not() {
    with_device(|fixture| {
        let tuning = Tuning { rnr_retry_count: 7, ..Settings::default().tuning };
        let mut ends = Ends::new(fixture, Settings { tuning, ..Settings::default() });
        for token in 0..5 {
            let sink = ends.poisoned(8);
            ends.receive(ends.a, token, sink);
        }
        // These wait for a receive for ever.
        for token in 10..15 {
            let source = ends.filled(1, 8);
            ends.post(ends.a, token, SendOperation::Send, Memory::Buffer(source));
        }
        let mut done = Vec::new();
        let is_drained = ends.queue.drain(ends.a, Duration::from_secs(5), &mut done).expect("drains");
        eprintln!("drained: {is_drained}, {} of 10", done.len());
        assert_eq!(is_drained, done.len() == 10);
        assert_eq!(ends.queue.outstanding(ends.a), 10 - done.len());
        done.extend(ends.queue.detach(ends.a).expect("it is there").destroy());
        let mut tokens: Vec<_> = done.iter().map(|done| done.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14], "each exactly once");
        assert!(done.iter().all(|done| done.memory.is_some() && status(done.result) == Status::Flushed), "{done:?}");
        let mut late = Vec::new();
        ends.queue.poll(&mut late).expect("polls");
        assert!(late.is_empty(), "{late:?}");
    });
}

/// Memory that counts itself, and that knows whether its queue pair must be gone when it goes.
#[derive(Debug)]
struct Tracked {
    buffer: RegisteredBuffer,
    alive: Arc<AtomicUsize>,
    pairs_at_most: usize,
}

impl Tracked {
    fn new(domain: &Arc<ProtectionDomain>, alive: &Arc<AtomicUsize>, pairs_at_most: usize) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        let mut buffer = RegisteredBuffer::allocate(domain, 64).expect("memory");
        buffer.fill(POISON);
        Self { buffer, alive: Arc::clone(alive), pairs_at_most }
    }
}

// SAFETY: the buffer keeps it.
unsafe impl InFlight for Tracked {
    fn segment(&self) -> Segment {
        self.buffer.segment()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
        // Not while the thread unwinds: one panic is enough.
        if !std::thread::panicking() {
            let pairs = Resources::now().of("qp");
            assert!(pairs <= self.pairs_at_most, "{pairs} queue pairs while their memory goes");
        }
    }
}

/// Two connected queue pairs with receives and sends that wait for ever.
fn stuck(
    fixture: &Fixture,
    alive: &Arc<AtomicUsize>,
    pairs_at_most: usize,
) -> (OwningQueue<Tracked>, [QueuePairKey; 2]) {
    let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
    let completions = zcmi::verbs::CompletionQueue::create(&fixture.context, 256).expect("a queue");
    let mut queue = OwningQueue::new(completions);
    let settings = Settings::default();
    let keys =
        [(); 2].map(|()| queue.add(crate::pair::build(&domain, queue.completions(), None, &settings)).expect("fits"));
    let [a, b] = keys.map(|key| queue.queue_pair(key).expect("there"));
    connect(fixture, a, b, everything(), &Tuning { rnr_retry_count: 7, ..settings.tuning });
    for token in 0..4 {
        queue.post_receive(keys[0], token, Tracked::new(&domain, alive, pairs_at_most)).expect("takes it");
        let local = Local::Owned(Tracked::new(&domain, alive, pairs_at_most));
        let request = SendRequest { token, operation: SendOperation::Send, local, flags: SendFlags::SIGNALED };
        queue.post(keys[0], request).expect("takes it");
    }
    (queue, keys)
}

#[test]
fn a_queue_dropped_in_flight_destroys_its_queue_pairs_before_it_lets_the_memory_go() {
    with_device(|fixture| {
        let baseline = Resources::now().of("qp");
        let alive = Arc::new(AtomicUsize::new(0));
        let (queue, _) = stuck(fixture, &alive, baseline);
        assert_eq!(alive.load(Ordering::Relaxed), 8);
        drop(queue);
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_queue_pair_taken_out_in_flight_is_destroyed_before_its_memory_goes() {
    with_device(|fixture| {
        let baseline = Resources::now().of("qp");
        for by_drop in [true, false] {
            let alive = Arc::new(AtomicUsize::new(0));
            let (mut queue, [a, _]) = stuck(fixture, &alive, baseline + 1);
            let detached = queue.detach(a).expect("it is there");
            assert_eq!(alive.load(Ordering::Relaxed), 8, "it holds all of it");
            assert!(format!("{detached:?}").contains('8'));
            if by_drop {
                // The other way round: the queue goes first.
                drop(queue);
                assert_eq!(alive.load(Ordering::Relaxed), 8);
                drop(detached);
            } else {
                let flushed = detached.destroy();
                assert_eq!((alive.load(Ordering::Relaxed), flushed.len()), (8, 8));
                assert_eq!(Resources::now().of("qp"), baseline + 1);
                drop(flushed);
            }
            assert_eq!(alive.load(Ordering::Relaxed), 0);
        }
    });
}

/// Who gets memory back after a queue pair's end has it to itself, whatever the peer goes on doing.
#[test]
fn memory_that_came_back_is_written_by_nobody() {
    with_device(|fixture| {
        let mut ends = Ends::new(
            fixture,
            Settings { tuning: Tuning { rnr_retry_count: 7, ..Settings::default().tuning }, ..Settings::default() },
        );
        for round in 0..20 {
            for token in 0..8 {
                let sink = ends.poisoned(4096);
                ends.receive(ends.b, token, sink);
            }
            for token in 0..8 {
                let source = ends.filled(3, 4096);
                ends.post(ends.a, token, SendOperation::Send, Memory::Buffer(source));
            }
            // In the midst of it, at another point each round.
            let mut done = Vec::new();
            for _ in 0..round {
                ends.queue.poll(&mut done).expect("polls");
            }
            let flushed = ends.queue.detach(ends.b).expect("it is there").destroy();
            let mut buffers: Vec<_> =
                flushed.into_iter().map(|done| done.memory.expect("its buffer").buffer()).collect();
            for buffer in &mut buffers {
                buffer.fill(0x77);
            }
            // The sender has given up on all of them.
            let mut patience = Instant::now();
            while ends.queue.outstanding(ends.a) > 0 && patience.elapsed() < PATIENCE {
                if ends.queue.poll(&mut done).expect("polls") > 0 {
                    patience = Instant::now();
                }
                std::thread::yield_now();
            }
            assert!(buffers.iter().all(|buffer| buffer.iter().all(|&byte| byte == 0x77)), "round {round}");
            ends.queue.detach(ends.a).expect("it is there").destroy();
            let keys = [(); 2].map(|()| {
                let pair = crate::pair::build(&ends.domain, ends.queue.completions(), None, &ends.settings);
                ends.queue.add(pair).expect("fits")
            });
            [ends.a, ends.b] = keys;
            connect(fixture, ends.pair(ends.a), ends.pair(ends.b), everything(), &ends.settings.tuning);
        }
        ends.still_works();
    });
}

#[test]
fn completions_of_a_queue_pair_that_is_gone_touch_no_newer_request() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let target = ExposedRegion::allocate(&ends.domain, 64, everything()).expect("memory");
        for token in 0..8 {
            let source = ends.filled(1, 64);
            ends.post(ends.a, token, SendOperation::Write(target.remote()), Memory::Buffer(source));
        }
        // Their completions are, or will be, in the queue; nobody polls.
        let mut other = Ends::reliable(fixture);
        std::mem::swap(&mut other.settings, &mut ends.settings);
        assert_eq!(ends.queue.detach(ends.a).expect("it is there").destroy().len(), 8);
        // New requests take the same entries.
        let key = ends.queue.add(crate::pair::build(&ends.domain, ends.queue.completions(), None, &ends.settings));
        let key = key.expect("fits");
        assert_eq!(key, ends.a, "the key is used again");
        ends.pair(key).prepare(&crate::pair::local_end(fixture, everything())).expect("INIT");
        for token in 100..108 {
            let sink = ends.poisoned(64);
            ends.receive(key, token, sink);
        }
        let (begun, mut done) = (Instant::now(), Vec::new());
        while ends.queue.poll(&mut done).expect("polls") > 0 {
            assert!(begun.elapsed() < PATIENCE);
        }
        assert!(done.is_empty(), "{done:?}");
        assert_eq!(ends.queue.outstanding(key), 8);
        assert_eq!(ends.queue.detach(key).expect("it is there").destroy().len(), 8);
    });
}

/// The driver refuses the second of three: the first is posted, the others are reported.
#[test]
fn what_the_device_does_not_take_of_a_batch_is_reported_by_the_next_poll() {
    with_device(|fixture| {
        for is_detached in [false, true] {
            let mut ends = Ends::reliable(fixture);
            let target = ExposedRegion::allocate(&ends.domain, 64, everything()).expect("memory");
            for token in 0..3 {
                let (operation, length) = match token {
                    // Too short for the old value, which rxe's driver sees.
                    1 => (SendOperation::FetchAdd { remote: target.remote(), add: 1 }, 4),
                    _ => (SendOperation::Write(target.remote()), 64),
                };
                let local = Local::Owned(Memory::Buffer(ends.filled(token, length)));
                let request = SendRequest { token, operation, local, flags: SendFlags::SIGNALED };
                ends.queue.stage(ends.a, request).expect("it fits");
            }
            let Err(error) = ends.queue.flush() else {
                // Another driver sees it later.
                continue;
            };
            assert_eq!((error.call(), error.errno()), ("ibv_post_send", Some(libc::EINVAL)));
            assert_eq!(ends.queue.outstanding(ends.a), 1);
            let mut done = if is_detached {
                let mut done = ends.queue.detach(ends.a).expect("it is there").destroy();
                assert!(done.iter().all(|done| status_of(done) == Some(Status::Flushed)), "{done:?}");
                ends.queue.poll(&mut done).expect("polls");
                done
            } else {
                let done = ends.wait(3);
                for done in &done {
                    let expected = if done.token == 0 { None } else { Some(Status::NotPosted) };
                    assert_eq!(status_of(done), expected, "{done:?}");
                    if let Err(error) = done.result {
                        assert_eq!(error.vendor_error, libc::EINVAL as u32);
                    }
                }
                ends.still_works();
                done
            };
            done.sort_by_key(|done| done.token);
            assert_eq!(done.iter().map(|done| done.token).collect::<Vec<_>>(), [0, 1, 2], "each exactly once");
            for (done, length) in done.into_iter().zip([64, 4, 64]) {
                assert_eq!(done.memory.expect("its buffer").buffer().used(), 0..length);
            }
        }
    });
}

fn status_of(done: &zcmi::verbs::Completed<Memory>) -> Option<Status> {
    done.result.err().map(|error| error.status)
}

/// Staged, never posted: it comes back too.
#[test]
fn what_is_only_staged_when_its_queue_pair_is_taken_out_comes_back() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        for token in 0..3 {
            let raw = ends.filled(1, 8);
            let local = Local::Owned(Memory::Raw(RawMemory { segment: raw.segment(), keep: vec![raw] }));
            let operation = SendOperation::Write(Remote::default());
            ends.queue.stage(ends.a, SendRequest { token, operation, local, flags: SendFlags::NONE }).expect("fits");
        }
        let flushed = ends.queue.detach(ends.a).expect("it is there").destroy();
        assert_eq!(flushed.iter().map(|done| done.token).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(flushed.into_iter().all(|done| done.memory.is_some() && status(done.result) == Status::Flushed));
        ends.queue.flush().expect("nothing");
        assert_eq!(ends.queue.poll(&mut Vec::new()).expect("polls"), 0);
    });
}
