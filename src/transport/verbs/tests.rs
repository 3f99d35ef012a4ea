//! The seam over a real device: what the layers above do not show of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Channels, Verbs, VerbsLink};
use crate::memory::{Domain, Mapping, RegionAccess, Registrable, Registration, Transfer, volatile};
use crate::transport::{
    ChannelKey, ChannelSizes, Completion, Failure, Kind, Listen, Operation, Queue, Request, SetUp, Source, Transport,
};
use crate::verbs::Device;
use crate::{Access, Buffer, ErrorKind};

const PATIENCE: Duration = Duration::from_secs(20);

/// One end of connections, with a queue of its own.
struct End {
    queue: Channels,
    /// That of the latest.
    channel: ChannelKey,
    domain: Arc<dyn Domain>,
    /// What came with what was waited for.
    done: VecDeque<Completion>,
    links: Vec<VerbsLink>,
}

/// The device's name and IP address. `None`, said aloud, where there is none; a panic where one is required.
fn device() -> Option<(String, SocketAddr)> {
    let found = Device::list().ok().into_iter().flatten().find_map(|device| {
        let context = device.open().ok()?;
        let ip =
            context.gid_table().ok()?.entries().iter().find_map(|entry| entry.gid.ip().filter(|ip| ip.is_ipv4()))?;
        Some((context.name().to_owned(), SocketAddr::new(ip, 0)))
    });
    let is_required = std::env::var("ZCMI_REQUIRE_RDMA").is_ok_and(|value| value == "1");
    assert!(found.is_some() || !is_required, "ZCMI_REQUIRE_RDMA=1 and there is no RDMA device");
    if found.is_none() {
        eprintln!("SKIPPED: there is no RDMA device; run it under soft-roce-setup/run");
    }
    found
}

/// Two connected ends. The connecting one offers to serve and to have outstanding so many reads, if it says so.
fn ends(reads: Option<(u8, u8)>) -> Option<[End; 2]> {
    let (name, address) = device()?;
    let device = crate::transport::Device { transport: Kind::Verbs, name };
    let [mut here, mut there] = [(); 2].map(|()| {
        let (domain, queue) = Verbs::open(&device, 256).expect("opens");
        End { queue, channel: ChannelKey(u32::MAX), domain, done: VecDeque::new(), links: Vec::new() }
    });
    connect(&mut here, &mut there, address, reads);
    Some([here, there])
}

fn connect(here: &mut End, there: &mut End, address: SocketAddr, reads: Option<(u8, u8)>) {
    let deadline = Instant::now() + PATIENCE;
    let sizes = ChannelSizes { segments: 2, sends: 32, inline: 64 };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let listener = Verbs::listen(address, 4).expect("listens");
        let connecting = async {
            let mut end = Verbs::resolve(listener.local_address(), deadline).await.expect("resolves");
            here.channel = end.open_channel(&mut here.queue, sizes).expect("opens");
            if let Some(reads) = reads {
                end.offer_reads(reads);
            }
            assert_eq!(end.negotiate(b"hello", deadline).await.expect("negotiates")[..2], *b"hi");
            end.activate(&mut here.queue, here.channel).expect("activates");
            here.links.push(end.finish(&[], deadline).await.expect("finishes"));
        };
        let accepting = async {
            let mut end = listener.next().await.expect("a request");
            assert_eq!(end.negotiate(&[], deadline).await.expect("negotiates")[..5], *b"hello");
            there.channel = end.open_channel(&mut there.queue, sizes).expect("opens");
            end.activate(&mut there.queue, there.channel).expect("activates");
            there.links.push(end.finish(b"hi", deadline).await.expect("finishes"));
        };
        tokio::join!(connecting, accepting);
    });
}

impl End {
    fn post(&mut self, token: u64, operation: Operation, source: Source<'_>) {
        let request = Request { token, operation, source, signaled: true, fence: false };
        self.queue.stage(self.channel, request).expect("there is room");
        self.queue.flush().expect("posts");
    }

    fn post_receive(&mut self, token: u64) {
        let memory = self.memory(&[0xa5; 64]);
        self.queue.post_receive(token, memory).expect("there is room");
    }

