//! What goes wrong when it is told to, and only then.

use std::time::Duration;

use super::super::{Executor, Fault, Faults, Settings, note_progress, now, sleep, spawn};
use super::net::{Net, ends};
use crate::memory::{Domain, RegionAccess};
use crate::transport::{Operation, Queue, Source};
use crate::{Access, ErrorKind};

fn net(fault: Fault, opportunity: u64) -> Net {
    Net::new(Settings { faults: Faults::none().at(fault, opportunity), ..Settings::new(1) })
}

#[test]
fn a_post_is_refused_from_the_chosen_request_on() {
    let mut net = net(Fault::PostRefused, 2);
    for token in 0..3 {
        let source = Source::Inline(&[]);
        let request =
            crate::transport::Request { token, operation: Operation::Probe, source, signaled: true, fence: false };
        net.a.queue.stage(net.a.channel, request).expect("room");
    }
    net.a.queue.flush().expect_err("injected");
    assert_eq!(ends(&net.a.poll()), [(1, "broken"), (2, "broken")], "told at once");
    net.settle();
    assert_eq!(ends(&net.a.poll()), [(0, "done")], "and the channel lives");
    assert_eq!(net.executor.statistics().faults[&Fault::PostRefused], 1);
}

#[test]
fn a_channel_seems_full_only_while_something_will_complete() {
    let mut net = net(Fault::QueueFull, 1);
    assert!(net.a.queue.room(net.a.channel) > 0, "nothing is in flight");
    net.a.post_with(1, Operation::Probe, Source::Inline(&[]), true, false);
    assert_eq!(net.a.queue.room(net.a.channel), 0);
    net.settle();
    assert!(net.a.queue.room(net.a.channel) > 0, "what was in flight has ended");
}

#[test]
fn registrations_and_windows_are_refused() {
    let net = net(Fault::Registration, 1);
    let memory: std::sync::Arc<dyn crate::Registrable> =
        std::sync::Arc::new(crate::memory::Mapping::new(64).expect("memory"));
    let register = || net.a.domain.register(&memory, 0..64, RegionAccess::Local);
    assert_eq!(register().err().expect("injected").kind(), ErrorKind::MemoryLimit);
    register().expect("only the first");
    let mut net = self::net(Fault::WindowRefused, 1);
    let exposed = net.b.registered(&[5; 16], RegionAccess::Windows { write: true });
    let opening = crate::transport::Opening { region: exposed.registration.clone(), access: Access::READ };
    let refused = net.b.queue.bind(net.b.channel, 1, opening).expect_err("injected");
    assert!(refused.error.is_some() && !refused.is_doubtful);
    net.b.bind(1, &exposed, Access::READ);
}

#[test]
fn a_receiver_that_is_not_ready_breaks_the_channel_or_comes_back() {
    let (mut came_back, mut broke) = (0, 0);
    for seed in 0..40 {
        let mut net = Net::new(Settings { faults: Faults::none().at(Fault::Rnr, 1), ..Settings::new(seed) });
        net.b.receive(1, 8);
        net.a.post_with(1, Operation::Send, Source::Inline(b"x"), true, false);
        net.settle();
        match ends(&net.a.poll())[..] {
            [(1, "done")] => came_back += 1,
            [(1, "protocol")] => broke += 1,
            ref other => panic!("{other:?}"),
        }
        let statistics = net.executor.statistics();
        assert!(statistics.injected_rnr > 0 && statistics.rnr == 0);
    }
    assert!(came_back > 0 && broke > 0);
}

#[test]
fn a_driver_that_withholds_gives_back_at_the_end() {
    let mut net = net(Fault::WithheldFlush, 1);
    let memory = net.a.memory(b"abc");
    net.a.post(1, Operation::Send, memory);
    net.a.queue.fail(net.a.channel);
    net.settle();
    assert!(net.a.poll().is_empty());
    let back = net.a.queue.close(net.a.channel).expect("it is there")();
    assert!(ends(&back) == [(1, "flushed")] && back[0].memory.is_some());
}

#[test]
fn a_pair_that_breaks_by_itself_blames_a_request_or_is_found() {
    let mut net = net(Fault::Flush, u64::MAX);
    net.a.post_with(1, Operation::Probe, Source::Inline(&[]), true, false);
    net.executor.world().with(|state| state.fail_pair(net.a.pair, "injected"));
    net.settle();
    assert_eq!(ends(&net.a.poll()), [(1, "flushed")]);
    net.a.queue.tend(std::time::Instant::now());
    assert!(net.a.poll().is_empty(), "the flush has told");
}

