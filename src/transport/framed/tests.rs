//! What a queue does with a peer that keeps to nothing, over any carrier.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::carrier::Carrier;
use super::channel::Standing;
use super::domain::SoftwareDomain;
use super::frame::Reason;
use super::queue::FramedQueue;
use super::socket::Socket;
use crate::memory::{Domain, Mapping, RegionAccess, Registrable, Registration, Transfer, volatile};
use crate::transport::{ChannelKey, ChannelSizes, Completion, Failure, Opening, Operation, Queue, Request, Source};
use crate::{Access, Buffer, ErrorKind};

pub(in crate::transport) use super::frame::{Frame, HEADER, Header};
pub(in crate::transport) use super::hello::{HELLO, Hello, Kind};

const SIZES: ChannelSizes = ChannelSizes { segments: 16, sends: 32, inline: 0 };

/// A carrier of which a test has the other end.
pub(in crate::transport) trait TestCarrier: Carrier {
    type Peer: Peer;

    /// The other end, and what a queue needs of this one.
    fn ends() -> (Self::Peer, Arc<Socket>, Self, Self::Gift);
}

/// The other end: reading and writing wait for five seconds.
pub(in crate::transport) trait Peer: Read + Write + Send {
    /// Says nothing more.
    fn hang_up(&self);
    /// Reading waits no more.
    fn be_impatient(&mut self);
}

/// Makes tests of the bodies, for a carrier.
macro_rules! bodies {
    ($carrier:ty) => {
        $crate::transport::framed::tests::bodies!(@ $carrier:
            a_message_goes_into_the_next_receive_and_is_acknowledged
            a_message_waits_for_a_receive_and_then_for_no_longer_than_a_device_would
            those_that_are_idle_are_heard_when_they_say_something
            one_that_was_held_up_is_heard_again
            what_a_peer_has_said_before_its_end_is_received
            who_sleeps_is_called_once_for_what_comes
            what_comes_behind_a_refusal_is_not_carried_out
            a_peer_that_does_nothing_of_what_it_is_asked_is_given_up
            what_is_not_written_has_not_left
            a_busy_connection_does_not_keep_another_from_being_told
            closing_does_not_wait_for_a_peer_that_does_not_read
            what_a_peer_may_not_reach_is_refused_and_left_alone
            a_window_that_is_closed_in_the_middle_of_a_write_stops_it
            what_no_peer_may_say_ends_the_channel_with_the_reason
            noise_of_any_kind_breaks_one_channel_and_nothing_else
            what_was_posted_comes_back_when_the_channel_fails
            a_peer_is_served_in_turn_with_the_threads_of_this_process
            a_read_that_is_acknowledged_without_its_answer_still_ends
            what_fails_behind_a_full_socket_says_what_is_done_and_no_more
            a_peer_that_does_not_read_is_told_once_when_it_does
            receives_that_nobody_could_take_are_given_back
            a_refusal_is_said_behind_what_is_half_written
        );
    };
    (@ $carrier:ty: $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::transport::framed::tests::$name::<$carrier>();
            }
        )*
    };
}
pub(in crate::transport) use bodies;

/// A queue with one channel, and the other end of its stream.
pub(in crate::transport) struct Rig<C: TestCarrier> {
    domain: Arc<SoftwareDomain>,
    queue: FramedQueue<C>,
    channel: ChannelKey,
    peer: C::Peer,
    socket: Arc<Socket>,
}

impl<C: TestCarrier> Rig<C> {
    pub(in crate::transport) fn new() -> Self {
        let (peer, socket, carrier, gift) = C::ends();
        let domain = SoftwareDomain::of_process();
        let mut queue = FramedQueue::open(Arc::clone(&domain), 64).expect("a queue");
        let channel = queue.create(Arc::clone(&socket), carrier, SIZES).expect("a channel");
        queue.activate(channel, gift, 4).expect("activates");
        socket.open();
        Self { domain, queue, channel, peer, socket }
    }

    pub(in crate::transport) fn peer(&mut self) -> &mut C::Peer {
        &mut self.peer
    }

    pub(in crate::transport) fn queue(&mut self) -> &mut FramedQueue<C> {
        &mut self.queue
    }

    /// Posts short receives.
    pub(in crate::transport) fn post_receives(&mut self, count: u64) {
        for token in 0..count {
            let memory = self.transfer(8);
            self.queue.post_receive(token, memory).map_err(|_| ()).expect("room");
        }
    }

