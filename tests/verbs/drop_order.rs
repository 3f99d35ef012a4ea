//! Objects are dropped in whatever order: all are destroyed, none twice, nothing fails and nothing is left.

use std::any::Any;
use std::sync::Arc;

use zcmi::verbs::{
    AddressHandle, AddressVector, CompletionChannel, CompletionQueue, Context, ExposedRegion, Local, OwningQueue,
    ProtectionDomain, QueuePair, QueuePairKind, RegisteredBuffer, SendFlags, SendOperation, SendRequest,
    SharedReceiveQueue, Tuning,
};

use crate::common::resources::Resources;
use crate::pair::{Memory, Settings, build, connect, everything, gid_index};
use crate::support::{Fixture, with_device};

type Object = Box<dyn Any>;

/// All orders of the numbers below `count`, by Heap's method.
fn orders(count: usize) -> Vec<Vec<usize>> {
    fn permute(order: &mut [usize], length: usize, all: &mut Vec<Vec<usize>>) {
        if length <= 1 {
            return all.push(order.to_vec());
        }
        for index in 0..length {
            permute(order, length - 1, all);
            order.swap(if length.is_multiple_of(2) { index } else { 0 }, length - 1);
        }
    }
    let mut all = Vec::new();
    permute(&mut (0..count).collect::<Vec<_>>(), count, &mut all);
    all
}

/// Makes the objects anew for every order, and drops them in it.
fn in_every_order<const COUNT: usize>(fixture: &Fixture, make: impl Fn(&Fixture) -> [Object; COUNT]) {
    let baseline = Resources::now();
    let orders = orders(COUNT);
    assert_eq!(orders.len(), (1..=COUNT).product::<usize>());
    for order in orders {
        let mut objects = make(fixture).map(Some);
        for index in order {
            drop(objects[index].take().expect("once"));
        }
    }
    Resources::assert_back_at(&baseline);
}

#[test]
fn everything_a_datagram_queue_pair_hangs_on() {
    with_device(|fixture| {
        let index = gid_index(fixture);
        in_every_order(fixture, |_| {
            let context = Context::open(fixture.context.name()).expect("opens");
            let domain = ProtectionDomain::allocate(&context).expect("a domain");
            let completions = CompletionQueue::create(&context, 16).expect("a queue");
            let builder = QueuePair::builder(&domain, &completions).kind(QueuePairKind::Ud);
            let pair = builder.create().expect("a queue pair");
            let buffer = RegisteredBuffer::allocate(&domain, 64).expect("memory");
            let vector = AddressVector::to(1, index, context.gid(1, index).expect("a GID"));
            let address = AddressHandle::create(&domain, &vector).expect("an address handle");
            let objects: [Object; 6] = [
                Box::new(context),
                Box::new(domain),
                Box::new(completions),
                Box::new(pair),
                Box::new(buffer),
                Box::new(address),
            ];
            objects
        });
    });
}

#[test]
fn everything_that_shares_receives_and_a_channel() {
    with_device(|fixture| {
        in_every_order(fixture, |fixture| {
            let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
            let channel = CompletionChannel::create(&fixture.context).expect("a channel");
            let [sends, receives] = [(); 2].map(|()| CompletionQueue::create_on(&channel, 16).expect("a queue"));
            let shared = SharedReceiveQueue::create(&domain, 16, 1).expect("a shared queue");
            let builder = QueuePair::builder(&domain, &sends).receive_completions(&receives).shared_receives(&shared);
            let pair = builder.create().expect("a queue pair");
            let objects: [Object; 6] = [
                Box::new(domain),
                Box::new(channel),
                Box::new(sends),
                Box::new(receives),
                Box::new(shared),
                Box::new(pair),
            ];
            objects
        });
    });
}

/// With requests in flight that never complete by themselves.
#[test]
fn an_owning_queue_in_flight_and_what_was_taken_out_of_it() {
    with_device(|fixture| {
        let settings = Settings::default();
        in_every_order(fixture, |fixture| {
            let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
            let completions = CompletionQueue::create(&fixture.context, 256).expect("a queue");
            let shared = OwningQueue::with_shared_receives(Arc::clone(&completions), &domain, 4, 1);
            let mut queue = shared.expect("a shared queue");
            let shared = Arc::clone(queue.shared_receives().expect("shared"));
            let keys = [(); 2].map(|()| {
                let pair = build(&domain, &completions, Some(&shared), &settings);
                queue.add(pair).expect("fits")
            });
            let [a, b] = keys.map(|key| queue.queue_pair(key).expect("there"));
            connect(fixture, a, b, everything(), &Tuning { rnr_retry_count: 7, ..settings.tuning });
            let region = ExposedRegion::allocate(&domain, 64, everything()).expect("memory");
            // More messages than receives: the last ones wait.
            for token in 0..4 {
                let buffer = RegisteredBuffer::allocate(&domain, 64).expect("memory");
                queue.post_shared_receive(token, Memory::Buffer(buffer)).expect("takes it");
            }
            for token in 0..8 {
                let local = Local::Owned(Memory::Part(region.part(0..8).expect("inside")));
                let request = SendRequest { token, operation: SendOperation::Send, local, flags: SendFlags::SIGNALED };
                queue.post(keys[0], request).expect("takes it");
            }
            let detached = queue.detach(keys[0]).expect("it is there");
            let objects: [Object; 5] = [
                Box::new(domain),
                Box::new(queue),
                Box::new(shared),
                Box::new(detached),
                Box::new((region, completions)),
            ];
            objects
        });
    });
}

/// Receives of a shared queue stay until that is gone, whoever keeps it longest; and then they go.
#[test]
fn shared_receives_outlive_their_owning_queue_as_long_as_their_own_lives() {
    with_device(|fixture| {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let mut queue = OwningQueue::with_shared_receives(completions, &domain, 4, 1).expect("a shared queue");
        let shared = Arc::clone(queue.shared_receives().expect("shared"));
        let before = Resources::now();
        let buffer = RegisteredBuffer::allocate(&domain, 64).expect("memory");
        queue.post_shared_receive(1, Memory::Buffer(buffer)).expect("takes it");
        drop(queue);
        assert_eq!(Resources::now().of("mr"), before.of("mr") + 1, "the device may still use it");
        drop(shared);
        assert_eq!(Resources::now().of("mr"), before.of("mr"));
    });
}
