//! Completion queues and their events.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zcmi::verbs::{
    AsyncEventKind, CompletionBatch, CompletionChannel, CompletionQueue, Local, OwningQueue, ProtectionDomain,
    QueuePair, QueuePairCapabilities, QueuePairKey, SendFlags, SendOperation, SendRequest, Tuning, WorkOpcode,
};

use crate::pair::{Ends, Memory, PATIENCE, RawEnds, Settings, connect, everything, wait_raw};
use crate::support::{Fixture, with_device};

/// Waits until the descriptor is readable.
fn wait_readable(descriptor: impl AsFd) {
    assert!(is_readable(&descriptor, PATIENCE.as_secs() as i64), "no event came");
}

fn is_readable(descriptor: &impl AsFd, seconds: i64) -> bool {
    let mut list = [PollFd::new(descriptor, PollFlags::IN)];
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    poll(&mut list, Some(&time)).expect("polls") > 0
}

/// Two connected queue pairs of the unsafe tier, whose receives complete to `receives`.
fn connected(fixture: &Fixture, sends: &Arc<CompletionQueue>, receives: &Arc<CompletionQueue>) -> [QueuePair; 2] {
    let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
    let pairs = [(); 2].map(|()| {
        let builder = QueuePair::builder(&domain, sends).receive_completions(receives);
        builder.create().expect("a queue pair")
    });
    connect(fixture, &pairs[0], &pairs[1], everything(), &Tuning::default());
    pairs
}

/// Sends nothing from `a` to `b`.
fn send(a: &QueuePair, b: &QueuePair, flags: SendFlags) {
    // SAFETY: nothing is named, and no owning queue is about.
    unsafe { b.post_receive(1, &[]) }.expect("posts");
    // SAFETY: as above.
    unsafe { a.post_send(2, SendOperation::Send, &[], flags) }.expect("posts");
}

#[test]
fn arm_then_drain_then_wait_misses_nothing() {
    with_device(|fixture| {
        let sends = CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let receives = CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let [a, b] = connected(fixture, &sends, &receives);
        let mut batch = CompletionBatch::new();
        for _ in 0..100 {
            receives.request_notification().expect("arms");
            assert_eq!(receives.poll(&mut batch).expect("polls").len(), 0);
            send(&a, &b, SendFlags::NONE);
            wait_readable(&*receives);
            assert_eq!(receives.drain_events().expect("reads"), 1, "armed once, one event");
            assert_eq!(wait_raw(&receives, 1)[0].opcode, WorkOpcode::Receive);
            assert_eq!(receives.drain_events().expect("reads"), 0);
        }
        // What is not armed makes none.
        send(&a, &b, SendFlags::NONE);
        wait_raw(&receives, 1);
        assert_eq!(receives.drain_events().expect("reads"), 0);
        assert!(!is_readable(&*receives, 0));
    });
}

#[test]
fn events_on_a_shared_channel_name_their_queue() {
    with_device(|fixture| {
        let channel = CompletionChannel::create(&fixture.context).expect("a channel");
        let [sends, receives] = [(); 2].map(|()| CompletionQueue::create_on(&channel, 64).expect("a queue"));
        assert_ne!(sends.key(), receives.key());
        let [a, b] = connected(fixture, &sends, &receives);
        sends.request_notification().expect("arms");
        receives.request_notification().expect("arms");
        send(&a, &b, SendFlags::SIGNALED);
        let (begun, mut keys) = (Instant::now(), Vec::new());
        while keys.len() < 2 {
            assert!(begun.elapsed() < PATIENCE);
            wait_readable(&*channel);
            keys.extend(std::iter::from_fn(|| channel.next_event().expect("reads")));
        }
        keys.sort_unstable();
        let mut expected = [sends.key(), receives.key()];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(channel.next_event().expect("reads"), None);
        let error = sends.drain_events().expect_err("it would read the other's");
        assert_eq!(error.errno(), Some(libc::EINVAL));
        wait_raw(&sends, 1);
        wait_raw(&receives, 1);
        // A queue with an event that nobody has read can be destroyed; the channel lives on.
        receives.request_notification().expect("arms");
        send(&a, &b, SendFlags::NONE);
        wait_readable(&*channel);
        drop((a, b, receives));
        assert_eq!(channel.next_event().expect("reads"), None, "its events went with it");
    });
}

#[test]
fn a_queue_armed_for_solicited_events_sleeps_through_others() {
    with_device(|fixture| {
        let sends = CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let receives = CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let [a, b] = connected(fixture, &sends, &receives);
        receives.request_solicited_notification().expect("arms");
        send(&a, &b, SendFlags::NONE);
        wait_raw(&receives, 1);
        assert!(!is_readable(&*receives, 0), "it was not solicited");
        send(&a, &b, SendFlags::SOLICITED);
        wait_readable(&*receives);
        assert_eq!(receives.drain_events().expect("reads"), 1);
        wait_raw(&receives, 1);
    });
}

