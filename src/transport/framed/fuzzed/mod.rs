//! One channel whose peer, carrier and program are a fuzzer's.
//!
//! The bytes of the fuzzer say what happens: what the peer says, whole or in part, how much the carrier takes, what is posted, opened and
//! closed meanwhile. A [`Model`] says what must come of it; whatever differs is a panic.

mod heard;
mod model;
mod peer;
mod pipe;
mod visit;

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use self::heard::Heard;
use self::model::{Door, How, MESSAGE, Model, Request as Posted, Verdict};
use self::pipe::{Pipe, Wire};
pub(in crate::transport) use self::visit::Visit;
use super::domain::SoftwareDomain;
use super::frame::Reason;
use super::queue::FramedQueue;
use super::socket::Socket;
use crate::fuzzing::Input;
use crate::memory::{Domain, Mapping, RegionAccess, Registrable, Registration, Transfer, volatile};
use crate::transport::{
    ChannelKey, ChannelSizes, Completion, Failure, Opening, Operation, Queue, Request, Source, WindowKey,
};
use crate::{Access, Buffer, ErrorKind};

/// Bytes that peers may reach; a write of all of them is a long one.
const MEMORY: usize = 24_576;
/// Bytes before and behind it, which nobody may reach.
const BESIDE: usize = 4096;
const WITHIN: Range<usize> = BESIDE..BESIDE + MEMORY;
/// Bytes of a message or a request, at most.
const LONGEST: usize = 30_000;
const SIZES: ChannelSizes = ChannelSizes { segments: 16, sends: 32, inline: 0 };
/// Reads that may be outstanding.
const READS: usize = 4;
/// Receives that there may be.
const MOST_RECEIVES: usize = 32;

thread_local! {
    /// Used again by the next: to map it takes longer than what most do with it.
    static MAPPING: Arc<Mapping> = Arc::new(Mapping::new(MEMORY + 2 * BESIDE).expect("memory"));
}

struct Fuzzed {
    domain: Arc<SoftwareDomain>,
    queue: FramedQueue<Pipe>,
    channel: ChannelKey,
    socket: Arc<Socket>,
    pipe: Pipe,
    mapping: Arc<Mapping>,
    base: u64,
    windows: Vec<Option<Window>>,
    model: Model,
    heard: Heard,
    /// What the peer has said is done, and how many frames it has said.
    acknowledged: u64,
    said: u8,
    next: u64,
    /// What was posted and has not ended.
    outstanding: HashSet<u64>,
    done: Vec<Completion>,
    /// The messages among these that needed no receive.
    lent: VecDeque<Vec<u8>>,
    /// Whether something was read since the memory was looked at.
    has_read: bool,
    /// Whether the model does not know any more.
    is_unsure: bool,
    has_broken: bool,
}

/// How the memory is open.
enum Window {
    Bound(WindowKey),
    /// Held for as long as it is.
    Registered {
        _region: Arc<dyn Registration>,
    },
}

/// The bytes of a request of ours.
fn pattern(token: u64, range: Range<usize>) -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| (0..LONGEST + 256).map(|at| at as u8).collect());
    let begin = usize::from((token as u8).wrapping_mul(31));
    &BYTES[begin + range.start..begin + range.end]
}

/// Whether a message has come that needed no receive.
fn is_message(done: &Completion) -> bool {
    done.is_receive && done.memory.is_none() && done.result.is_ok()
}

/// Takes the first `count` bytes off.
fn take_front(bytes: &mut VecDeque<u8>, count: usize) -> Vec<u8> {
    let taken = bytes.make_contiguous()[..count].to_vec();
    bytes.drain(..count);
    taken
}

/// Lets a peer say any bytes while the program does anything.
pub(crate) fn stream(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut fuzzed = Fuzzed::new(&mut input);
    while !input.is_empty() {
        fuzzed.step(&mut input);
        fuzzed.settle();
    }
    fuzzed.end();
}