    /// Posts messages of `length` bytes.
    pub(in crate::transport) fn post_sends(&mut self, count: u64, length: usize) {
        for token in 100..100 + count {
            let memory = self.transfer(length);
            self.post(token, Operation::Send, Some(memory));
        }
    }

    fn transfer(&self, length: usize) -> Transfer {
        let mut buffer = Buffer::allocate(length).expect("memory");
        buffer.fill(0xee);
        Transfer::new(buffer, 0..length, &*self.domain).expect("registers anything")
    }

    fn say(&mut self, frame: Frame, body: &[u8]) {
        self.peer.write_all(&Header { acknowledged: 0, frame }.to_bytes()).expect("writes");
        self.peer.write_all(body).expect("writes");
    }

    /// Says nothing but what is done.
    fn say_done(&mut self, acknowledged: u64) {
        let said = Header { acknowledged, frame: Frame::Acknowledge }.to_bytes();
        self.peer.write_all(&said).expect("writes");
    }

    /// What the queue says next.
    fn hear(&mut self) -> Header {
        let mut header = [0; HEADER];
        self.peer.read_exact(&mut header).expect("a header in time");
        Header::parse(header).expect("a good one")
    }

    /// Polls until something has ended.
    pub(in crate::transport) fn ends(&mut self) -> Vec<Completion> {
        let begun = Instant::now();
        let mut done = Vec::new();
        while done.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(5), "nothing ends");
            self.queue.poll(&mut done).expect("polls");
        }
        done
    }

    /// Polls for a while.
    fn settle(&mut self) -> Vec<Completion> {
        settle(&mut self.queue)
    }

    fn post(&mut self, token: u64, operation: Operation, memory: Option<Transfer>) {
        let source = memory.map_or(Source::Inline(&[]), Source::Owned);
        let request = Request { token, operation, source, signaled: true, fence: false };
        self.queue.stage(self.channel, request).map_err(|refused| refused.error).expect("room");
        self.queue.flush().expect("flushes");
    }

    /// Memory that the peer of the channel may access, its address and the key.
    fn open(&mut self, length: usize, access: Access) -> (Arc<Mapping>, Arc<dyn Registration>, u64, u32) {
        let mapping = Arc::new(Mapping::new(length).expect("memory"));
        volatile::store(&*mapping, 0, &vec![0x5a; length]);
        let memory: Arc<dyn Registrable> = Arc::clone(&mapping) as _;
        let region = self.register(&memory, 0..length, RegionAccess::Windows { write: true });
        let opening = Opening { region: Arc::clone(&region), access };
        let (_, key) = self.queue.bind(self.channel, 9, opening).map_err(|refused| refused.error).expect("binds");
        assert!(matches!(&self.ends()[..], [Completion { token: 9, result: Ok(_), .. }]));
        let address = mapping.address().addr() as u64;
        (mapping, region, address, key)
    }

    fn register(&self, memory: &Arc<dyn Registrable>, range: Range<usize>, how: RegionAccess) -> Arc<dyn Registration> {
        self.domain.register(memory, range, how).expect("registers")
    }
}

pub(in crate::transport) fn settle<C: Carrier>(queue: &mut FramedQueue<C>) -> Vec<Completion> {
    let (begun, mut done) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_millis(30) {
        queue.poll(&mut done).expect("polls");
    }
    done
}

fn kind(completion: &Completion) -> Option<ErrorKind> {
    match &completion.result {
        Err(Failure::Broken(error)) => Some(error.kind()),
        _ => None,
    }
}

fn bytes(mapping: &Mapping, range: Range<usize>) -> Vec<u8> {
    let mut bytes = vec![0; range.len()];
    volatile::load(mapping, range.start, &mut bytes);
    bytes
}

pub(in crate::transport) fn a_message_goes_into_the_next_receive_and_is_acknowledged<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    for (token, length) in [(1, 10), (2, 40_000)] {
        let memory = rig.transfer(length);
        rig.queue.post_receive(token, memory).map_err(|_| ()).expect("room");
    }
    rig.say(Frame::Send { length: 3 }, b"abc");
    rig.say(Frame::Send { length: 40_000 }, &[7; 40_000]);
    let mut done = rig.ends();
    while done.len() < 2 {
        done.extend(rig.ends());
    }
    let lengths: Vec<_> = done.iter().map(|done| (done.token, done.result.as_ref().ok().copied())).collect();
    assert_eq!(lengths, [(1, Some(3)), (2, Some(40_000))]);
    let received = done.pop().and_then(|done| done.memory).and_then(Transfer::into_buffer).expect("a buffer");
    assert!(received.iter().all(|&byte| byte == 7));
    rig.settle();
    assert_eq!(rig.hear(), Header { acknowledged: 2, frame: Frame::Acknowledge });
}

