//! Asynchronous events of a device: read, waited for by a thread, by a task, and as a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;
use zcmi::verbs::{
    Access, AsyncEvent, AsyncEventKind, AsyncEventObject, AsyncEvents, CompletionBatch, CompletionQueue, Context,
    Device, Endpoint, LocalEnd, Mtu, PortState, ProtectionDomain, Psn, QueuePair, QueuePairCapabilities,
    QueuePairChange, QueuePairState, Remote, Segment, SendFlags, SendOperation, SharedReceiveQueue, Tuning,
};

use crate::spare_device::{SpareDevice, address, kernel_has};
use crate::support::with_device;

/// Bound of every wait for an event.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` with a device of its own.
fn with_spare(test: impl FnOnce(&SpareDevice)) {
    with_device(|_| {
        if let Some(spare) = SpareDevice::create() {
            test(&spare);
        }
    });
}

/// Waits for the next event of this kind; others may come before it.
fn wait_for(events: &AsyncEvents, kind: AsyncEventKind) -> AsyncEvent {
    let begun = Instant::now();
    let mut others = Vec::new();
    while begun.elapsed() < PATIENCE {
        match events.wait(PATIENCE.saturating_sub(begun.elapsed())).expect("events can be read") {
            Some(event) if event.kind == kind => return event,
            other => others.extend(other),
        }
    }
    panic!("no {kind:?}, but {others:?}");
}

/// Adds the `n`th further address to the netdev, which changes the GID table.
fn add_address(spare: &SpareDevice, n: u8) {
    spare.ip(&format!("addr add 203.0.113.{}/24 dev {}", 100 + n, spare.netdev()));
}

#[test]
fn a_port_tells_that_it_goes_down_and_comes_up() {
    with_spare(|spare| {
        let context = spare.open_quiet();
        let events = context.async_events();
        for _ in 0..2 {
            spare.ip(&format!("link set {} down", spare.netdev()));
            assert_eq!(wait_for(&events, AsyncEventKind::PortError).object, AsyncEventObject::Port(1));
            assert_eq!(context.port(1).expect("port 1").state, PortState::Down);
            spare.ip(&format!("link set {} up", spare.netdev()));
            assert_eq!(wait_for(&events, AsyncEventKind::PortActive).object, AsyncEventObject::Port(1));
            assert_eq!(context.port(1).expect("port 1").state, PortState::Active);
        }
    });
}

#[test]
fn every_change_of_the_gid_table_is_told() {
    with_spare(|spare| {
        let context = spare.open_quiet();
        let events = context.async_events();
        for n in 0..3 {
            add_address(spare, n);
            assert_eq!(wait_for(&events, AsyncEventKind::GidChange).object, AsyncEventObject::Port(1));
        }
    });
}

#[test]
fn a_wait_without_an_event_ends_with_none() {
    with_spare(|spare| {
        let context = spare.open_quiet();
        let events = context.async_events();
        assert_eq!(events.next_event().expect("events can be read"), None);
        assert_eq!(events.wait(Duration::ZERO).expect("events can be read"), None);
        let begun = Instant::now();
        assert_eq!(events.wait(Duration::from_millis(50)).expect("events can be read"), None);
        assert!(begun.elapsed() >= Duration::from_millis(50));
        // An event that is there needs no time.
        add_address(spare, 0);
        wait_for(&events, AsyncEventKind::GidChange);
        add_address(spare, 1);
        spare.until("there is an event", || events.wait(Duration::ZERO).expect("events can be read").is_some());
    });
}

#[test]
fn an_event_goes_to_one_reader() {
    with_spare(|spare| {
        let context = spare.open_quiet();
        let readers = [context.async_events(), context.async_events()];
        add_address(spare, 0);
        wait_for(&readers[0], AsyncEventKind::GidChange);
        assert_eq!(readers[1].next_event().expect("events can be read"), None);
        // Another context has events of its own.
        let another = spare.open_quiet();
        add_address(spare, 1);
        wait_for(&readers[1], AsyncEventKind::GidChange);
        wait_for(&another.async_events(), AsyncEventKind::GidChange);
    });
}

/// Runs `test` on a runtime, within a bound.
fn asynchronously(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test ends in time") });
}