impl Fuzzed {
    fn new(input: &mut Input<'_>) -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, _) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("sockets");
        let socket = Socket::new(socket).expect("a service");
        const MOST: [usize; 6] = [usize::MAX, 16_384, 4096, 100, 48, 7];
        let wire = Wire { room: usize::MAX, most: MOST[input.below(6)], ..Wire::default() };
        let pipe = Pipe::of(wire);
        let domain = SoftwareDomain::of_process();
        let mut queue = FramedQueue::open(Arc::clone(&domain), 2 * MOST_RECEIVES).expect("a queue");
        let channel = queue.create(Arc::clone(&socket), pipe.clone(), SIZES).expect("a channel");
        queue.activate(channel, (), READS).expect("activates");
        socket.open();
        let mapping = MAPPING.with(Arc::clone);
        volatile::store(&*mapping, 0, &[0x5a; MEMORY + 2 * BESIDE]);
        let (base, bytes) = ((mapping.address().addr() + BESIDE) as u64, vec![0x5a; MEMORY]);
        let mut this = Self {
            domain,
            queue,
            channel,
            socket,
            pipe,
            mapping,
            base,
            windows: Vec::new(),
            model: Model::new(base, bytes),
            heard: Heard::new(),
            acknowledged: 0,
            said: 0,
            next: 1,
            outstanding: HashSet::new(),
            done: Vec::new(),
            lent: VecDeque::new(),
            has_read: true,
            is_unsure: false,
            has_broken: false,
        };
        // All of it for all, and something for some.
        this.open(Access::ALL);
        this.open(if input.byte() & 1 == 0 { Access::READ } else { Access::WRITE });
        this.register();
        this.settle();
        this
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(26) {
            0..=8 => self.say(input),
            9 => {
                let length = input.byte().into();
                let bytes = input.take(length);
                self.send(bytes);
            }
            10 => self.pipe.wire().room = input.short().into(),
            11 => {
                let mut wire = self.pipe.wire();
                wire.room = wire.room.saturating_add(usize::from(input.byte()) * 100);
            }
            12 => self.pipe.wire().room = usize::MAX,
            13 | 14 => self.receive(peer::length(input) as usize % LONGEST),
            15..=17 => self.post(input),
            18 if self.windows.len() < 6 => self.open(Access::ALL),
            19 => self.close(input.below(6)),
            20 => self.tend(),
            21 if input.byte() >= 0xe0 => self.pipe.wire().is_ended = true,
            22 if input.byte() >= 0xe0 => self.fail(),
            23 => {
                self.queue.request_notification().expect("arms");
                self.queue.drain_events().expect("drains");
            }
            24 | 25 => {
                self.say(input);
                self.receive_now();
            }
            _ => {}
        }
    }

    /// Takes what has come without a poll, if that can be.
    fn receive_now(&mut self) {
        // What is looked at is what the model has, unless the queue has begun with it.
        let is_whole = self.pipe.wire().incoming.len() == self.model.unread.len() && !self.is_unsure;
        let must = is_whole.then(|| self.model.take_message()).flatten();
        let received = self.queue.receive_now(self.channel);
        let bytes = received.map(|(token, length)| self.queue.lent(token, length).to_vec());
        assert!(bytes == must || self.is_unsure, "another message without a poll, or none");
    }

    /// Polls once, and copies the messages that are lent until the next.
    fn poll_once(&mut self) {
        let before = self.done.len();
        self.queue.poll(&mut self.done).expect("polls");
        for done in self.done[before..].iter().filter(|done| is_message(done)) {
            let length = *done.result.as_ref().expect("it came well") as usize;
            self.lent.push_back(self.queue.lent(done.token, length).to_vec());
        }
    }

    /// The peer says something, unless it has gone.
    fn send(&mut self, bytes: &[u8]) {
        let mut wire = self.pipe.wire();
        if !wire.is_ended {
            wire.incoming.extend(bytes);
            self.model.unread.extend(bytes);
        }
    }

    fn token(&mut self) -> u64 {
        let token = self.next;
        self.next += 1;
        self.outstanding.insert(token);
        token
    }

    fn transfer(&self, token: u64, length: usize) -> Transfer {
        let mut buffer = Buffer::allocate(length.max(1)).expect("memory");
        buffer[..length].copy_from_slice(pattern(token, 0..length));
        Transfer::new(buffer, 0..length, &*self.domain).expect("registers anything")
    }

    fn receive(&mut self, length: usize) {
        if self.queue.receive_room() > 0 {
            let token = self.token();
            let memory = self.transfer(token, length);
            self.queue.post_receive(token, memory).map_err(|_| ()).expect("there is room");
            self.model.receives.push_back((token, length));
        }
    }