#[test]
fn a_receive_that_went_with_a_pair_is_told_of_and_its_memory_comes_back_when_nobody_takes_any() {
    let mut net = net(Fault::ReceiveLost, 1);
    let (other, _) = net.b.queue.create(super::net::SIZES).expect("room");
    net.b.receive(1, 8);
    let room = net.b.queue.receive_room();
    net.b.queue.fail(net.b.channel);
    let wait = |net: &Net, seconds: u64| net.executor.world().with(|state| state.advance(seconds * 1_000_000_000));
    let look = |net: &mut Net| {
        net.b.queue.tend(std::time::Instant::now());
        net.b.poll()
    };
    wait(&net, 9);
    assert!(look(&mut net).is_empty());
    wait(&net, 2);
    let told = look(&mut net);
    assert!(told.len() == 1 && told[0].is_receive && told[0].memory.is_none() && told[0].channel.0 == u32::MAX);
    assert_eq!(net.b.queue.receive_room(), room + 1, "another can be posted in its place");
    net.b.receive(2, 8);
    for channel in [net.b.channel, other] {
        drop(net.b.queue.close(channel));
    }
    assert!(look(&mut net).is_empty());
    wait(&net, 2);
    let back = look(&mut net);
    assert!(back.len() == 2 && back.iter().all(|completion| completion.memory.is_some()));
    assert_eq!(net.b.queue.receive_room(), room + 1);
}

#[test]
fn a_message_that_finds_no_receive_as_one_was_lost_is_no_bug_until_another_can_be_posted() {
    let mut net = net(Fault::ReceiveLost, 1);
    let (_, other) = net.b.queue.create(super::net::SIZES).expect("room");
    net.b.receive(1, 8);
    // The pair that breaks takes the receive along.
    net.executor.world().with(|state| state.fail_pair(other, "injected"));
    let counts = |net: &Net| (net.executor.statistics().injected_rnr, net.executor.statistics().rnr);
    net.executor.world().with(|state| state.advance(11_000_000_000));
    net.b.queue.tend(std::time::Instant::now());
    net.a.post_with(1, Operation::Send, Source::Inline(b"x"), true, false);
    let next = |net: &Net| {
        let before = counts(net);
        (0..1_000).for_each(|_| {
            if counts(net) == before {
                net.executor.world().with(|state| state.happen());
            }
        });
        counts(net)
    };
    assert_eq!(next(&net), (1, 0), "what was lost was not polled yet");
    let told = net.b.poll();
    assert!(told.iter().any(|completion| completion.memory.is_none() && completion.channel.0 == u32::MAX), "{told:?}");
    assert_eq!(next(&net), (2, 0), "it was polled just now, and not posted again yet");
    assert!(net.b.poll().is_empty());
    assert_eq!(next(&net), (2, 1), "its owner has had the time to");
}

/// Runs two nodes of which the first dies or stops at `step`, and answers what the second saw.
fn with_mishap(fault: Fault, step: u64) -> Option<u32> {
    let faults = Faults::none().at(fault, step);
    let mut executor = Executor::new(Settings { faults, ..Settings::new(3) });
    let (mortal, other) = (executor.add_node("mortal", true), executor.add_node("other", false));
    let task = executor.spawn(mortal, async {
        for _ in 0..100 {
            sleep(Duration::from_micros(10)).await;
        }
        7
    });
    let seen = executor.spawn(other, task);
    executor.run().unwrap_or_else(|ended| panic!("{ended}"));
    seen.take().expect("the other one lives")
}

#[test]
fn a_node_that_stops_goes_on_and_one_that_dies_does_not() {
    assert_eq!(with_mishap(Fault::Stop, 20), Some(7));
    assert_eq!(with_mishap(Fault::Stop, u64::MAX), Some(7));
    for death in [Fault::Death, Fault::MuteDeath, Fault::SilentDeath] {
        assert_eq!(with_mishap(death, 20), None);
    }
}

#[test]
fn time_passes_only_when_nothing_else_can_happen() {
    let mut executor = Executor::new(Settings::new(4));
    let node = executor.add_node("a", false);
    let order = executor.spawn(node, async {
        let begun = now();
        let late = spawn(async move {
            sleep(Duration::from_secs(3_600)).await;
            note_progress();
            now() - begun
        });
        let soon = spawn(async move {
            sleep(Duration::from_millis(1)).await;
            now() - begun
        });
        (soon.await.expect("alive"), late.await.expect("alive"))
    });
    // For an hour nothing ends, and that is no hang to who is patient.
    let real = std::time::Instant::now();
    let patience = Duration::from_secs(7_200);
    executor.world().with(|state| state.settings.patience = patience);
    executor.run().unwrap_or_else(|ended| panic!("{ended}"));
    let (soon, late) = order.take().expect("it has ended");
    assert!(soon >= Duration::from_millis(1) && soon < Duration::from_millis(2), "{soon:?}");
    assert!(late >= Duration::from_secs(3_600) && late < Duration::from_secs(3_601), "{late:?}");
    assert!(real.elapsed() < Duration::from_secs(60));
}