pub(in crate::transport) fn a_message_waits_for_a_receive_and_then_for_no_longer_than_a_device_would<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    rig.say(Frame::Send { length: 1 }, b"x");
    rig.say(Frame::Send { length: 1 }, b"y");
    assert!(rig.settle().is_empty());
    let memory = rig.transfer(8);
    rig.queue.post_receive(5, memory).map_err(|_| ()).expect("room");
    assert!(matches!(&rig.ends()[..], [Completion { token: 5, result: Ok(1), .. }]));
    assert!(rig.settle().is_empty(), "the second has none");
    rig.queue.tend(Instant::now() + Duration::from_secs(1));
    assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::ConnectionBroken));
    let said = std::iter::from_fn(|| Some(rig.hear().frame)).find(|frame| *frame != Frame::Acknowledge);
    assert_eq!(said, Some(Frame::Refuse { request: 2, reason: Reason::NotReady }));
    let memory = rig.transfer(8);
    rig.queue.post_receive(6, memory).map_err(|_| ()).expect("room");
    assert!(rig.settle().is_empty(), "what was refused is not carried out");
}

/// Whether the event descriptor is readable within `bound`.
pub(in crate::transport) fn is_called<C: TestCarrier>(rig: &Rig<C>, bound: Duration) -> bool {
    let events = rig.queue.event_descriptor().expect("a descriptor").expect("there is one");
    let mut polled = [PollFd::new(&events, PollFlags::IN)];
    let bound = Timespec { tv_sec: bound.as_secs() as i64, tv_nsec: bound.subsec_nanos().into() };
    rustix::event::poll(&mut polled, Some(&bound)).expect("polls") > 0
}

pub(in crate::transport) fn who_sleeps_is_called_once_for_what_comes<C: TestCarrier>() {
    let (short, long) = (Duration::from_millis(30), Duration::from_secs(5));
    let mut rig = Rig::<C>::new();
    rig.post_receives(30);
    let hears = |rig: &mut Rig<C>, count: usize| {
        rig.queue.drain_events().expect("drains");
        let mut done = rig.ends();
        while done.len() < count {
            done.extend(rig.ends());
        }
        assert_eq!(done.len(), count);
    };
    assert!(settle(&mut rig.queue).is_empty());
    for round in 0..5 {
        // It sleeps before something comes, polls once more as who arms does, and after it has come.
        rig.queue.request_notification().expect("arms");
        assert!(rig.queue.poll(&mut Vec::new()).is_ok_and(|happened| !happened));
        assert!(!is_called(&rig, short), "round {round}: for nothing");
        rig.say(Frame::Send { length: 1 }, b"x");
        assert!(is_called(&rig, long), "round {round}: it sleeps for ever");
        hears(&mut rig, 1);
        rig.say(Frame::Send { length: 1 }, b"x");
        std::thread::sleep(Duration::from_millis(5));
        rig.queue.request_notification().expect("arms");
        assert!(is_called(&rig, long), "round {round}: it does not see what is there");
        hears(&mut rig, 1);
        // Somebody else polls while it sleeps, and then more comes.
        rig.queue.request_notification().expect("arms");
        rig.say(Frame::Send { length: 1 }, b"x");
        assert_eq!(rig.ends().len(), 1);
        rig.say(Frame::Send { length: 1 }, b"x");
        assert!(is_called(&rig, long), "round {round}: what the other has left");
        hears(&mut rig, 1);
        // And that has asked the kernel too, and so taken off what would have woken who sleeps.
        rig.queue.request_notification().expect("arms");
        rig.say(Frame::Send { length: 1 }, b"x");
        rig.queue.tend(Instant::now());
        assert_eq!(rig.ends().len(), 1);
        assert!(settle(&mut rig.queue).is_empty());
        rig.say(Frame::Send { length: 1 }, b"x");
        assert!(is_called(&rig, long), "round {round}: what comes after the other has asked");
        hears(&mut rig, 1);
    }
}