    fn post(&mut self, input: &mut Input<'_>) {
        if self.queue.room(self.channel) == 0 {
            return;
        }
        let (address, key) = (input.byte().into(), 1);
        let operation = match input.below(7) {
            0 => Operation::Send,
            1 => Operation::Write { address, key },
            2 => Operation::WriteNotify { address, key, value: 7 },
            3 => Operation::Read { address, key },
            4 => Operation::FetchAdd { address, key, add: 1 },
            5 => Operation::CompareSwap { address, key, compare: 1, swap: 2 },
            _ => Operation::Probe,
        };
        let length = match operation {
            Operation::Probe => 0,
            Operation::CompareSwap { .. } | Operation::FetchAdd { .. } => 8,
            _ => peer::length(input) % LONGEST as u32,
        };
        let token = self.token();
        let memory = (operation != Operation::Probe).then(|| self.transfer(token, length as usize));
        let source = memory.map_or(Source::Inline(&[]), Source::Owned);
        let request = Request { token, operation, source, signaled: true, fence: input.byte() >= 0xe0 };
        self.queue.stage(self.channel, request).map_err(|refused| refused.error).expect("there is room");
        self.queue.flush().expect("flushes");
        self.model.pending.push_back(Posted { token, operation, length, answer: Vec::new(), is_answered: false });
        if self.model.is_failed {
            self.model.fail();
        }
    }

    fn open(&mut self, access: Access) {
        let memory: Arc<dyn Registrable> = Arc::clone(&self.mapping) as _;
        let region = self.domain.register(&memory, WITHIN, RegionAccess::Windows { write: true });
        let opening = Opening { region: region.expect("registers"), access };
        let token = self.token();
        let (window, key) =
            self.queue.bind(self.channel, token, opening).map_err(|refused| refused.error).expect("binds");
        self.windows.push(Some(Window::Bound(window)));
        self.model.doors.push(Door { key, access, is_open: true });
    }

    fn register(&mut self) {
        let memory: Arc<dyn Registrable> = Arc::clone(&self.mapping) as _;
        let access = RegionAccess::Remote { access: Access::READ_WRITE, on_demand: false };
        let region = self.domain.register(&memory, WITHIN, access).expect("registers");
        let key = region.remote_key();
        self.windows.push(Some(Window::Registered { _region: region }));
        self.model.doors.push(Door { key, access: Access::READ_WRITE, is_open: true });
    }

    fn close(&mut self, place: usize) {
        let Some(window) = self.windows.get_mut(place).and_then(Option::take) else { return };
        if let Window::Bound(window) = window {
            let token = self.token();
            self.queue.invalidate(self.channel, token, window).map_err(|_| ()).expect("it is bound");
        }
        self.model.doors[place].is_open = false;
    }

    /// A second passes, so what waits for a receive waits no more.
    fn tend(&mut self) {
        self.poll();
        let is_stalled = self.model.is_stalled && !self.model.is_over;
        self.queue.tend(Instant::now() + Duration::from_secs(1));
        if is_stalled && !self.is_unsure {
            self.look(Err(Verdict::Refused(self.model.done + 1, Reason::NotReady)));
        }
    }

    fn fail(&mut self) {
        self.poll();
        self.queue.fail(self.channel);
        self.model.fail();
    }

    /// Polls for as long as something comes, and sees that it is what must come.
    fn settle(&mut self) {
        self.poll();
        self.compare();
    }

    fn poll(&mut self) {
        self.model.has_written = false;
        loop {
            let before = self.pipe.wire().incoming.len();
            self.poll_once();
            if self.pipe.wire().incoming.len() == before {
                break;
            }
            self.has_read = true;
        }
        let verdict = self.model.run();
        self.look(verdict);
    }

    /// Compares what the peer has done wrong with what the queue makes of it.
    fn look(&mut self, verdict: Result<(), Verdict>) {
        self.poll_once();
        let is_end =
            |done: &Completion| done.token == 0 && done.is_receive && done.memory.is_none() && done.result.is_err();
        let place = self.done.iter().position(is_end);
        let end = place.map(|place| self.done.remove(place)).map(|done| match done.result {
            Err(Failure::Broken(error)) => error.kind(),
            other => panic!("an end that is {other:?}"),
        });
        assert!(end.is_none() || !std::mem::replace(&mut self.has_broken, true), "a second end");
        if self.is_unsure {
            return;
        }
        let has_ended = self.pipe.wire().is_ended;
        match (verdict, end) {
            (Ok(()), None) => {}
            (Err(Verdict::Unsure), _) => self.is_unsure = true,
            // What it was still to be answered may be refused by then, which nobody is told any more.
            (Err(Verdict::Protocol), Some(ErrorKind::Protocol)) => (self.model.is_over, self.is_unsure) = (true, true),
            (Err(Verdict::Refused(number, reason)), Some(ErrorKind::ConnectionBroken)) => {
                self.model.is_over = true;
                self.heard.refusal = Some((number, reason));
            }
            // It was found while something was written, or before there was more to read.
            (_, Some(ErrorKind::ConnectionBroken)) if self.model.may_be_refused() || self.heard.is_within_answer() => {
                self.is_unsure = true;
            }
            // The end of the stream was found first.
            (Err(_), None) if has_ended => self.is_unsure = true,
            (verdict, end) => panic!("{verdict:?}, and it ends by {end:?}"),
        }
    }

