//! Rounds of the unsafe tier.

use std::sync::Arc;

use zcmi::verbs::{
    Access, CompletionBatch, CompletionQueue, ExposedRegion, InFlight, ProtectionDomain, QueuePair, RegisteredBuffer,
    Segment, SendFlags, SendList, SendOperation, Tuning,
};

use crate::owned::{SIZES, local};
use crate::support::Fixture;
use crate::{BATCH, LENGTH, Rounds};

/// Two queue pairs that are connected with each other. They go before the memory.
struct Ends {
    here: QueuePair,
    there: QueuePair,
    completions: Arc<CompletionQueue>,
    batch: CompletionBatch,
    list: SendList<'static>,
    segments: [Segment; 2],
    exposed: ExposedRegion,
    _memory: [RegisteredBuffer; 2],
}

impl Ends {
    fn new(fixture: &Fixture) -> Self {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = CompletionQueue::create(&fixture.context, 256).expect("a completion queue");
        let local = local(fixture);
        let create = || {
            let pair = QueuePair::create(&domain, &completions, SIZES).expect("a queue pair");
            pair.prepare(&local).expect("INIT");
            pair
        };
        let (here, there) = (create(), create());
        for (one, other) in [(&here, &there), (&there, &here)] {
            let peer = other.endpoint(&local).expect("an endpoint");
            one.connect_to(&local, &peer, &Tuning::default()).expect("connects");
        }
        let memory = [(); 2].map(|()| RegisteredBuffer::allocate(&domain, LENGTH).expect("memory"));
        let exposed = ExposedRegion::allocate(&domain, LENGTH, Access::REMOTE_WRITE).expect("memory");
        let (batch, list) = (CompletionBatch::new(), SendList::new());
        let segments = [memory[0].segment(), memory[1].segment()];
        Self { here, there, completions, batch, list, segments, exposed, _memory: memory }
    }

    fn post_receives(&self, count: usize) {
        let one = (0, &self.segments[1..]);
        // SAFETY: nobody touches the memory as long as the queue pair exists.
        unsafe { self.there.post_receives(&[one; BATCH][..count]) }.expect("posts");
    }

    fn post(&self, operation: SendOperation<'_>, flags: SendFlags) {
        // SAFETY: nobody touches the memory as long as the queue pair exists.
        unsafe { self.here.post_send(0, operation, &self.segments[..1], flags) }.expect("posts");
    }

    /// Polls until there were so many completions.
    fn finish(&mut self, mut count: usize) {
        for _ in 0..1_000_000_000_u64 {
            for completion in self.completions.poll(&mut self.batch).expect("polls") {
                completion.result().expect("success");
                count -= 1;
            }
            if count == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        panic!("{count} completions do not come");
    }
}

pub(crate) fn rounds(fixture: &Fixture, operation: &str) -> Rounds {
    let mut ends = Ends::new(fixture);
    let write = SendOperation::Write(ends.exposed.remote());
    let mut round: Box<dyn FnMut()> = match operation {
        "inline" | "send" => {
            let inline = if operation == "inline" { SendFlags::INLINE } else { SendFlags::NONE };
            Box::new(move || {
                // SAFETY: nobody touches the memory as long as the queue pair exists.
                unsafe { ends.there.post_receive(0, &ends.segments[1..]) }.expect("posts");
                ends.post(SendOperation::Send, inline | SendFlags::SIGNALED);
                ends.finish(2);
            })
        }
        "write" => Box::new(move || {
            ends.post(write, SendFlags::SIGNALED);
            ends.finish(1);
        }),
        "list" => Box::new(move || {
            for index in 1..=BATCH {
                let flags = if index == BATCH { SendFlags::SIGNALED } else { SendFlags::NONE };
                ends.list.push(0, write, &ends.segments[..1], flags);
            }
            // SAFETY: nobody touches the memory as long as the queue pair exists.
            unsafe { ends.here.post_send_list(&mut ends.list) }.expect("posts");
            ends.finish(1);
        }),
        "receives" => Box::new(move || {
            ends.post_receives(BATCH);
            for index in 1..=BATCH {
                let flags = if index == BATCH { SendFlags::SIGNALED } else { SendFlags::NONE };
                ends.list.push(0, SendOperation::Send, &ends.segments[..1], flags);
            }
            // SAFETY: nobody touches the memory as long as the queue pair exists.
            unsafe { ends.here.post_send_list(&mut ends.list) }.expect("posts");
            ends.finish(BATCH + 1);
        }),
        other => panic!("no operation {other}"),
    };
    Box::new(move |rounds| (0..rounds).for_each(|_| round()))
}