pub(in crate::transport) fn those_that_are_idle_are_heard_when_they_say_something<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let mut others: Vec<_> = (0..20)
        .map(|_| {
            let (peer, socket, carrier, gift) = C::ends();
            let channel = rig.queue.create(Arc::clone(&socket), carrier, SIZES).expect("a channel");
            rig.queue.activate(channel, gift, 4).expect("activates");
            socket.open();
            (channel, peer, socket)
        })
        .collect();
    let mut done = Vec::new();
    for round in 0..3 {
        // So many that all but a few are not looked at any more.
        for _ in 0..5000 {
            rig.queue.poll(&mut done).expect("polls");
        }
        assert!(done.is_empty());
        for at in [0, 7, 19] {
            let memory = rig.transfer(8);
            rig.queue.post_receive(round, memory).map_err(|_| ()).expect("room");
            let (channel, peer, _) = &mut others[at];
            let said = Header { acknowledged: 0, frame: Frame::Send { length: 1 } }.to_bytes();
            peer.write_all(&[&said[..], b"x"].concat()).expect("writes");
            let received = rig.ends();
            assert!(
                received.iter().all(|done| done.channel == *channel && matches!(done.result, Ok(1))),
                "{received:?}"
            );
        }
    }
    // One goes: the others stay.
    let (gone, peer, _) = others.swap_remove(3);
    drop(peer);
    drop(rig.queue.close(gone).expect("it is there")());
    let memory = rig.transfer(8);
    rig.queue.post_receive(9, memory).map_err(|_| ()).expect("room");
    rig.say(Frame::Send { length: 1 }, b"x");
    assert!(matches!(&rig.ends()[..], [Completion { token: 9, result: Ok(1), .. }]));
}

pub(in crate::transport) fn one_that_was_held_up_is_heard_again<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let mut others: Vec<_> = (0..6)
        .map(|_| {
            let (peer, socket, carrier, gift) = C::ends();
            let channel = rig.queue.create(Arc::clone(&socket), carrier, SIZES).expect("a channel");
            rig.queue.activate(channel, gift, 4).expect("activates");
            socket.open();
            (peer, socket)
        })
        .collect();
    let mut done = Vec::new();
    for round in 0..3 {
        // There is no receive for it, for so long that it is not looked at any more; the others are.
        rig.say(Frame::Send { length: 1 }, b"x");
        for polls in 0..3000 {
            if polls % 500 == 0 {
                let nothing = Header { acknowledged: 0, frame: Frame::Acknowledge }.to_bytes();
                others.iter_mut().for_each(|(peer, _)| peer.write_all(&nothing).expect("writes"));
            }
            rig.queue.poll(&mut done).expect("polls");
        }
        assert!(done.is_empty());
        for token in [2 * round, 2 * round + 1] {
            let memory = rig.transfer(8);
            rig.queue.post_receive(token, memory).map_err(|_| ()).expect("room");
            assert!(matches!(&rig.ends()[..], [Completion { result: Ok(1), .. }]), "round {round}");
            if token % 2 == 0 {
                rig.say(Frame::Send { length: 1 }, b"y");
            }
        }
    }
    drop(others);
}

pub(in crate::transport) fn what_a_peer_has_said_before_its_end_is_received<C: TestCarrier>() {
    const LENGTH: usize = 30_000;
    let mut rig = Rig::<C>::new();
    for token in 0..5 {
        let memory = rig.transfer(LENGTH);
        rig.queue.post_receive(token, memory).map_err(|_| ()).expect("room");
    }
    let (tell, told) = std::sync::mpsc::channel();
    rig.socket.observe(Box::new(move |error| tell.send(error.kind()).expect("somebody hears")));
    for filling in 0..4 {
        rig.say(Frame::Send { length: LENGTH as u32 }, &[filling; LENGTH]);
    }
    // Half a message, which nobody sees.
    rig.say(Frame::Send { length: 8 }, b"half");
    rig.peer.hang_up();
    let mut done = rig.ends();
    done.extend(settle(&mut rig.queue));
    // Where polls ask the kernel nothing, the end is learned by who does that now and then.
    rig.queue.tend(Instant::now());
    done.extend(settle(&mut rig.queue));
    let received: Vec<_> = done.into_iter().filter_map(|done| Some((done.result.ok()?, done.memory?))).collect();
    assert_eq!(received.len(), 4);
    for (filling, (length, memory)) in (0..4).zip(received) {
        assert_eq!(length as usize, LENGTH);
        assert!(memory.into_buffer().expect("a buffer").iter().all(|&byte| byte == filling));
    }
    assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(ErrorKind::PeerClosed));
}

