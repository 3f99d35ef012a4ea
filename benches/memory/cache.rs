//! Hits of the registration cache: a lease is taken and given back.

use std::hint::black_box;
use std::ops::Range;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use zcmi::internals::CacheOfNothing;
use zcmi::{CacheLimits, SharedMemory};

use crate::measure::{Case, Goal, Numbers, allocations_each, nanoseconds_each};

/// Bytes of an entry. Each starts 16 bytes into a page, as large pieces of heap do.
const LENGTH: usize = 16 << 10;
const PICKS: usize = 2_000;

pub(crate) fn cases() -> Vec<Case> {
    let counts = [10, 100, 1_000, 10_000, 100_000];
    let filled: Vec<Arc<Filled>> = counts.iter().map(|&count| Arc::new(Filled::new(count, |_| LENGTH))).collect();
    // Of nine lengths, from 256 bytes to 64 KiB.
    let mixed = Arc::new(Filled::new(10_000, |number| 256 << (number % 9)));
    let mut cases = Vec::new();
    for filled in &filled {
        cases.push(random(&format!("random of {} entries", filled.pieces.len()), filled));
    }
    cases.push(Case { goal: None, ..random("random of 10000 entries of nine lengths", &mixed) });
    for filled in &filled {
        cases.push(hot(filled));
    }
    for filled in &filled {
        cases.push(allocations(filled));
    }
    for filled in &filled[2..] {
        cases.push(two_threads(filled));
    }
    cases
}

/// A cache that has every piece of some memory registered.
struct Filled {
    cache: CacheOfNothing,
    memory: SharedMemory,
    pieces: Vec<Range<usize>>,
}

impl Filled {
    fn new(count: usize, length: impl Fn(usize) -> usize) -> Self {
        let cache = CacheOfNothing::new(CacheLimits { bytes: usize::MAX, entries: usize::MAX });
        let mut end = 0;
        let piece = |number| {
            let start = end;
            end += length(number);
            start..end
        };
        let pieces: Vec<Range<usize>> = (0..count).map(piece).collect();
        // The pages are never touched, so there are none.
        let memory = SharedMemory::from(vec![0u8; end]);
        for piece in &pieces {
            drop(cache.get(&memory, piece.clone()).expect("registers"));
        }
        assert_eq!(cache.statistics().entries, count);
        Self { cache, memory, pieces }
    }

    /// Ranges to look up.
    fn pick(&self, numbers: &mut Numbers, count: usize) -> Vec<Range<usize>> {
        let pick = |_| {
            let piece = &self.pieces[numbers.below(self.pieces.len())];
            let start = piece.start + numbers.below(piece.len());
            start..start + 1 + numbers.below(piece.end - start)
        };
        (0..count).map(pick).collect()
    }

    /// Uses every entry about twice: the other cases have used the processor's caches meanwhile.
    fn warm_up(&self, numbers: &mut Numbers) {
        for _ in 0..2 * self.pieces.len() {
            self.hit(&self.pieces[numbers.below(self.pieces.len())]);
        }
    }

    #[inline]
    fn hit(&self, range: &Range<usize>) {
        let lease = self.cache.get(&self.memory, range.clone()).expect("a hit");
        black_box(lease.key());
    }
}

fn random(name: &str, filled: &Arc<Filled>) -> Case {
    let (filled, mut numbers) = (Arc::clone(filled), Numbers::new(1));
    let run = move || {
        let picks = filled.pick(&mut numbers, PICKS);
        filled.warm_up(&mut numbers);
        nanoseconds_each(&picks, |pick| filled.hit(pick))
    };
    Case { name: format!("hit, {name}"), unit: "ns", goal: Some(Goal::AtMost(50.0)), run: Box::new(run) }
}

fn hot(filled: &Arc<Filled>) -> Case {
    let name = format!("hit, the same of {} entries", filled.pieces.len());
    let (filled, mut numbers) = (Arc::clone(filled), Numbers::new(2));
    let run = move || {
        let pick = filled.pieces[numbers.below(filled.pieces.len())].clone();
        filled.hit(&pick);
        nanoseconds_each(&[(); PICKS], |()| filled.hit(black_box(&pick)))
    };
    Case { name, unit: "ns", goal: Some(Goal::AtMost(20.0)), run: Box::new(run) }
}

fn allocations(filled: &Arc<Filled>) -> Case {
    let name = format!("allocations a hit, {} entries", filled.pieces.len());
    let (filled, mut numbers) = (Arc::clone(filled), Numbers::new(3));
    let run = move || allocations_each(&filled.pick(&mut numbers, PICKS), |pick| filled.hit(pick));
    Case { name, unit: "", goal: Some(Goal::AtMost(0.0)), run: Box::new(run) }
}

fn two_threads(filled: &Arc<Filled>) -> Case {
    let name = format!("two threads to one, {} entries", filled.pieces.len());
    let (filled, mut seed) = (Arc::clone(filled), 4);
    let run = move || {
        seed += 1;
        throughput(&filled, 2, seed) / throughput(&filled, 1, seed)
    };
    Case { name, unit: "", goal: Some(Goal::AtLeast(1.6)), run: Box::new(run) }
}

/// Hits a nanosecond of all threads together.
fn throughput(filled: &Filled, threads: usize, seed: u64) -> f64 {
    const HITS: usize = 10 * PICKS;
    let barrier = Barrier::new(threads);
    let time = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut numbers = Numbers::new(seed << 8 | thread as u64);
                    let picks = filled.pick(&mut numbers, HITS);
                    filled.warm_up(&mut numbers);
                    barrier.wait();
                    let begun = Instant::now();
                    picks.iter().for_each(|pick| filled.hit(black_box(pick)));
                    begun.elapsed().as_nanos() as f64
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("no hit fails")).fold(0.0, f64::max)
    });
    (threads * HITS) as f64 / time
}
