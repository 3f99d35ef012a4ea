//! The same by the unsafe tier.

use std::time::Instant;

use zcmi::verbs::{
    Access, Completion, CompletionBatch, CompletionQueue, Endpoint, InFlight, LocalEnd, Mtu, ProtectionDomain, Psn,
    QueuePair, QueuePairKind, RegisteredBuffer, Segment,
};

use crate::end::{PATIENCE, POISON, gid_index};
use crate::support::Fixture;

/// A queue pair of the unsafe tier with a completion queue for each direction. It is destroyed before its memory.
pub(crate) struct PlainEnd {
    pub(crate) pair: QueuePair,
    pub(crate) local: LocalEnd,
    pub(crate) received: RegisteredBuffer,
    pub(crate) sent: RegisteredBuffer,
}

impl PlainEnd {
    /// A queue pair in RESET, and two buffers of `length` bytes.
    pub(crate) fn new(fixture: &Fixture, kind: QueuePairKind, path_mtu: u32, length: usize) -> Self {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = || CompletionQueue::create(&fixture.context, 64).expect("a completion queue");
        let builder = QueuePair::builder(&domain, &completions()).receive_completions(&completions());
        let pair = builder.kind(kind).create().expect("a queue pair");
        let buffer = || RegisteredBuffer::allocate(&domain, length).expect("memory");
        let (gid_index, access) = (gid_index(fixture), Access::LOCAL_READ);
        let local = LocalEnd {
            port: 1,
            gid_index,
            psn: Psn::random(),
            access,
            path_mtu: Mtu::from_bytes(path_mtu).expect("a size that exists"),
        };
        Self { pair, local, received: buffer(), sent: buffer() }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.pair.endpoint(&self.local).expect("an endpoint")
    }

    /// Posts the one receive, of `length` bytes.
    pub(crate) fn post_receive(&mut self, length: usize) {
        self.received.fill(POISON);
        let segment = Segment { length: length as u32, ..self.received.segment() };
        // SAFETY: nobody touches the buffer before `received` has polled the completion, and it outlives the queue pair.
        unsafe { self.pair.post_receive(1, &[segment]) }.expect("posts a receive");
    }

    /// Waits for the completion of the one receive.
    pub(crate) fn received<R>(&self, look: impl FnOnce(Completion<'_>) -> R) -> R {
        next(self.pair.receive_completions(), 1, look)
    }

    /// Waits for the completion of the one signaled send request.
    pub(crate) fn sent(&self, wr_id: u64) {
        next(self.pair.send_completions(), wr_id, |completion| completion.result()).expect("sent");
    }
}

/// The next completion, which must be the only one and that of the request `wr_id`.
fn next<R>(completions: &CompletionQueue, wr_id: u64, look: impl FnOnce(Completion<'_>) -> R) -> R {
    let (begun, mut batch) = (Instant::now(), CompletionBatch::new());
    loop {
        let mut polled = completions.poll(&mut batch).expect("polls");
        if let Some(completion) = polled.next() {
            assert_eq!((completion.wr_id(), polled.len()), (wr_id, 0));
            return look(completion);
        }
        assert!(begun.elapsed() < PATIENCE, "no completion of {wr_id}");
        std::thread::yield_now();
    }
}