#[test]
fn a_task_that_waits_is_woken_by_every_event() {
    with_spare(|spare| {
        let context = spare.open_quiet();
        asynchronously(async {
            let mut events = context.async_events();
            for n in 0..5 {
                // It waits before anything happens, and has seen that there is nothing.
                assert!(is_pending(&mut events));
                add_address(spare, n);
                let event = events.next().await.expect("events can be read");
                assert_eq!(event.kind, AsyncEventKind::GidChange);
            }
        });
    });
}

#[test]
fn events_that_came_before_the_wait_are_all_answered() {
    with_spare(|spare| {
        let context = spare.open_quiet();
        asynchronously(async {
            let mut events = context.async_events();
            for n in 0..3 {
                add_address(spare, n);
            }
            for _ in 0..3 {
                assert_eq!(events.next().await.expect("events can be read").kind, AsyncEventKind::GidChange);
            }
            assert!(is_pending(&mut events));
        });
    });
}

#[test]
fn a_wait_that_is_given_up_loses_no_event() {
    with_spare(|spare| {
        let context = spare.open_quiet();
        asynchronously(async {
            let mut events = context.async_events();
            for n in 0..3 {
                tokio::time::timeout(Duration::from_millis(5), events.next()).await.expect_err("nothing happens");
                add_address(spare, n);
                assert_eq!(events.next().await.expect("events can be read").kind, AsyncEventKind::GidChange);
            }
        });
    });
}

#[test]
fn two_tasks_can_wait_for_one_device_and_the_stream_is_one() {
    with_spare(|spare| {
        let context = spare.open_quiet();
        asynchronously(async {
            let (mut one, mut other) = (context.async_events(), context.async_events());
            assert!(is_pending(&mut one) && is_pending(&mut other));
            add_address(spare, 0);
            let item = std::future::poll_fn(|task| match Pin::new(&mut one).poll_next(task) {
                Poll::Pending => Pin::new(&mut other).poll_next(task),
                ready => ready,
            });
            let event = item.await.expect("the stream goes on").expect("events can be read");
            assert_eq!(event.kind, AsyncEventKind::GidChange);
        });
    });
}

#[test]
fn a_stream_survives_its_runtime() {
    with_spare(|spare| {
        let mut events = spare.open_quiet().async_events();
        for n in 0..2 {
            asynchronously(async {
                assert!(is_pending(&mut events));
                add_address(spare, n);
                assert_eq!(events.next().await.expect("events can be read").kind, AsyncEventKind::GidChange);
            });
        }
    });
}

#[test]
fn waiting_without_a_runtime_is_an_error_that_says_so() {
    with_device(|fixture| {
        let mut events = fixture.context.async_events();
        while events.next_event().expect("events can be read").is_some() {}
        let Poll::Ready(Err(error)) = events.poll_event(&mut TaskContext::from_waker(Waker::noop())) else {
            panic!("there is no runtime")
        };
        assert_eq!(error.errno(), Some(libc::EOPNOTSUPP));
        assert!(error.to_string().contains("tokio runtime"), "{error}");
        // The stream ends with it.
        let mut next = || Pin::new(&mut events).poll_next(&mut TaskContext::from_waker(Waker::noop()));
        assert!(matches!(next(), Poll::Ready(Some(Err(_)))));
        assert!(matches!(next(), Poll::Ready(None)));
    });
}

fn is_pending(events: &mut AsyncEvents) -> bool {
    events.poll_event(&mut TaskContext::from_waker(Waker::noop())).is_pending()
}

/// A queue pair that is connected to itself, with `completions`.
fn connected_to_itself(context: &Arc<Context>, completions: &Arc<CompletionQueue>, address: &str) -> QueuePair {
    let domain = ProtectionDomain::allocate(context).expect("a domain");
    let capabilities = QueuePairCapabilities { inline: 8, sends: 1000, ..QueuePairCapabilities::default() };
    let pair = QueuePair::builder(&domain, completions).capabilities(capabilities).create().expect("a queue pair");
    connect_to_itself(&pair, address);
    pair
}

fn connect_to_itself(pair: &QueuePair, own_address: &str) {
    let entry = pair.domain().context().gid_for(address(own_address)).expect("our address");
    let local = LocalEnd {
        port: entry.port,
        gid_index: entry.index,
        psn: Psn::random(),
        access: Access::REMOTE_WRITE,
        path_mtu: Mtu::Bytes1024,
    };
    pair.prepare(&local).expect("to INIT");
    let endpoint: Endpoint = pair.endpoint(&local).expect("an endpoint");
    pair.connect_to(&local, &endpoint, &Tuning::default()).expect("to RTS");
}