#[test]
fn more_completions_than_a_poll_takes_come_with_the_next() {
    with_device(|fixture| {
        let ends = RawEnds::new(
            fixture,
            &Settings {
                sizes: QueuePairCapabilities { inline: 0, receives: 1, segments: 1, sends: 50 },
                ..Settings::default()
            },
            64,
        );
        let list = || {
            let mut list = zcmi::verbs::SendList::new();
            for id in 0..40 {
                list.push(id, SendOperation::Write(zcmi::verbs::Remote::default()), &[], SendFlags::SIGNALED);
            }
            list
        };
        // SAFETY: writes of nothing to nowhere, by a queue pair that no owning queue has.
        unsafe { ends.a.post_send_list(&mut list()) }.expect("posts");
        let ids: Vec<_> = wait_raw(&ends.completions, 40).iter().map(|seen| seen.wr_id).collect();
        assert_eq!(ids, (0..40).collect::<Vec<_>>());
        assert_eq!(ends.completions.poll(&mut CompletionBatch::default()).expect("polls").len(), 0);
    });
}

#[test]
fn the_largest_queue_there_is_works_and_a_larger_is_refused() {
    with_device(|fixture| {
        let most = fixture.context.attributes().expect("attributes").max_completions;
        let ends = RawEnds::new(fixture, &Settings::default(), most);
        assert!(ends.completions.capacity() >= most);
        send(&ends.a, &ends.b, SendFlags::SIGNALED);
        wait_raw(&ends.completions, 2);
        let error = CompletionQueue::create(&fixture.context, most + 1).expect_err("too large");
        assert_eq!(error.errno(), Some(libc::EINVAL));
        let detail = error.detail().expect("a detail");
        assert!(detail.contains(&most.to_string()) && detail.contains(&(most + 1).to_string()), "{detail}");
        for entries in [0, u32::MAX, 1 << 31] {
            let error = CompletionQueue::create(&fixture.context, entries).expect_err("impossible");
            assert_eq!(error.errno(), Some(libc::EINVAL), "{entries}: {error}");
        }
    });
}

#[test]
fn a_queue_is_resized_or_left_as_it_was() {
    with_device(|fixture| {
        let ends = RawEnds::new(fixture, &Settings::default(), 16);
        let before = ends.completions.capacity();
        // Two completions wait meanwhile.
        send(&ends.a, &ends.b, SendFlags::SIGNALED);
        match ends.completions.resize(1000) {
            Ok(()) => assert!(ends.completions.capacity() >= 1000),
            Err(error) => assert_eq!(ends.completions.capacity(), before, "{error}"),
        }
        wait_raw(&ends.completions, 2);
        send(&ends.a, &ends.b, SendFlags::SIGNALED);
        wait_raw(&ends.completions, 2);
        for entries in [u32::MAX, 1 << 30] {
            let now = ends.completions.capacity();
            ends.completions.resize(entries).expect_err("impossible");
            assert_eq!(ends.completions.capacity(), now);
        }
    });
}

/// More completions than the queue holds, nobody polling. What follows is the device's matter, but it is told.
#[test]
fn an_overrun_queue_says_so_or_delivers_what_it_has() {
    with_device(|fixture| {
        let sizes = QueuePairCapabilities { inline: 0, receives: 1, segments: 1, sends: 63 };
        let ends = RawEnds::new(fixture, &Settings { sizes, ..Settings::default() }, 4);
        let capacity = ends.completions.capacity() as usize;
        assert!(capacity < 63);
        for id in 0..63 {
            let nothing = SendOperation::Write(zcmi::verbs::Remote::default());
            // SAFETY: writes of nothing, by a queue pair that no owning queue has.
            unsafe { ends.a.post_send(id, nothing, &[], SendFlags::SIGNALED) }.expect("posts");
        }
        let (begun, mut batch, mut seen) = (Instant::now(), CompletionBatch::new(), Vec::new());
        let told = |fixture: &Fixture| {
            std::iter::from_fn(|| fixture.context.next_async_event().expect("reads"))
                .any(|event| event.kind == AsyncEventKind::CompletionQueueError)
        };
        let mut is_told = false;
        while !is_told && begun.elapsed() < PATIENCE {
            is_told = told(fixture);
            std::thread::yield_now();
        }
        let outcome = loop {
            match ends.completions.poll(&mut batch) {
                Ok(completions) if completions.len() == 0 => break Ok(()),
                Ok(completions) => seen.extend(completions.map(|completion| completion.wr_id())),
                Err(error) => break Err(error),
            }
        };
        eprintln!("{capacity} entries: told {is_told}, then {outcome:?} after {} completions", seen.len());
        assert!(is_told, "a device event tells it");
        assert!(
            seen.iter().is_sorted_by(|a, b| a < b) && seen.iter().all(|&id| id < 63),
            "in order, if not all: {seen:?}"
        );
        assert!((capacity..63).contains(&seen.len()), "some were lost");
    });
}