pub(in crate::transport) fn what_comes_behind_a_refusal_is_not_carried_out<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let memory = rig.transfer(8);
    rig.queue.post_receive(5, memory).map_err(|_| ()).expect("room");
    rig.post(1, Operation::Probe, None);
    let refusal = Frame::Refuse { request: 1, reason: Reason::Access };
    let said = [refusal, Frame::Send { length: 0 }].map(|frame| Header { acknowledged: 0, frame }.to_bytes());
    rig.peer.write_all(said.as_flattened()).expect("writes");
    assert_eq!(rig.ends().iter().map(|ended| ended.token).collect::<Vec<_>>(), [1]);
    assert!(rig.settle().is_empty());
}

pub(in crate::transport) fn a_peer_that_does_nothing_of_what_it_is_asked_is_given_up<C: TestCarrier>() {
    let second = Duration::from_secs(1);
    let mut rig = Rig::<C>::new();
    rig.queue.give_up_after(second);
    let (tell, told) = std::sync::mpsc::channel();
    rig.socket.observe(Box::new(move |error| tell.send(error.kind()).expect("somebody hears")));
    let mut now = Instant::now();
    for acknowledged in 1..=2 {
        rig.post(acknowledged, Operation::Probe, None);
        for _ in 0..3 {
            rig.queue.tend(now);
            now += second / 4;
        }
        // It says something all the while.
        rig.peer.write_all(&Header { acknowledged, frame: Frame::Probe }.to_bytes()).expect("writes");
        assert_eq!(rig.ends().len(), 1);
    }
    rig.queue.tend(now + 100 * second);
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "nothing is asked");
    rig.post(3, Operation::Probe, None);
    for step in 0..5 {
        assert!(told.try_recv().is_err(), "after {step} steps");
        rig.queue.tend(now + 100 * second + step * second / 4);
        rig.say_done(2);
        rig.settle();
    }
    assert_eq!(told.recv_timeout(5 * second), Ok(ErrorKind::Unresponsive));
    rig.queue.fail(rig.channel);
    assert!(rig.ends().iter().any(|ended| ended.token == 3));
}

pub(in crate::transport) fn what_is_not_written_has_not_left<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    assert!(rig.queue.has_left(rig.channel));
    rig.post(1, Operation::Probe, None);
    assert!(rig.queue.has_left(rig.channel) && rig.queue.host_answers(rig.channel) == Some(true));
    block(&mut rig);
    assert!(!rig.queue.has_left(rig.channel));
}

pub(in crate::transport) fn a_busy_connection_does_not_keep_another_from_being_told<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let (mut busy, socket, carrier, gift) = C::ends();
    let channel = rig.queue.create(Arc::clone(&socket), carrier, SIZES).expect("a channel");
    rig.queue.activate(channel, gift, 4).expect("activates");
    socket.open();
    rig.say(Frame::Probe, &[]);
    let probe = Header { acknowledged: 0, frame: Frame::Probe }.to_bytes();
    let mut done = Vec::new();
    for _ in 0..C::DRY_POLLS + 10 {
        busy.write_all(&probe).expect("writes");
        std::thread::sleep(Duration::from_millis(1));
        rig.queue.poll(&mut done).expect("polls");
    }
    rig.peer.be_impatient();
    assert_eq!(rig.hear(), Header { acknowledged: 1, frame: Frame::Acknowledge });
}

pub(in crate::transport) fn closing_does_not_wait_for_a_peer_that_does_not_read<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    block(&mut rig);
    rig.queue.fail(rig.channel);
    let begun = Instant::now();
    drop(rig.queue.close(rig.channel).expect("it is there")());
    assert!(begun.elapsed() < Duration::from_millis(50), "it took {:?}", begun.elapsed());
    while Arc::strong_count(&rig.socket) > 1 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the stream is not ended");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(in crate::transport) fn what_a_peer_may_not_reach_is_refused_and_left_alone<C: TestCarrier>() {
    for case in 0..8 {
        let mut rig = Rig::<C>::new();
        let access = [Access::READ_WRITE, Access::READ, Access::WRITE][match case {
            5 => 1,
            6 => 2,
            _ => 0,
        }];
        let (mapping, _region, address, key) = rig.open(4096, access);
        let of_another = Rig::<C>::new().open(4096, Access::ALL).3;
        let write = |address, key, length| Frame::Write { address, key, length };
        let frame = match case {
            0 => write(address, key ^ 1, 8),
            1 => write(address + 4090, key, 8),
            2 => write(address - 1, key, 8),
            3 => write(u64::MAX - 3, key, 8),
            4 => write(address, of_another, 8),
            5 => write(address, key, 8),
            6 => Frame::Read { address, key, length: 8 },
            _ => Frame::FetchAdd { address, key, add: 1 },
        };
        rig.say(frame, if let Frame::Write { .. } = frame { &[1; 8] } else { &[] });
        let ended = rig.ends();
        assert_eq!(ended.iter().map(kind).collect::<Vec<_>>(), [Some(ErrorKind::ConnectionBroken)], "case {case}");
        assert_eq!(rig.hear().frame, Frame::Refuse { request: 1, reason: Reason::Access }, "case {case}");
        assert!(bytes(&mapping, 0..4096).iter().all(|&byte| byte == 0x5a), "case {case} changed memory");
    }
}