/// Posts an empty write to the queue pair's own peer.
fn write_nothing(pair: &QueuePair) -> zcmi::verbs::Result<()> {
    // SAFETY: the request has no segments, and so no memory.
    unsafe { pair.post_send(1, SendOperation::Write(Remote::default()), &[], SendFlags::SIGNALED) }
}

#[test]
fn an_overrun_completion_queue_is_told_by_its_key() {
    with_device(|fixture| {
        let events = fixture.context.async_events();
        let small = CompletionQueue::create(&fixture.context, 3).expect("a small queue");
        let pair = connected_to_itself(&fixture.context, &small, &fixture.address);
        for _ in 0..=small.capacity() {
            write_nothing(&pair).expect("the send queue has room");
        }
        let event = wait_for(&events, AsyncEventKind::CompletionQueueError);
        assert_eq!(event.object, AsyncEventObject::CompletionQueue(small.key()));
        assert!(event.to_string().contains(&small.key().to_string()), "{event}");
        // The event has been acknowledged, and so the destructors do not wait for it.
        within_patience(move || drop((pair, small)));
    });
}

#[test]
fn an_event_that_nobody_reads_blocks_no_destructor() {
    with_device(|fixture| {
        let small = CompletionQueue::create(&fixture.context, 3).expect("a small queue");
        let pair = connected_to_itself(&fixture.context, &small, &fixture.address);
        for _ in 0..=small.capacity() {
            write_nothing(&pair).expect("the send queue has room");
        }
        let ready = |events: &AsyncEvents| {
            let mut fds = [rustix::event::PollFd::new(events, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 })).expect("poll") == 1
        };
        let events = fixture.context.async_events();
        assert!(ready(&events), "the event waits");
        within_patience(move || drop((pair, small)));
        // The kernel takes back what was not read.
        assert_eq!(events.next_event().expect("events can be read"), None);
    });
}

#[test]
fn a_drained_send_queue_is_told_by_its_queue_pair() {
    with_device(|fixture| {
        let events = fixture.context.async_events();
        let completions = CompletionQueue::create(&fixture.context, 16).expect("a queue");
        let pair = connected_to_itself(&fixture.context, &completions, &fixture.address);
        write_nothing(&pair).expect("the send queue has room");
        let mut batch = CompletionBatch::new();
        let begun = Instant::now();
        while completions.poll(&mut batch).expect("polls").len() == 0 {
            assert!(begun.elapsed() < PATIENCE, "the write completes");
        }
        pair.modify(QueuePairChange::to(QueuePairState::SendQueueDrained).drained_event()).expect("to SQD");
        let event = wait_for(&events, AsyncEventKind::SendQueueDrained);
        assert_eq!(event.object, AsyncEventObject::QueuePair(pair.number()));
    });
}

#[test]
fn a_shared_receive_queue_that_runs_low_is_told_by_its_key() {
    with_device(|fixture| {
        let events = fixture.context.async_events();
        let completions = CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let (other, shared) = (shared_queue(&domain), shared_queue(&domain));
        assert_ne!(other.key(), shared.key());
        let builder = QueuePair::builder(&domain, &completions).shared_receives(&shared);
        let pair = builder.create().expect("a queue pair");
        connect_to_itself(&pair, &fixture.address);
        // SAFETY: the request has no segments, and so no memory.
        unsafe { pair.post_send(1, SendOperation::Send, &[], SendFlags::SIGNALED) }.expect("the send queue has room");
        let event = wait_for(&events, AsyncEventKind::SharedReceiveQueueLimit);
        assert_eq!(event.object, AsyncEventObject::SharedReceiveQueue(shared.key()));
        assert_eq!(shared.attributes().expect("attributes").limit, 0, "an event is for once");
        within_patience(move || drop((pair, shared, other)));
    });
}

/// A shared receive queue with three receives and a limit of three.
fn shared_queue(domain: &Arc<ProtectionDomain>) -> Arc<SharedReceiveQueue> {
    let shared = SharedReceiveQueue::create(domain, 8, 1).expect("a shared receive queue");
    for wr_id in 0..3 {
        // SAFETY: the receive has no segments, and so no memory.
        unsafe { shared.post_receive(wr_id, &[]) }.expect("there is room");
    }
    shared.arm_limit(3).expect("the limit is armed");
    shared
}