    fn compare(&mut self) {
        let outgoing = std::mem::take(&mut self.pipe.wire().outgoing);
        if !self.is_unsure {
            let is_still = !self.model.has_written;
            self.heard.hear(&outgoing, &mut self.model, self.base, is_still);
            self.look_at_memory();
        }
        for done in std::mem::take(&mut self.done) {
            if is_message(&done) {
                let bytes = self.lent.pop_front().expect("it was lent");
                if !self.is_unsure {
                    let must = self.model.received.pop_front().expect("a message that must not come");
                    assert!(must.token == MESSAGE && must.bytes == bytes, "another message");
                }
                continue;
            }
            assert!(self.outstanding.remove(&done.token), "{} ends, and was not outstanding", done.token);
            if !self.is_unsure {
                self.ended(done);
            }
        }
        assert!(self.is_unsure || self.model.received.is_empty(), "a receive should have ended");
        assert!(self.is_unsure || self.model.ended.is_empty(), "a request should have ended");
    }

    fn look_at_memory(&mut self) {
        if std::mem::take(&mut self.has_read) {
            let mut bytes = vec![0; MEMORY + 2 * BESIDE];
            volatile::load(&*self.mapping, 0, &mut bytes);
            assert!(bytes[WITHIN] == self.model.memory, "the memory is not what it should be");
            bytes.drain(WITHIN);
            assert!(bytes.iter().all(|&byte| byte == 0x5a), "what nobody may reach was written");
        }
    }

    /// One has ended: it is the next that must.
    fn ended(&mut self, done: Completion) {
        let bytes = |memory: &Transfer, range: Range<usize>| {
            let mut bytes = Vec::new();
            memory.copy_to(&mut bytes);
            bytes[range].to_vec()
        };
        if done.is_receive {
            let must = self.model.received.pop_front().expect("a receive that must not end");
            let memory = done.memory.expect("its memory");
            assert_eq!((done.token, done.result.ok(), done.immediate), (must.token, Some(must.length), must.immediate));
            assert!(bytes(&memory, 0..must.bytes.len()) == must.bytes, "something else was received");
            let untouched = must.bytes.len()..memory.length();
            let is_as_before = pattern(must.token, untouched.clone()) == bytes(&memory, untouched);
            return assert!(is_as_before, "more than what was received");
        }
        if self.model.ended.front().is_none_or(|(must, _)| must.token != done.token) {
            // What opens and closes ends at once.
            assert!(done.memory.is_none() && self.model.pending.iter().all(|posted| posted.token != done.token));
            return assert!(self.model.ended.iter().all(|(must, _)| must.token != done.token), "out of order");
        }
        let (must, how) = self.model.ended.pop_front().expect("the first");
        let is_how = match done.result {
            Ok(_) => How::Done,
            Err(Failure::Flushed) => How::Flushed,
            Err(Failure::Broken(_)) => How::Refused,
        };
        assert_eq!(is_how, how);
        let Some(memory) = done.memory else { return assert_eq!(must.operation, Operation::Probe) };
        match how {
            How::Done if must.is_read() => {
                assert!(bytes(&memory, 0..must.answer.len()) == must.answer, "another answer")
            }
            _ if must.is_read() => {}
            _ => assert!(pattern(must.token, 0..memory.length()) == bytes(&memory, 0..memory.length())),
        }
    }

    /// Everything ends, and nothing is left.
    fn end(mut self) {
        self.pipe.wire().room = usize::MAX;
        self.settle();
        self.fail();
        self.settle();
        let left = self.queue.close(self.channel).expect("it is there")();
        self.done.extend(left);
        self.has_read = true;
        self.settle();
        let receives = self.queue.receive_room();
        assert_eq!(self.outstanding.len(), MOST_RECEIVES - receives, "something has not ended, or twice");
        assert!(self.is_unsure || self.outstanding.len() == self.receives_left());
        drop(self.queue);
        assert_eq!(Arc::strong_count(&self.socket), 1, "something holds the stream");
    }

    /// Receives that nothing has come for.
    fn receives_left(&self) -> usize {
        self.model.receives.len() + self.model.begun_receives()
    }
}
