//! The unsafe tier.

use std::sync::Arc;

use zcmi::verbs::{
    Access, CompletionBatch, CompletionQueue, Endpoint, ExposedRegion, InFlight, LocalEnd, ProtectionDomain, QueuePair,
    QueuePairCapabilities, RegisteredBuffer, Remote, Segment, SendFlags, SendList, SendOperation, Tuning,
};

use crate::tier::{INLINE, Place, Polled, Sizes, Tier, Work};

/// Marks a receive; a send request's id is the number of requests that it completes.
const RECEIVE: u64 = u64::MAX;

pub(crate) struct Plain {
    // Goes before its memory.
    pair: QueuePair,
    completions: Arc<CompletionQueue>,
    batch: CompletionBatch,
    list: SendList<'static>,
    segment: Segment,
    remote: Remote,
    local: LocalEnd,
    reads: u8,
    exposed: ExposedRegion,
    _memory: RegisteredBuffer,
}

pub(crate) fn capabilities(sizes: Sizes) -> QueuePairCapabilities {
    QueuePairCapabilities { inline: INLINE, receives: sizes.receives, segments: 1, sends: sizes.sends }
}

/// perftest's settings.
pub(crate) fn tuning(reads: u8) -> Tuning {
    let reads = Some(reads);
    Tuning {
        reads_as_target: reads,
        reads_as_initiator: reads,
        min_rnr_timer: 12,
        ack_timeout: 14,
        retry_count: 7,
        rnr_retry_count: 7,
    }
}

pub(crate) fn exposed(domain: &Arc<ProtectionDomain>, size: usize) -> ExposedRegion {
    ExposedRegion::allocate(domain, size, Access::REMOTE_READ | Access::REMOTE_WRITE).expect("memory")
}

impl Plain {
    #[inline]
    fn operation(&self, work: Work) -> SendOperation<'static> {
        match work {
            Work::Read => SendOperation::Read(self.remote),
            Work::Send => SendOperation::Send,
            Work::Write => SendOperation::Write(self.remote),
        }
    }
}

#[inline]
pub(crate) fn signal(completes: u32) -> SendFlags {
    if completes == 0 { SendFlags::NONE } else { SendFlags::SIGNALED }
}

impl Tier for Plain {
    fn create(place: &Place, sizes: Sizes) -> Self {
        let domain = ProtectionDomain::allocate(&place.context).expect("a domain");
        let capacity = sizes.sends + sizes.receives;
        let completions = CompletionQueue::create(&place.context, capacity).expect("a completion queue");
        let pair = QueuePair::create(&domain, &completions, capabilities(sizes)).expect("a queue pair");
        pair.prepare(&place.local).expect("INIT");
        let memory = RegisteredBuffer::allocate(&domain, sizes.size).expect("memory");
        Self {
            pair,
            completions,
            batch: CompletionBatch::new(),
            list: SendList::new(),
            segment: memory.segment(),
            remote: Remote::default(),
            local: place.local,
            reads: place.reads,
            exposed: exposed(&domain, sizes.size),
            _memory: memory,
        }
    }

    fn endpoint(&self) -> Endpoint {
        self.pair.endpoint(&self.local).expect("an endpoint")
    }

    fn exposed(&self) -> Remote {
        self.exposed.remote()
    }

    fn connect(&mut self, peer: &Endpoint, remote: Remote) {
        self.pair.connect_to(&self.local, peer, &tuning(self.reads)).expect("connects");
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
        // SAFETY: nobody touches the memory as long as the queue pair exists; what messages leave there is never read.
        unsafe { self.pair.post_receive(RECEIVE, &[self.segment]) }.expect("posts");
    }

    #[inline]
    fn post_inline(&mut self, work: Work, bytes: &[u8], completes: u32) {
        let operation = self.operation(work);
        let segment = Segment { address: bytes.as_ptr() as u64, length: bytes.len() as u32, local_key: 0 };
        let flags = SendFlags::INLINE | signal(completes);
        // SAFETY: inline bytes are read during the call only, where they are borrowed.
        unsafe { self.pair.post_send(completes.into(), operation, &[segment], flags) }.expect("posts");
    }

    #[inline]
    fn post(&mut self, work: Work, completes: u32) {
        let operation = self.operation(work);
        // SAFETY: nobody touches the memory as long as the queue pair exists.
        unsafe { self.pair.post_send(completes.into(), operation, &[self.segment], signal(completes)) }.expect("posts");
    }

    #[inline]
    fn post_list(&mut self, work: Work, count: u32) {
        let operation = self.operation(work);
        for index in 1..=count {
            let completes = if index == count { count } else { 0 };
            self.list.push(completes.into(), operation, &[self.segment], signal(completes));
        }
        // SAFETY: nobody touches the memory as long as the queue pair exists.
        unsafe { self.pair.post_send_list(&mut self.list) }.expect("posts");
    }

    #[inline]
    fn poll(&mut self) -> Polled {
        let mut polled = Polled::default();
        for completion in self.completions.poll(&mut self.batch).expect("polls") {
            completion.result().expect("success");
            match completion.wr_id() {
                RECEIVE => polled.receives += 1,
                requests => polled.sends += requests as u32,
            }
        }
        polled
    }
}