pub(in crate::transport) fn a_window_that_is_closed_in_the_middle_of_a_write_stops_it<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let length = 100_000;
    let mapping = Arc::new(Mapping::new(length).expect("memory"));
    let memory: Arc<dyn Registrable> = Arc::clone(&mapping) as _;
    let region = rig.register(&memory, 0..length, RegionAccess::Windows { write: true });
    let opening = Opening { region, access: Access::WRITE };
    let (window, key) = rig.queue.bind(rig.channel, 1, opening).map_err(|refused| refused.error).expect("binds");
    rig.ends();
    let address = mapping.address().addr() as u64;
    let frame = Frame::Write { address, key, length: length as u32 };
    rig.say(frame, &vec![1; length / 2]);
    assert!(rig.settle().is_empty());
    assert_eq!(bytes(&mapping, 0..1), [1], "the first half is there");
    rig.queue.invalidate(rig.channel, 2, window).map_err(|_| ()).expect("invalidates");
    // It is noticed by the next poll, whether or not more has come.
    let mut ended = rig.ends();
    rig.peer.write_all(&vec![1; length / 2]).expect("writes");
    ended.extend(rig.settle());
    assert!(ended.iter().any(|done| done.token == 2 && done.result.is_ok()));
    assert_eq!(ended.iter().find_map(kind), Some(ErrorKind::ConnectionBroken));
    assert!(bytes(&mapping, length / 2..length).iter().all(|&byte| byte == 0), "nothing more came");
}

pub(in crate::transport) fn what_no_peer_may_say_ends_the_channel_with_the_reason<C: TestCarrier>() {
    let data = Frame::Data { length: 8 };
    for (frame, acknowledged, word) in [
        (Frame::Acknowledge, 1, "acknowledges request 1"),
        (data, 0, "nothing that was asked"),
        (Frame::Word { old: 1 }, 0, "nothing that was asked"),
        (Frame::Refuse { request: 3, reason: Reason::Access }, 0, "refuses request 3"),
        (Frame::Refuse { request: 0, reason: Reason::Access }, 0, "refuses request 0"),
    ] {
        let mut rig = Rig::<C>::new();
        rig.peer.write_all(&Header { acknowledged, frame }.to_bytes()).expect("writes");
        let ended = rig.ends();
        let Some(Err(Failure::Broken(error))) = ended.into_iter().next().map(|ended| ended.result) else {
            panic!("{frame:?} breaks it");
        };
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains(word), "{error}");
    }
    // An answer that is too long, and one of the wrong kind.
    for (frame, acknowledged) in [(Frame::Data { length: 9 }, 0), (Frame::Word { old: 1 }, 0), (Frame::Acknowledge, 1)]
    {
        let mut rig = Rig::<C>::new();
        let memory = rig.transfer(8);
        rig.post(1, Operation::Read { address: 1, key: 1 }, Some(memory));
        rig.peer.write_all(&Header { acknowledged, frame }.to_bytes()).expect("writes");
        assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::Protocol), "{frame:?}");
    }
    // More reads than anybody may have outstanding.
    let mut rig = Rig::<C>::new();
    let (_mapping, _region, address, key) = rig.open(1 << 20, Access::READ);
    let read = Header { acknowledged: 0, frame: Frame::Read { address, key, length: 1 << 20 } }.to_bytes();
    rig.peer.write_all(&read.repeat(200)).expect("writes");
    assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::Protocol));
}

