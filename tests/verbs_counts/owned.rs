//! Rounds of the safe tier.

use std::sync::Arc;

use zcmi::verbs::{
    Access, AddressHandle, AddressVector, Completed, CompletionQueue, Destination, ExposedRegion, InFlight, Local,
    LocalEnd, OwningQueue, Pieces, ProtectionDomain, Psn, QueuePair, QueuePairCapabilities, QueuePairKey,
    QueuePairKind, ROUTE_HEADER, RegisteredBuffer, SendFlags, SendOperation, SendRequest, Tuning,
};

use crate::support::Fixture;
use crate::{BATCH, LENGTH, Rounds};

pub(crate) const SIZES: QueuePairCapabilities =
    QueuePairCapabilities { inline: LENGTH as u32, receives: 32, segments: 2, sends: 32 };
const QUEUE_KEY: u32 = 0x1234;

/// Two queue pairs that are connected with each other, their completion queue, and idle memory.
struct Ends<B> {
    queue: OwningQueue<B>,
    here: QueuePairKey,
    there: QueuePairKey,
    idle: Vec<B>,
    done: Vec<Completed<B>>,
}

pub(crate) fn local(fixture: &Fixture) -> LocalEnd {
    let path_mtu = fixture.context.port(1).expect("a port").active_mtu;
    let access = Access::REMOTE_READ | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC;
    let is_ours = |index: &u32| {
        let ip = fixture.context.gid(1, *index).ok().and_then(|gid| gid.ip());
        ip.is_some_and(|ip| ip.to_string() == fixture.address)
    };
    let gid_index = (0..).find(is_ours).expect("the device's address is in its GID table");
    LocalEnd { port: 1, gid_index, psn: Psn::random(), access, path_mtu }
}

impl<B: InFlight + std::fmt::Debug> Ends<B> {
    fn new(fixture: &Fixture, domain: &Arc<ProtectionDomain>, kind: QueuePairKind, is_shared: bool) -> Self {
        let completions = CompletionQueue::create(&fixture.context, 256).expect("a completion queue");
        let mut queue = if is_shared {
            OwningQueue::with_shared_receives(completions, domain, 32, 2).expect("a shared queue")
        } else {
            OwningQueue::new(completions)
        };
        let local = local(fixture);
        let mut add = || {
            let mut builder = QueuePair::builder(domain, queue.completions()).kind(kind).capabilities(SIZES);
            if let Some(shared) = queue.shared_receives() {
                builder = builder.shared_receives(shared);
            }
            let pair = builder.create().expect("a queue pair");
            match kind {
                QueuePairKind::Ud => pair.open_for_datagrams(1, QUEUE_KEY).expect("RTS"),
                _ => pair.prepare(&local).expect("INIT"),
            }
            queue.add(pair).expect("room")
        };
        let (here, there) = (add(), add());
        if kind == QueuePairKind::Rc {
            for (one, other) in [(here, there), (there, here)] {
                let pair = |key| queue.queue_pair(key).expect("it is there");
                let peer = pair(other).endpoint(&local).expect("an endpoint");
                pair(one).connect_to(&local, &peer, &Tuning::default()).expect("connects");
            }
        }
        Self { queue, here, there, idle: Vec::with_capacity(2 * BATCH), done: Vec::with_capacity(2 * BATCH) }
    }

    fn post_receive(&mut self) {
        let memory = self.idle.pop().expect("idle memory");
        match self.queue.shared_receives() {
            None => self.queue.post_receive(self.there, 0, memory).expect("posts"),
            Some(_) => self.queue.post_shared_receive(0, memory).expect("posts"),
        }
    }

    fn post(&mut self, operation: SendOperation<'_>) {
        let local = Local::Owned(self.idle.pop().expect("idle memory"));
        let request = SendRequest { token: 0, operation, local, flags: SendFlags::SIGNALED };
        self.queue.post(self.here, request).expect("posts");
    }

