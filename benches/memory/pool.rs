//! Taking a buffer from a warm pool and giving it back, next to the heap.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use zcmi::{Buffer, Pool};

use crate::measure::{Case, Goal, allocations_each, nanoseconds_each};

const TIMES: [(); 2_000] = [(); 2_000];
const SIZES: [(usize, &str); 4] = [(64, "64 B"), (4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")];

pub(crate) fn cases() -> Vec<Case> {
    let pool = Pool::builder().limit(256 << 20).build().expect("a pool");
    let mut cases = Vec::new();
    for (size, name) in SIZES {
        let goal = (size == 4 << 10 || size == 1 << 20).then_some(Goal::AtMost(40.0));
        cases.push(time(format!("pool: {name}, allocate and release"), goal, taking(&pool, size)));
        cases.push(time(format!("heap: {name}, Vec::with_capacity"), None, move || {
            drop(black_box(Vec::<u8>::with_capacity(black_box(size))));
        }));
    }
    for (size, name) in SIZES {
        let both = format!("pool: {name}, two threads, each");
        cases.push(Case { name: both, unit: "ns", goal: None, run: two_threads(&pool, size) });
        let mut take = taking(&pool, size);
        let run = Box::new(move || allocations_each(&TIMES, |_| take()));
        let goal = Some(Goal::AtMost(0.0));
        cases.push(Case { name: format!("pool: {name}, heap allocations"), unit: "", goal, run });
    }
    let zeroing = pool.clone();
    let zeroed = move || drop(black_box(zeroing.allocate_zeroed(4 << 10)));
    cases.push(time("pool: 4 KiB, zeroed".to_owned(), None, zeroed));
    let freezing = pool.clone();
    let bytes = move || drop(black_box(taken(&freezing, 4 << 10).into_bytes()));
    cases.push(time("pool: 4 KiB, as Bytes".to_owned(), None, bytes));
    cases
}

fn time(name: String, goal: Option<Goal>, mut operation: impl FnMut() + 'static) -> Case {
    Case { name, unit: "ns", goal, run: Box::new(move || nanoseconds_each(&TIMES, |_| operation())) }
}

fn taking(pool: &Pool, size: usize) -> impl FnMut() + 'static {
    let pool = pool.clone();
    move || drop(black_box(taken(&pool, size)))
}

fn taken(pool: &Pool, size: usize) -> Buffer {
    pool.allocate(black_box(size)).expect("room")
}

/// Both at once; the slower.
fn two_threads(pool: &Pool, size: usize) -> Box<dyn FnMut() -> f64> {
    let pool = pool.clone();
    Box::new(move || {
        let start = Arc::new(Barrier::new(2));
        let one = move |start: Arc<Barrier>, pool: Pool| {
            start.wait();
            let begun = Instant::now();
            TIMES.iter().for_each(|_| drop(black_box(taken(&pool, size))));
            begun.elapsed().as_nanos() as f64 / TIMES.len() as f64
        };
        let (other_start, other_pool) = (Arc::clone(&start), pool.clone());
        let other = std::thread::spawn(move || one(other_start, other_pool));
        one(start, pool.clone()).max(other.join().expect("no panic"))
    })
}
