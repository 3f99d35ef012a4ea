//! What no device would forgive is found.

use super::net::{Net, ends};
use crate::memory::RegionAccess;
use crate::transport::{Operation, Queue, Source};
use crate::{Access, Buffer};

use super::super::settings::Settings;
use super::super::{Executor, spawn};

#[track_caller]
fn found(net: &Net, what: &str) {
    let bugs = net.bugs();
    assert!(bugs.len() == 1 && bugs[0].contains(what), "{bugs:?}");
}

#[test]
fn a_window_that_is_invalidated_twice_or_before_it_is_bound() {
    for twice in [false, true] {
        let mut net = Net::new(Settings::new(1));
        let exposed = net.b.registered(&[5; 16], RegionAccess::Windows { write: true });
        let (window, _) = net.b.bind(1, &exposed, Access::READ);
        if twice {
            net.settle();
            assert_eq!(ends(&net.b.poll()), [(1, "done")]);
            net.b.queue.invalidate(net.b.channel, 2, window).expect("bound");
        }
        assert!(net.b.queue.invalidate(net.b.channel, 3, window).is_err());
        found(&net, "is invalidated");
    }
}

#[test]
fn more_reads_than_were_agreed() {
    let mut net = Net::new(Settings { reads: 2, ..Settings::new(2) });
    let exposed = net.b.exposed(&[5; 16], Access::READ);
    let (address, key) = (exposed.address(), exposed.key());
    for token in 0..2 {
        let memory = net.a.memory(&[0; 4]);
        net.a.post(token, Operation::Read { address, key }, memory);
    }
    net.settle();
    for token in 0..3 {
        let memory = net.a.memory(&[0; 4]);
        net.a.post(token, Operation::Read { address, key }, memory);
    }
    found(&net, "stalls");
}

#[test]
fn more_receives_than_the_queue_holds() {
    let mut net = Net::new(Settings { completions: 64, ..Settings::new(3) });
    let room = net.b.queue.receive_room();
    (0..room as u64).for_each(|token| net.b.receive(token, 8));
    assert_eq!((net.b.queue.receive_room(), net.bugs()), (0, vec![]));
    let memory = net.b.memory(&[0; 8]);
    assert!(net.b.queue.post_receive(99, memory).expect_err("it is full").memory.is_some());
    found(&net, "is overrun");
}

#[test]
fn memory_that_is_deregistered_or_may_not_be_written_while_it_is_in_flight() {
    use crate::memory::{Place, RegistrationCache, Transfer};
    // A source that is good, as the destination of a read.
    let mut net = Net::new(Settings::new(4));
    let exposed = net.b.exposed(&[5; 16], Access::READ);
    let cache = RegistrationCache::without_timer(crate::CacheLimits::default());
    let bytes = crate::SharedMemory::from(bytes::Bytes::from_static(&[1; 16]));
    let source = Transfer::of(bytes, Place { domain: &net.a.domain, cache: &cache }).expect("it registers");
    net.a.post(1, Operation::Read { address: exposed.address(), key: exposed.key() }, source);
    net.settle();
    found(&net, "may not write");
    drop(net.a.poll());
    // Memory whose key is of another domain.
    let mut net = Net::new(Settings::new(5));
    let other = net.b.memory(b"abc");
    net.a.post(1, Operation::Send, other);
    net.settle();
    net.b.receive(1, 8);
    assert!(net.bugs().iter().all(|bug| bug.contains("may not read")) && !net.bugs().is_empty());
}

#[test]
fn what_is_left_at_the_end_and_a_task_that_panics() {
    let run = |task: fn() -> Option<Buffer>| {
        let mut executor = Executor::new(Settings::new(6));
        let node = executor.add_node("a", false);
        let task = executor.spawn(node, async move { task() });
        let ended = executor.run();
        drop(task);
        ended.map_err(|ended| ended.why)
    };
    assert_eq!(run(|| None), Ok(()));
    let leak = run(|| Buffer::allocate(64).ok()).expect_err("a buffer is left");
    assert!(leak.starts_with("LEAK: 64 bytes of buffers"), "{leak}");
    let panic = run(|| panic!("on purpose")).expect_err("it panics");
    assert_eq!(panic, "task 0 panicked: on purpose");
}

#[test]
fn a_job_that_panics_and_a_task_that_waits_for_nothing() {
    let mut executor = Executor::new(Settings::new(7));
    let node = executor.add_node("a", false);
    let service = executor.world().with(|state| state.nodes[node.0].service.clone()).expect("it has one");
    service.run_job(|| panic!("on purpose"));
    executor.spawn(node, std::future::pending::<()>());
    assert_eq!(executor.run().expect_err("it panics").why, "a job of node 0 panicked: on purpose");
    let mut executor = Executor::new(Settings::new(8));
    let node = executor.add_node("a", false);
    executor.spawn(node, async {
        spawn(std::future::pending::<()>()).await;
    });
    let why = executor.run().expect_err("nothing will happen").why;
    assert_eq!(why, "HANG: nothing will happen; waiting: task 0 of a, task 1 of a");
}

#[test]
fn a_completion_queue_that_is_overrun() {
    let mut net = Net::new(Settings { completions: 40, ..Settings::new(9) });
    // More than were reserved, which takes a bug of the queue itself.
    net.executor.world().with(|state| {
        for _ in 0..41 {
            state.send_completion_arrives(net.a.pair);
        }
    });
    found(&net, "completion queue 0 is overrun");
    net.a.post_with(1, Operation::Probe, Source::Inline(&[]), true, false);
}