    fn memory(&self, bytes: &[u8]) -> Transfer {
        let mut buffer = Buffer::allocate(bytes.len()).expect("memory");
        buffer.copy_from_slice(bytes);
        Transfer::new(buffer, 0..bytes.len(), &*self.domain).expect("registers")
    }

    /// Memory that the peer may use.
    fn exposed(&self, length: usize) -> (Arc<dyn Registrable>, Arc<dyn Registration>, u64) {
        let mapping: Arc<dyn Registrable> = Arc::new(Mapping::new(length).expect("memory"));
        let access = RegionAccess::Remote { access: Access::READ_WRITE, on_demand: false };
        let region = self.domain.register(&mapping, 0..length, access).expect("registers");
        let address = mapping.address() as u64;
        (mapping, region, address)
    }

    /// The next completion.
    fn one(&mut self) -> Completion {
        self.within(PATIENCE).expect("something completes")
    }

    fn within(&mut self, bound: Duration) -> Option<Completion> {
        let (begun, mut done) = (Instant::now(), Vec::new());
        loop {
            self.queue.tend(Instant::now());
            self.queue.poll(&mut done).expect("polls");
            self.done.extend(done.drain(..));
            if !self.done.is_empty() || begun.elapsed() >= bound {
                return self.done.pop_front();
            }
        }
    }
}

#[test]
fn a_notification_follows_its_bytes_and_takes_any_receive() {
    let Some([mut here, mut there]) = ends(None) else { return };
    let (mapping, region, address) = there.exposed(4096);
    let room = there.queue.receive_room();
    there.post_receive(7);
    assert_eq!(there.queue.receive_room(), room - 1);
    let operation = Operation::WriteNotify { address: address + 100, key: region.remote_key(), value: 0xfeed_f00d };
    let source = here.memory(b"notified");
    here.post(1, operation, Source::Owned(source));
    assert_eq!((here.one().token, there.queue.receive_room()), (1, room - 1));
    let received = there.one();
    assert_eq!((received.token, received.channel, received.is_receive), (7, there.channel, true));
    assert_eq!((received.immediate, received.result.expect("success")), (Some(0xfeed_f00d), 8));
    let mut seen = [0; 8];
    volatile::load(&*mapping, 100, &mut seen);
    assert_eq!(&seen, b"notified");
    let buffer = received.memory.and_then(Transfer::into_buffer).expect("its memory");
    assert_eq!(buffer[..], [0xa5; 64], "the receive's memory is not used");
    assert_eq!(there.queue.receive_room(), room);
    // A message has no immediate.
    there.post_receive(8);
    here.post(2, Operation::Send, Source::Inline(b"hello"));
    assert!(here.one().result.is_ok());
    assert_eq!(there.one().immediate, None);
}

#[test]
fn a_probe_tells_whether_the_peers_device_answers() {
    let Some([mut here, mut there]) = ends(None) else { return };
    here.post(1, Operation::Probe, Source::Inline(&[]));
    let done = here.one();
    assert_eq!((done.token, done.is_receive, done.result.expect("it answers")), (1, false, 0));
    assert!(there.within(Duration::ZERO).is_none(), "the peer's program is not asked");
    // A queue pair that has failed does not answer. rxe tries again for ever, others say so in the end.
    there.queue.fail(there.channel);
    here.post(2, Operation::Probe, Source::Inline(&[]));
    match here.within(Duration::from_secs(1)).map(|done| done.result) {
        None => {}
        Some(Err(Failure::Broken(error))) => assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}"),
        Some(other) => panic!("nobody answers: {other:?}"),
    }
}

#[test]
fn the_depth_of_reads_is_what_both_ends_can_do() {
    let Some([here, there]) = ends(None) else { return };
    let reads = |end: &End| end.queue.capabilities(end.channel).reads;
    let (target, initiator) = here.queue.reads().expect("attributes");
    let most = usize::from(target.min(initiator).min(32));
    assert_eq!((reads(&here), reads(&there)), (most, most));
    drop((here, there));
    // The connecting end serves 3, and wants to have 5 outstanding.
    let Some([here, there]) = ends(Some((3, 5))) else { return };
    assert_eq!((reads(&here), reads(&there)), (5, 3));
}

