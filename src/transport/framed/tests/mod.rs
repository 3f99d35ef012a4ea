//! What a queue does with a peer that keeps to nothing, over any carrier.

mod accesses;
mod attention;
mod endings;
mod messages;
mod requests;

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::carrier::Carrier;
use super::domain::SoftwareDomain;
use super::frame::Reason;
use super::queue::FramedQueue;
use super::socket::Socket;
use crate::memory::{Domain, Mapping, RegionAccess, Registrable, Registration, Transfer, volatile};
use crate::transport::{ChannelKey, ChannelSizes, Completion, Failure, Opening, Operation, Queue, Request, Source};
use crate::{Access, Buffer, ErrorKind};

pub(in crate::transport) use self::{accesses::*, attention::*, endings::*, messages::*, requests::*};
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
            a_message_that_needs_no_receive_is_lent_as_it_came
            messages_of_both_kinds_arrive_in_their_order
            a_message_that_is_longer_than_any_ends_the_channel
            a_message_acknowledges_only_what_was_sent
            what_is_too_long_to_be_kept_ends_in_the_middle_and_nothing_follows
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

    pub(in crate::transport) fn socket(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    pub(in crate::transport) fn queue(&mut self) -> &mut FramedQueue<C> {
        &mut self.queue
    }

    pub(in crate::transport) fn channel(&self) -> ChannelKey {
        self.channel
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
    pub(in crate::transport) fn settle(&mut self) -> Vec<Completion> {
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

/// Fills the socket, in pieces of which a failing channel can keep one.
fn block<C: TestCarrier>(rig: &mut Rig<C>) {
    rig.post_sends(16, 1 << 19);
}