pub(in crate::transport) fn noise_of_any_kind_breaks_one_channel_and_nothing_else<C: TestCarrier>() {
    for round in 0..200u64 {
        let mut rig = Rig::<C>::new();
        let (_mapping, _region, address, key) = rig.open(4096, Access::ALL);
        for token in 0..4 {
            let memory = rig.transfer(512);
            rig.queue.post_receive(token, memory).map_err(|_| ()).expect("room");
        }
        for token in 0..3 {
            let memory = rig.transfer(100);
            rig.post(token, Operation::Read { address: 0, key: 0 }, Some(memory));
        }
        let mut noise = vec![0u8; 4000];
        noise.fill_with(rand::random);
        if round % 2 == 0 {
            // Good headers with bad contents, or some good ones.
            for at in (0..noise.len() - HEADER).step_by(HEADER + 16) {
                let length = u32::from(noise[at + 5]);
                (noise[at], noise[at + 1]) = (1, noise[at + 1] % 12);
                noise[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
                noise[at + 8..at + 16].fill(0);
                noise[at + 16..at + 24].copy_from_slice(&(address + u64::from(length)).to_le_bytes());
                noise[at + 24..at + 28].copy_from_slice(&key.to_le_bytes());
            }
        }
        // It may be ended before all is said.
        let _ = rig.peer.write_all(&noise);
        rig.peer.hang_up();
        let _ = rig.settle();
        rig.queue.fail(rig.channel);
        let left = rig.queue.close(rig.channel).expect("it is there")();
        let mut done = Vec::new();
        rig.queue.poll(&mut done).expect("polls");
        assert!(left.len() + done.len() < 100);
        assert_eq!(Arc::strong_count(&rig.socket), 1, "nothing holds the stream");
    }
}

pub(in crate::transport) fn what_was_posted_comes_back_when_the_channel_fails<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    for token in 0..5 {
        let memory = rig.transfer(1 << 20);
        rig.post(token, Operation::Send, Some(memory));
    }
    rig.queue.fail(rig.channel);
    let done = rig.ends();
    assert_eq!(done.iter().map(|done| done.token).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(done.iter().all(|done| matches!(done.result, Err(Failure::Flushed)) && done.memory.is_some()));
    rig.post(6, Operation::Probe, None);
    assert!(matches!(&rig.ends()[..], [Completion { token: 6, result: Err(Failure::Flushed), .. }]));
}

pub(in crate::transport) fn a_peer_is_served_in_turn_with_the_threads_of_this_process<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let exposed = Buffer::allocate(64).expect("memory").expose();
    let memory = exposed.host();
    let region = rig.register(&memory, 0..64, RegionAccess::Windows { write: true });
    let opening = Opening { region, access: Access::ALL };
    let (_, key) = rig.queue.bind(rig.channel, 9, opening).map_err(|refused| refused.error).expect("binds");
    rig.ends();
    let address = memory.address().addr() as u64;
    for frame in [
        Frame::Write { address, key, length: 8 },
        Frame::FetchAdd { address, key, add: 1 },
        Frame::Read { address, key, length: 8 },
    ] {
        rig.say(frame, if let Frame::Write { .. } = frame { &[1; 8] } else { &[] });
        let turns = memory.turns().expect("threads take turns");
        std::thread::scope(|scope| {
            let turn = turns.write().expect("no panic");
            let served = scope.spawn(|| rig.settle());
            std::thread::sleep(Duration::from_millis(100));
            assert!(!served.is_finished(), "{frame:?} did not wait");
            drop(turn);
        });
    }
    let mut word = [0; 8];
    exposed.read_at(0, &mut word);
    assert_eq!(u64::from_le_bytes(word), u64::from_le_bytes([1; 8]) + 1);
}

pub(in crate::transport) fn a_read_that_is_acknowledged_without_its_answer_still_ends<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    for token in 1..=3 {
        let memory = rig.transfer(8);
        rig.post(token, Operation::Read { address: 1, key: 1 }, Some(memory));
    }
    rig.peer.write_all(&Header { acknowledged: 2, frame: Frame::Acknowledge }.to_bytes()).expect("writes");
    assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::Protocol));
    rig.queue.fail(rig.channel);
    let ended: Vec<_> = rig.settle().into_iter().map(|done| (done.token, done.memory.is_some())).collect();
    assert_eq!(ended, [(1, true), (2, true), (3, true)]);
}

/// Fills the socket, in pieces of which a failing channel can keep one.
fn block<C: TestCarrier>(rig: &mut Rig<C>) {
    rig.post_sends(16, 1 << 19);
}

fn read_all(peer: &mut impl Peer) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = peer.read_to_end(&mut all);
    all
}

/// Closes the channel, and hears all that it has said.
fn last_words<C: TestCarrier>(rig: &mut Rig<C>) -> Vec<Header> {
    let Rig { queue, peer, channel, .. } = rig;
    let all = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(peer));
        drop(queue.close(*channel).expect("it is there")());
        reader.join().expect("no panic")
    });
    let (mut all, mut headers) = (&all[..], Vec::new());
    while let Some((header, rest)) = all.split_first_chunk() {
        let header = Header::parse(*header).expect("a good one");
        headers.push(header);
        let length = match header.frame {
            Frame::Data { length } | Frame::Send { length } => length as usize,
            _ => 0,
        };
        assert!(length <= rest.len(), "{} of {length} bytes came", rest.len());
        assert!(rest[..length].iter().all(|&byte| byte == 0xee));
        all = &rest[length..];
    }
    headers
}