    /// Polls until so many requests have completed.
    fn finish(&mut self, mut count: usize) {
        for _ in 0..1_000_000_000_u64 {
            if self.queue.poll(&mut self.done).expect("polls") > 0 {
                for completed in self.done.drain(..) {
                    completed.result.expect("success");
                    self.idle.extend(completed.memory);
                    count -= 1;
                }
            }
            if count == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        panic!("{count} requests do not complete");
    }
}

pub(crate) fn rounds(fixture: &Fixture, operation: &str) -> Rounds {
    let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
    let kind = if operation == "datagram" { QueuePairKind::Ud } else { QueuePairKind::Rc };
    if operation == "pieces" {
        return pieces(fixture, &domain);
    }
    let mut ends = Ends::<RegisteredBuffer>::new(fixture, &domain, kind, operation == "shared");
    let length = if operation == "fetch_add" { 8 } else { ROUTE_HEADER + LENGTH };
    ends.idle.extend(RegisteredBuffer::allocate_many(&domain, 2 * BATCH, length).expect("memory"));
    let access = Access::REMOTE_READ | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC;
    let exposed = ExposedRegion::allocate(&domain, length, access).expect("memory");
    let remote = exposed.remote();
    let mut round: Box<dyn FnMut()> = match operation {
        "inline" => Box::new(move || {
            ends.post_receive();
            let request = SendRequest {
                token: 0,
                operation: SendOperation::Send,
                local: Local::Inline(&[7; LENGTH]),
                flags: SendFlags::SIGNALED,
            };
            ends.queue.post(ends.here, request).expect("posts");
            ends.finish(2);
        }),
        "send" | "shared" => Box::new(move || {
            ends.post_receive();
            ends.post(SendOperation::Send);
            ends.finish(2);
        }),
        "batch" => Box::new(move || {
            let mut batch = ends.queue.batch(ends.here);
            for index in 1..=BATCH {
                let local = Local::Owned(ends.idle.pop().expect("idle memory"));
                let flags = if index == BATCH { SendFlags::SIGNALED } else { SendFlags::NONE };
                batch
                    .push(SendRequest { token: 0, operation: SendOperation::Write(remote), local, flags })
                    .expect("room");
            }
            batch.post().expect("posts");
            ends.finish(BATCH);
        }),
        "write" | "read" | "fetch_add" => {
            let operation = match operation {
                "write" => SendOperation::Write(remote),
                "read" => SendOperation::Read(remote),
                _ => SendOperation::FetchAdd { remote, add: 1 },
            };
            Box::new(move || {
                ends.post(operation);
                ends.finish(1);
            })
        }
        "datagram" => {
            let local = local(fixture);
            let gid = fixture.context.gid(1, local.gid_index).expect("a GID");
            let address =
                AddressHandle::create(&domain, &AddressVector::to(1, local.gid_index, gid)).expect("a handle");
            // A datagram carries less than its receive holds.
            ends.idle.iter_mut().for_each(|buffer| buffer.set_used(0..LENGTH));
            let queue_pair = ends.queue.queue_pair(ends.there).expect("it is there").number();
            Box::new(move || {
                let mut memory = ends.idle.pop().expect("idle memory");
                memory.set_used(0..ROUTE_HEADER + LENGTH);
                ends.queue.post_receive(ends.there, 0, memory).expect("posts");
                ends.idle.last_mut().expect("idle memory").set_used(0..LENGTH);
                ends.post(SendOperation::Datagram(Destination { address: &address, queue_pair, queue_key: QUEUE_KEY }));
                ends.finish(2);
            })
        }
        other => panic!("no operation {other}"),
    };
    Box::new(move |rounds| {
        let _ = &exposed;
        (0..rounds).for_each(|_| round());
    })
}

/// Two pieces gathered, and two scattered.
fn pieces(fixture: &Fixture, domain: &Arc<ProtectionDomain>) -> Rounds {
    let mut ends = Ends::<Pieces<RegisteredBuffer>>::new(fixture, domain, QueuePairKind::Rc, false);
    for _ in 0..2 {
        ends.idle.push(Pieces::new(RegisteredBuffer::allocate_many(domain, 2, LENGTH).expect("memory")));
    }
    Box::new(move |rounds| {
        for _ in 0..rounds {
            ends.post_receive();
            ends.post(SendOperation::Send);
            ends.finish(2);
        }
    })
}