#[test]
fn a_refused_access_breaks_the_queue_pair_and_is_told_where_the_driver_tells() {
    with_device(|fixture| {
        let events = fixture.context.async_events();
        let completions = CompletionQueue::create(&fixture.context, 16).expect("a queue");
        let pair = connected_to_itself(&fixture.context, &completions, &fixture.address);
        let byte = [0; 8];
        let segment = Segment { address: byte.as_ptr() as u64, length: 1, local_key: 0 };
        let nowhere = SendOperation::Write(Remote { address: 0x1000, key: 0x1234_5600 });
        // SAFETY: the request is inline, and the memory is readable for the call.
        unsafe { pair.post_send(1, nowhere, &[segment], SendFlags::SIGNALED | SendFlags::INLINE) }
            .expect("there is room");
        let begun = Instant::now();
        while pair.state().expect("a state") != QueuePairState::Error {
            assert!(begun.elapsed() < PATIENCE, "the write is refused");
            std::thread::sleep(Duration::from_millis(1));
        }
        let told = soon(&events);
        assert!(kernel_has((6, 12), (7, 0)).is_none_or(|has| has == told.is_some()), "{told:?}");
        if let Some(event) = told {
            assert_eq!(event.kind, AsyncEventKind::QueuePairAccessError);
            assert_eq!(event.object, AsyncEventObject::QueuePair(pair.number()));
        }
    });
}

/// The next event within a time that is long for one that has happened already.
fn soon(events: &AsyncEvents) -> Option<AsyncEvent> {
    events.wait(Duration::from_secs(1)).expect("events can be read")
}

#[test]
fn a_shared_queue_pair_that_fails_tells_that_it_takes_no_more() {
    with_device(|fixture| {
        let events = fixture.context.async_events();
        let completions = CompletionQueue::create(&fixture.context, 16).expect("a queue");
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let shared = SharedReceiveQueue::create(&domain, 8, 1).expect("a shared receive queue");
        let pair = QueuePair::builder(&domain, &completions).shared_receives(&shared).create().expect("a queue pair");
        connect_to_itself(&pair, &fixture.address);
        pair.fail().expect("to ERROR");
        let told = soon(&events);
        assert!(kernel_has((6, 1), (6, 12)).is_none_or(|has| has == told.is_some()), "{told:?}");
        if let Some(event) = told {
            assert_eq!(event.kind, AsyncEventKind::LastWorkRequestReached);
            assert_eq!(event.object, AsyncEventObject::QueuePair(pair.number()));
        }
    });
}

#[test]
fn a_removed_device_tells_or_waits_and_is_gone_once_it_is_closed() {
    with_spare(|spare| {
        let context = spare.open_quiet();
        let events = context.async_events();
        let mut removal = spare.begin_removal();
        spare.until("the device is not listed any more", || {
            Device::list().expect("devices").iter().all(|device| device.name() != context.name())
        });
        assert_eq!(Context::open(context.name()).expect_err("it is going").errno(), Some(libc::ENODEV));
        // In Linux 7 rxe lets go of its users and tells them; in 6 it waits for them, and says nothing.
        let begun = Instant::now();
        let told = loop {
            match events.wait(Duration::from_secs(1)).expect("events can be read") {
                Some(event) if event.kind == AsyncEventKind::DeviceFatal => break Some(event.object),
                Some(_) => assert!(begun.elapsed() < PATIENCE, "events without end"),
                None => break None,
            }
        };
        assert!(kernel_has((6, 12), (7, 0)).is_none_or(|has| has == told.is_some()), "{told:?}");
        match told {
            Some(object) => {
                assert_eq!(object, AsyncEventObject::Device);
                assert_eq!(context.attributes().expect_err("it is gone").errno(), Some(libc::EIO));
                // Nothing comes any more, which is no error.
                assert_eq!(events.wait(Duration::from_millis(10)).expect("events can be read"), None);
            }
            None => {
                assert!(removal.is_waiting(), "the device goes only when it is closed");
                context.attributes().expect("it works to the end");
            }
        }
        drop((events, context));
        removal.finish();
    });
}

/// Runs `action`, which must not block for long.
fn within_patience(action: impl FnOnce() + Send + 'static) {
    let (done, is_done) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        action();
        done.send(()).expect("the test waits");
    });
    is_done.recv_timeout(PATIENCE).expect("it does not block");
    thread.join().expect("it does not panic");
}