pub(in crate::transport) fn what_fails_behind_a_full_socket_says_what_is_done_and_no_more<C: TestCarrier>() {
    for is_refusing in [false, true] {
        let mut rig = Rig::<C>::new();
        let (_mapping, _region, address, key) = rig.open(4096, Access::READ);
        block(&mut rig);
        for _ in 0..2 {
            rig.say(Frame::Probe, &[]);
        }
        for _ in 0..3 {
            rig.say(Frame::Read { address, key, length: 8 }, &[]);
        }
        assert!(rig.settle().is_empty());
        if is_refusing {
            rig.say(Frame::Read { address, key: key ^ 1, length: 8 }, &[]);
            assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::ConnectionBroken));
        }
        rig.queue.fail(rig.channel);
        let said = last_words(&mut rig);
        let (last, before) = said.split_last().expect("something");
        assert!(before.iter().all(|header| header.acknowledged == 0), "the peer was not to be told before");
        assert!(before.iter().all(|header| header.frame == Frame::Send { length: 1 << 19 }));
        let frame = match is_refusing {
            true => Frame::Refuse { request: 6, reason: Reason::Access },
            false => Frame::Acknowledge,
        };
        assert_eq!(*last, Header { acknowledged: 2, frame });
    }
}

pub(in crate::transport) fn a_peer_that_does_not_read_is_told_once_when_it_does<C: TestCarrier>() {
    const PROBES: u64 = 8;
    let mut rig = Rig::<C>::new();
    block(&mut rig);
    for _ in 0..PROBES {
        rig.say(Frame::Probe, &[]);
        assert!(rig.settle().is_empty());
    }
    let Rig { queue, peer, .. } = &mut rig;
    let read_until_told = move || {
        let (mut header, mut body, mut acknowledgements) = ([0; HEADER], vec![0; 1 << 19], 0);
        loop {
            peer.read_exact(&mut header).expect("a header in time");
            let said = Header::parse(header).expect("a good one");
            match said.frame {
                Frame::Send { .. } => peer.read_exact(&mut body).expect("a message"),
                _ => acknowledgements += 1,
            }
            if said.acknowledged == PROBES {
                return acknowledgements;
            }
        }
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(read_until_told);
        while !reader.is_finished() {
            settle(queue);
        }
        assert!(reader.join().expect("no panic") <= 1);
    });
}

pub(in crate::transport) fn receives_that_nobody_could_take_are_given_back<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let memory = rig.transfer(8);
    rig.queue.post_receive(1, memory).map_err(|_| ()).expect("room");
    let room = rig.queue.receive_room();
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    rig.queue.tend(now);
    rig.queue.tend(now + 2 * second);
    assert!(rig.settle().is_empty(), "there is a channel");
    drop(rig.queue.close(rig.channel).expect("it is there")());
    rig.queue.tend(now + 3 * second);
    rig.queue.tend(now + 5 * second);
    assert!(matches!(&rig.ends()[..], [Completion { token: 1, memory: Some(_), .. }]));
    assert_eq!(rig.queue.receive_room(), room + 1);
}

pub(in crate::transport) fn a_refusal_is_said_behind_what_is_half_written<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let memory = rig.transfer(8 << 20);
    rig.post(1, Operation::Send, Some(memory));
    // More than the socket takes is on its way, and then the peer does what it may not.
    rig.say(Frame::Read { address: 1, key: 1, length: 1 }, &[]);
    assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::ConnectionBroken));
    let Rig { queue, peer, channel, .. } = &mut rig;
    let all = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(peer));
        while queue.channel_standing(*channel) == Some(Standing::Active) && !reader.is_finished() {
            settle(queue);
            queue.fail(*channel);
        }
        drop(queue.close(*channel).expect("it is there")());
        reader.join().expect("no panic")
    });
    // Either all of it and the reason, or an end in the middle: nothing that could be taken for something else.
    if all.len() >= 2 * HEADER + (8 << 20) {
        let last = Header::parse(*all.last_chunk().expect("a header")).expect("a good one");
        assert_eq!(last.frame, Frame::Refuse { request: 1, reason: Reason::Access });
    }
}
