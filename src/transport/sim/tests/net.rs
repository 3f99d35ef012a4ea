//! Two queues on two nodes with a channel between them, without a connection layer.

use std::sync::Arc;

use super::super::domain::SimDomain;
use super::super::executor::Executor;
use super::super::node::NodeId;
use super::super::pair::PairId;
use super::super::queue::SimQueue;
use super::super::settings::Settings;
use crate::memory::{Domain, RegionAccess, Registrable, Registration, Transfer, volatile};
use crate::transport::{
    ChannelKey, ChannelSizes, Completion, Failure, Opening, Operation, Queue, Request, Source, WindowKey,
};
use crate::{Access, Buffer, ErrorKind};

/// One end.
pub(super) struct End {
    pub(super) queue: SimQueue,
    pub(super) domain: SimDomain,
    pub(super) channel: ChannelKey,
    pub(super) pair: PairId,
}

/// Both, and the world they are in.
pub(super) struct Net {
    pub(super) a: End,
    pub(super) b: End,
    pub(super) executor: Executor,
}

pub(super) const SIZES: ChannelSizes = ChannelSizes { segments: 4, sends: 16, inline: 64 };

impl Net {
    pub(super) fn new(settings: Settings) -> Self {
        let mut executor = Executor::new(settings);
        let nodes = ["a", "b"].map(|name| executor.add_node(name, false));
        let [a, b] = nodes.map(|node| End::new(&executor, node));
        let net = Self { a, b, executor };
        net.connect(net.a.pair, net.b.pair);
        net
    }

    pub(super) fn connect(&self, a: PairId, b: PairId) {
        self.executor.world().with(|state| {
            state.connect_pair(Some(a), Some(b)).expect("new");
            state.connect_pair(Some(b), Some(a)).expect("new");
        });
    }

    /// Everything happens that can.
    pub(super) fn settle(&self) {
        self.executor.world().with(|state| {
            while state.next_due().is_some() {
                state.happen();
            }
        });
    }

    /// Bugs that were found.
    pub(super) fn bugs(&self) -> Vec<String> {
        self.executor.world().with(|state| state.bugs.clone())
    }
}

impl End {
    fn new(executor: &Executor, node: NodeId) -> Self {
        let mut queue = SimQueue::open(Arc::clone(executor.world()), node, 1024);
        let (channel, pair) = queue.create(SIZES).expect("room");
        Self { queue, domain: SimDomain::new(executor.world(), node), channel, pair }
    }

    pub(super) fn memory(&self, bytes: &[u8]) -> Transfer {
        let mut buffer = Buffer::allocate(bytes.len()).expect("memory");
        buffer.copy_from_slice(bytes);
        Transfer::new(buffer, 0..bytes.len(), &self.domain).expect("it registers")
    }

    pub(super) fn post(&mut self, token: u64, operation: Operation, memory: Transfer) {
        self.post_with(token, operation, Source::Owned(memory), true, false);
    }

    pub(super) fn post_with(
        &mut self,
        token: u64,
        operation: Operation,
        source: Source<'_>,
        signaled: bool,
        fence: bool,
    ) {
        self.queue.stage(self.channel, Request { token, operation, source, signaled, fence }).expect("room");
        self.queue.flush().expect("posted");
    }

    pub(super) fn receive(&mut self, token: u64, length: usize) {
        let memory = self.memory(&vec![0xee; length]);
        self.queue.post_receive(token, memory).expect("room");
    }

    /// All completions that are there.
    pub(super) fn poll(&mut self) -> Vec<Completion> {
        let mut done = Vec::new();
        while self.queue.poll(&mut done).expect("it can be polled") {}
        done
    }

    /// Memory that peers may access by its own key.
    pub(super) fn exposed(&self, bytes: &[u8], access: Access) -> Exposed {
        self.registered(bytes, RegionAccess::Remote { access, on_demand: false })
    }

    pub(super) fn registered(&self, bytes: &[u8], access: RegionAccess) -> Exposed {
        let memory: Arc<dyn Registrable> = Arc::new(crate::memory::Mapping::new(bytes.len()).expect("memory"));
        volatile::store(&*memory, 0, bytes);
        let registration = self.domain.register(&memory, 0..bytes.len(), access).expect("it registers");
        Exposed { memory, registration }
    }

    /// A window of `exposed`, bound and known to be.
    pub(super) fn bind(&mut self, token: u64, exposed: &Exposed, access: Access) -> (WindowKey, u32) {
        let opening = Opening { region: Arc::clone(&exposed.registration), access };
        self.queue.bind(self.channel, token, opening).expect("room")
    }
}

/// Registered memory.
pub(super) struct Exposed {
    pub(super) memory: Arc<dyn Registrable>,
    pub(super) registration: Arc<dyn Registration>,
}

impl Exposed {
    pub(super) fn address(&self) -> u64 {
        self.memory.address().addr() as u64
    }

    pub(super) fn key(&self) -> u32 {
        self.registration.remote_key()
    }

    pub(super) fn bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        volatile::load(&*self.memory, 0, &mut bytes);
        bytes
    }
}

/// What came of each request, in order.
pub(super) fn ends(done: &[Completion]) -> Vec<(u64, &'static str)> {
    done.iter()
        .map(|completion| {
            let how = match &completion.result {
                Ok(_) => "done",
                Err(Failure::Flushed) => "flushed",
                Err(Failure::Broken(error)) => match error.kind() {
                    ErrorKind::RemoteAccess => "remote access",
                    ErrorKind::Protocol => "protocol",
                    ErrorKind::Unreachable => "unreachable",
                    _ => "broken",
                },
            };
            (completion.token, how)
        })
        .collect()
}

/// The bytes that a completion brings back.
pub(super) fn bytes(completion: Completion) -> Vec<u8> {
    let mut bytes = Vec::new();
    completion.memory.expect("memory").copy_to(&mut bytes);
    bytes
}
