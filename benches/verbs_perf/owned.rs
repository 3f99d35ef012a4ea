//! The safe tier.

use std::sync::Arc;

use zcmi::verbs::{
    Completed, CompletionQueue, Endpoint, ExposedPart, ExposedRegion, InFlight, Local, LocalEnd, OwningQueue,
    ProtectionDomain, QueuePair, QueuePairKey, RegisteredBuffer, Remote, SendOperation, SendRequest,
};

use crate::plain::{capabilities, exposed, signal, tuning};
use crate::tier::{Place, Polled, Sizes, Tier, Work};

/// Memory that is posted and comes back.
pub(crate) trait Memory: InFlight + std::fmt::Debug {
    fn make(domain: &Arc<ProtectionDomain>, count: usize, size: usize) -> Vec<Self>
    where
        Self: Sized;
}

/// Memory of its own for each request.
impl Memory for RegisteredBuffer {
    fn make(domain: &Arc<ProtectionDomain>, count: usize, size: usize) -> Vec<Self> {
        RegisteredBuffer::allocate_many(domain, count, size).expect("memory")
    }
}

/// The same memory for all, as perftest has it.
impl Memory for ExposedPart {
    fn make(domain: &Arc<ProtectionDomain>, count: usize, size: usize) -> Vec<Self> {
        let region = exposed(domain, size);
        (0..count).map(|_| region.part(0..size).expect("all of it")).collect()
    }
}

pub(crate) struct Owned<B> {
    queue: OwningQueue<B>,
    pair: QueuePairKey,
    idle: Vec<B>,
    done: Vec<Completed<B>>,
    remote: Remote,
    local: LocalEnd,
    reads: u8,
    exposed: ExposedRegion,
}

impl<B: Memory> Owned<B> {
    fn pair(&self) -> &QueuePair {
        self.queue.queue_pair(self.pair).expect("it is there")
    }
}

#[inline]
fn operation(remote: Remote, work: Work) -> SendOperation<'static> {
    match work {
        Work::Read => SendOperation::Read(remote),
        Work::Send => SendOperation::Send,
        Work::Write => SendOperation::Write(remote),
    }
}

impl<B: Memory> Tier for Owned<B> {
    fn create(place: &Place, sizes: Sizes) -> Self {
        let domain = ProtectionDomain::allocate(&place.context).expect("a domain");
        // The device may give more than was asked for, and all of it must fit.
        let capacity = 4 * (sizes.sends + sizes.receives);
        let mut queue = OwningQueue::new(CompletionQueue::create(&place.context, capacity).expect("a queue"));
        let pair = QueuePair::create(&domain, queue.completions(), capabilities(sizes)).expect("a queue pair");
        pair.prepare(&place.local).expect("INIT");
        let pair = queue.add(pair).expect("room");
        let count = (sizes.sends + sizes.receives) as usize;
        Self {
            queue,
            pair,
            idle: B::make(&domain, count, sizes.size),
            done: Vec::with_capacity(count),
            remote: Remote::default(),
            local: place.local,
            reads: place.reads,
            exposed: exposed(&domain, sizes.size),
        }
    }

    fn endpoint(&self) -> Endpoint {
        self.pair().endpoint(&self.local).expect("an endpoint")
    }

    fn exposed(&self) -> Remote {
        self.exposed.remote()
    }

    fn connect(&mut self, peer: &Endpoint, remote: Remote) {
        self.pair().connect_to(&self.local, peer, &tuning(self.reads)).expect("connects");
        self.remote = remote;
    }

    #[inline]
    fn mailbox(&self) -> u8 {
        let mut byte = [0];
        self.exposed.load(self.exposed.length() - 1, &mut byte);
        byte[0]
    }

    #[inline]
    fn post_receive(&mut self) {
        let memory = self.idle.pop().expect("idle memory");
        self.queue.post_receive(self.pair, 0, memory).expect("posts");
    }

    #[inline]
    fn post_inline(&mut self, work: Work, bytes: &[u8], completes: u32) {
        let (operation, flags) = (operation(self.remote, work), signal(completes));
        let request = SendRequest { token: 0, operation, local: Local::Inline(bytes), flags };
        self.queue.post(self.pair, request).expect("posts");
    }

    #[inline]
    fn post(&mut self, work: Work, completes: u32) {
        let (operation, flags) = (operation(self.remote, work), signal(completes));
        let local = Local::Owned(self.idle.pop().expect("idle memory"));
        self.queue.post(self.pair, SendRequest { token: 0, operation, local, flags }).expect("posts");
    }

    #[inline]
    fn post_list(&mut self, work: Work, count: u32) {
        let operation = operation(self.remote, work);
        let mut batch = self.queue.batch(self.pair);
        for index in 1..=count {
            let local = Local::Owned(self.idle.pop().expect("idle memory"));
            let flags = signal(u32::from(index == count));
            batch.push(SendRequest { token: 0, operation, local, flags }).expect("room");
        }
        batch.post().expect("posts");
    }

    #[inline]
    fn poll(&mut self) -> Polled {
        let mut polled = Polled::default();
        self.queue.poll(&mut self.done).expect("polls");
        for completed in self.done.drain(..) {
            completed.result.expect("success");
            self.idle.extend(completed.memory);
            match completed.is_receive {
                true => polled.receives += 1,
                false => polled.sends += 1,
            }
        }
        polled
    }
}