#[test]
fn a_channel_whose_peer_was_refused_is_reported_behind_what_came_before() {
    let Some([mut here, mut there]) = ends(None) else { return };
    there.post_receive(1);
    here.post(1, Operation::Send, Source::Inline(b"first"));
    here.post(2, Operation::Write { address: 0x1000, key: 0x0bad_0bad }, Source::Inline(b"evil"));
    let first = there.one();
    assert_eq!((first.token, first.result.expect("success")), (1, 5));
    let broken = there.one();
    assert_eq!((broken.channel, broken.is_receive, broken.memory.is_none()), (there.channel, true, true));
    let Err(Failure::Broken(error)) = broken.result else { panic!("it broke") };
    assert_eq!(error.kind(), ErrorKind::ConnectionBroken, "{error}");
}

/// Two ends of a connection, and the room that `there` had before it posted the receives 1 to 3 that are left of 0 to 3: the queue
/// pair of another connection was broken in the middle of the message for 0. Two more messages have come since, into the numbers in
/// the answer.
fn broken_in_the_middle(after: Duration) -> Option<([End; 2], usize, Vec<u64>)> {
    const LENGTH: usize = 8 << 20;
    let [mut here, mut there] = ends(None)?;
    let (failing, its_peer) = (there.channel, here.channel);
    connect(&mut here, &mut there, device()?.1, None);
    let (working, its_other) = (there.channel, here.channel);
    let room = there.queue.receive_room();
    let memory = there.memory(&vec![0; LENGTH]);
    there.queue.post_receive(0, memory).expect("there is room");
    (1..4).for_each(|token| there.post_receive(token));
    let source = Source::Owned(here.memory(&vec![7; LENGTH]));
    here.channel = its_peer;
    here.post(1, Operation::Send, source);
    std::thread::sleep(after);
    there.queue.fail(failing);
    here.queue.fail(its_peer);
    here.queue.close(its_peer).expect("it is there")();
    there.queue.close(failing).expect("it is there")();
    here.channel = its_other;
    for token in [2, 3] {
        here.post(token, Operation::Send, Source::Inline(b"hello"));
        while here.one().token != token {}
    }
    let (begun, mut tokens) = (Instant::now(), Vec::new());
    while tokens.len() < 2 {
        let done = there.one();
        assert!(done.is_receive && begun.elapsed() < PATIENCE, "{done:?}");
        if done.channel == working {
            tokens.push(done.token);
        }
    }
    Some(([here, there], room, tokens))
}

/// rxe drops the receive of a queue pair that fails in the middle of a message, since Linux 6.12 at the latest; others complete it.
#[test]
fn a_receive_that_a_channel_has_taken_along_can_be_replaced() {
    let mut attempts = (1..8).map(|attempt| Duration::from_millis(1 << attempt)).map(broken_in_the_middle);
    let Some(first) = attempts.next().flatten() else { return };
    let begun = |(_, _, tokens): &(_, _, Vec<u64>)| tokens[..] == [1, 2];
    let mut all = std::iter::once(first).chain(attempts.flatten());
    let ([_here, mut there], room, _) = all.find(begun).expect("the message had begun");
    let is_lost = there.queue.receive_room() == room - 2;
    eprintln!("lost: {is_lost}");
    // Time passes.
    let mut now = Instant::now();
    let mut told = Vec::new();
    for _ in 0..4 {
        now += Duration::from_secs(11);
        there.queue.tend(now);
        there.queue.poll(&mut told).expect("polls");
    }
    let working = there.channel;
    let is_told =
        |done: &Completion| done.is_receive && done.memory.is_none() && done.channel != working && done.result.is_err();
    assert_eq!((told.len(), told.iter().all(is_told)), (usize::from(is_lost), true), "{told:?}");
    assert_eq!(there.queue.receive_room(), room - 1);
    // When all have gone, and for some time, everything comes back.
    there.queue.close(working).expect("it is there")();
    let mut back = Vec::new();
    for _ in 0..3 {
        now += Duration::from_secs(2);
        there.queue.tend(now);
        there.queue.poll(&mut back).expect("polls");
    }
    back.sort_by_key(|done| done.token);
    let tokens: Vec<_> = back.iter().map(|done| done.token).collect();
    assert_eq!(tokens, if is_lost { vec![0, 3] } else { vec![3] });
    assert!(back.iter().all(|done| done.memory.is_some()));
    assert_eq!(there.queue.receive_room(), room);
}