#[test]
fn an_owning_queue_cannot_be_overrun() {
    with_device(|fixture| {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let sizes = QueuePairCapabilities { inline: 0, receives: 8, segments: 1, sends: 8 };
        let settings = Settings { sizes, ..Settings::default() };
        // Room for exactly one.
        let given = build(&domain, fixture, &settings);
        let demand = given.capabilities().sends + given.capabilities().receives;
        drop(given);
        let completions = CompletionQueue::create(&fixture.context, demand).expect("a queue");
        let spare = completions.capacity() - demand;
        let mut queue = OwningQueue::<Memory>::new(Arc::clone(&completions));
        let make = || crate::pair::build(&domain, &completions, None, &settings);
        let key = queue.add(make()).expect("fits");
        if spare < demand {
            let error = queue.add(make()).expect_err("no room");
            assert_eq!(error.errno(), Some(libc::ENOMEM));
            assert!(
                error.detail().is_some_and(|detail| detail.contains(&completions.capacity().to_string())),
                "{error}"
            );
        }
        // One that had nothing outstanding leaves its room at once.
        drop(queue.detach(key).expect("it is there").destroy());
        let key = queue.add(make()).expect("fits again");
        assert!(queue.detach(key).is_some() && queue.detach(key).is_none());
    });
}

/// More send requests fit their queue pairs than the completion queue: each still has a few, and nothing is overrun, though nobody
/// polls.
#[test]
fn send_requests_share_the_entries_and_each_queue_pair_has_some() {
    with_device(|fixture| {
        let sizes = QueuePairCapabilities { inline: 0, receives: 1, segments: 1, sends: 100 };
        let settings = Settings { sizes, ..Settings::default() };
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = CompletionQueue::create(&fixture.context, 127).expect("a queue");
        let capacity = completions.capacity() as usize;
        let mut queue = OwningQueue::<Memory>::new(Arc::clone(&completions));
        let keys: Vec<_> = (0..6)
            .map(|_| queue.add(crate::pair::build(&domain, &completions, None, &settings)).expect("fits"))
            .collect();
        for ends in keys.chunks(2) {
            let [a, b] = [ends[0], ends[1]].map(|key| queue.queue_pair(key).expect("it is there"));
            crate::pair::connect(fixture, a, b, settings.access, &settings.tuning);
        }
        let receives: usize =
            keys.iter().map(|&key| queue.queue_pair(key).expect("there").capabilities().receives as usize).sum();
        assert!(capacity < 600, "{capacity} entries would hold everything");
        // Each takes what it can get, one after the other; all but what the queue itself wants signaled is not.
        let (mut posted, most) = (0, queue.room(keys[0]));
        for (index, &key) in keys.iter().enumerate() {
            let before = queue.room(key);
            assert!(before >= 8 && (index == 0) == (before > 8), "{index}: room for {before}");
            posted += fill(&mut queue, key);
            let refused = queue.stage(key, nothing()).expect_err("no room");
            assert!(refused.error.is_none(), "{refused:?}");
        }
        assert_eq!(posted + receives, capacity, "all is used");
        queue.flush().expect("posts");
        // Each of them comes back, though only some were signaled.
        let (begun, mut done) = (Instant::now(), Vec::new());
        while done.len() < posted {
            assert!(begun.elapsed() < PATIENCE, "{} of {posted}", done.len());
            queue.poll(&mut done).expect("polls");
        }
        assert!(done.iter().all(|done| done.result == Ok(0)));
        assert_eq!(queue.room(keys[5]), most, "and can be used by another");
        // Likewise what is flushed: all of it completes at once, and fits.
        for &key in &keys {
            let pair = queue.queue_pair(key).expect("it is there");
            pair.fail().expect("fails");
        }
        let mut posted = 0;
        for &key in keys.iter().rev() {
            posted += fill(&mut queue, key);
        }
        assert_eq!(posted + receives, capacity, "all is used");
        queue.flush().expect("posts");
        std::thread::sleep(std::time::Duration::from_millis(200));
        let mut done = Vec::new();
        while queue.poll(&mut done).expect("polls") > 0 {}
        eprintln!("{} of {posted} were flushed", done.len());
        assert!(done.iter().all(|done| done.result.is_err()));
        for key in keys {
            done.extend(queue.detach(key).expect("it is there").destroy());
        }
        assert_eq!(done.len(), posted, "each once");
        let overrun = |event: zcmi::verbs::AsyncEvent| event.kind == AsyncEventKind::CompletionQueueError;
        let mut events = std::iter::from_fn(|| fixture.context.next_async_event().expect("reads"));
        assert!(!events.any(overrun));
    });
}

