//! Taking a buffer from a warm pool and giving it back, next to the heap.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use serde_json::json;
use zcmi::{Buffer, Pool};

use crate::measure::{Cost, cost};

const COUNT: u32 = 2000;
const SIZES: [usize; 4] = [64, 4 << 10, 64 << 10, 1 << 20];

pub(crate) fn run() {
    let pool = Pool::builder().limit(256 << 20).build().expect("a pool");
    for size in SIZES {
        report("pool", 1, size, cost(COUNT, || take(&pool, size)));
        report("vec", 1, size, cost(COUNT, || heap(size)));
    }
    for size in SIZES {
        report("pool", 2, size, two_threads(|| take(&pool, size)));
        report("vec", 2, size, two_threads(|| heap(size)));
    }
    for size in SIZES {
        report("pool_batch_of_32", 1, size, batch(|| pool.allocate(size).expect("room")));
        report("vec_batch_of_32", 1, size, batch(|| Vec::<u8>::with_capacity(size)));
    }
    for size in SIZES {
        hand_over(&pool, size);
    }
    let size = 4 << 10;
    report("pool_zeroed", 1, size, cost(COUNT, || drop(black_box(pool.allocate_zeroed(size)))));
    report("vec_zeroed", 1, size, cost(COUNT, || drop(black_box(vec![0u8; size]))));
    let split = || drop(black_box(pool.allocate(size).expect("room").split_at(100)));
    report("pool_split", 1, size, cost(COUNT, split));
    let freeze = || {
        let shared = pool.allocate(size).expect("room").freeze();
        drop(black_box((shared.clone(), shared)));
    };
    report("pool_freeze_clone", 1, size, cost(COUNT, freeze));
    report(
        "pool_into_bytes",
        1,
        size,
        cost(COUNT, || drop(black_box(pool.allocate(size).expect("room").into_bytes()))),
    );
}

fn take(pool: &Pool, size: usize) {
    drop(black_box(pool.allocate(black_box(size)).expect("room")));
}

fn heap(size: usize) {
    drop(black_box(Vec::<u8>::with_capacity(black_box(size))));
}

/// 32 taken, then all given back: per buffer.
fn batch<T>(mut allocate: impl FnMut() -> T) -> Cost {
    let mut held = Vec::with_capacity(32);
    let cost = cost(COUNT / 32, || {
        held.extend((0..32).map(|_| allocate()));
        black_box(&mut held).clear();
    });
    Cost { nanoseconds: cost.nanoseconds / 32.0, allocations: cost.allocations / 32.0 }
}

/// Both at once; the slower.
fn two_threads(operation: impl Fn() + Sync) -> Cost {
    let start = Barrier::new(2);
    let one = || {
        start.wait();
        cost(COUNT, &operation)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(one);
        let costs = [one(), other.join().expect("no panic")];
        costs.into_iter().max_by(|one, other| one.nanoseconds.total_cmp(&other.nanoseconds)).expect("two")
    })
}

/// One thread takes, another gives back: through a channel, whose cost is in the figure.
fn hand_over(pool: &Pool, size: usize) {
    const BUFFERS: u32 = 200_000;
    let (sender, receiver) = sync_channel::<Buffer>(64);
    let consumer = std::thread::spawn(move || receiver.into_iter().for_each(drop));
    let start = Instant::now();
    (0..BUFFERS).for_each(|_| sender.send(pool.allocate(size).expect("room")).expect("the consumer lives"));
    drop(sender);
    consumer.join().expect("no panic");
    let nanoseconds = start.elapsed().as_nanos() as f64 / f64::from(BUFFERS);
    let mapped = pool.statistics().mapped_bytes;
    println!(
        "{}",
        json!({"test": "pool_hand_over", "threads": 2, "size": size, "ns": round(nanoseconds), "mapped_bytes": mapped})
    );
}

fn report(test: &str, threads: u32, size: usize, cost: Cost) {
    let (ns, allocations) = (round(cost.nanoseconds), cost.allocations);
    println!("{}", json!({"test": test, "threads": threads, "size": size, "ns": ns, "allocations": allocations}));
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