/// Completions of a queue pair that was taken out still need room.
#[test]
fn the_room_of_what_was_taken_out_comes_free_when_nothing_more_can_come() {
    with_device(|fixture| {
        let sizes = QueuePairCapabilities { inline: 0, receives: 8, segments: 1, sends: 8 };
        let settings = Settings { sizes, ..Settings::default() };
        let mut ends = Ends::new(fixture, settings.clone());
        let completions = Arc::clone(ends.queue.completions());
        let sizes = ends.pair(ends.a).capabilities();
        // As many as fit.
        let mut more = Vec::new();
        while let Ok(key) = ends.queue.add(crate::pair::build(&ends.domain, &completions, None, &settings)) {
            more.push(key);
        }
        let target = zcmi::verbs::ExposedRegion::allocate(&ends.domain, 64, everything()).expect("memory");
        for token in 0..sizes.receives {
            let sink = ends.poisoned(64);
            ends.receive(ends.a, token.into(), sink);
        }
        // What is left is less than another queue pair needs.
        let sends = ends.queue.room(ends.a);
        assert!(sends >= 8, "{sends}");
        for token in 0..sends {
            let source = ends.filled(1, 64);
            ends.post(ends.a, token as u64, SendOperation::Write(target.remote()), Memory::Buffer(source));
        }
        let detached = ends.queue.detach(ends.a).expect("it is there");
        let try_one = |ends: &mut Ends| {
            let pair = crate::pair::build(&ends.domain, &completions, None, &settings);
            ends.queue.add(pair)
        };
        let error = try_one(&mut ends).expect_err("its completions may be in the queue");
        assert!(error.detail().is_some_and(|detail| detail.contains("taken out")), "{error}");
        assert_eq!(detached.destroy().len(), sends + sizes.receives as usize);
        try_one(&mut ends).expect_err("they still are");
        let (begun, mut done) = (Instant::now(), Vec::new());
        while ends.queue.poll(&mut done).expect("polls") > 0 {
            assert!(begun.elapsed() < PATIENCE);
        }
        assert!(done.is_empty(), "stale completions name nothing: {done:?}");
        let key = try_one(&mut ends).expect("now there is room");
        ends.queue.detach(key).expect("it is there");
    });
}

#[test]
fn a_queue_serves_one_owning_queue_only() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let completions = Arc::clone(ends.queue.completions());
        let mut other = OwningQueue::<Memory>::new(Arc::clone(&completions));
        let make = |ends: &Ends| crate::pair::build(&ends.domain, &completions, None, &ends.settings);
        let error = other.add(make(&ends)).expect_err("it is taken");
        assert!(error.detail().is_some_and(|detail| detail.contains("another OwningQueue")), "{error}");
        let shared = OwningQueue::<Memory>::with_shared_receives(completions.clone(), &ends.domain, 4, 1);
        assert_eq!(shared.map(drop).expect_err("it is taken").errno(), Some(libc::EINVAL));
        ends.still_works();
        // Nor a queue pair that completes elsewhere.
        let elsewhere = CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let pair = crate::pair::build(&ends.domain, &elsewhere, None, &ends.settings);
        assert_eq!(ends.queue.add(pair).expect_err("elsewhere").errno(), Some(libc::EINVAL));
    });
}

/// A write of nothing that is not signaled.
fn nothing() -> SendRequest<'static, Memory> {
    let operation = SendOperation::Write(zcmi::verbs::Remote::default());
    SendRequest { token: 0, operation, local: Local::Inline(&[]), flags: SendFlags::NONE }
}

/// Stages as many as there is room for; answers how many.
fn fill(queue: &mut OwningQueue<Memory>, key: QueuePairKey) -> usize {
    let mut staged = 0;
    while queue.room(key) > 0 {
        queue.stage(key, nothing()).expect("there is room");
        staged += 1;
    }
    staged
}

/// A queue pair with a completion queue of its own.
fn build(domain: &Arc<ProtectionDomain>, fixture: &Fixture, settings: &Settings) -> QueuePair {
    let completions = CompletionQueue::create(&fixture.context, 64).expect("a queue");
    crate::pair::build(domain, &completions, None, settings)
}
