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

/// A cache that has every piece registered.
struct Filled {
    cache: CacheOfNothing,
    pieces: Vec<SharedMemory>,
}

/// A range to look up. The handle is there already, as it is for a program that is about to send.
type Pick = (SharedMemory, Range<usize>);

impl Filled {
    fn new(count: usize, length: impl Fn(usize) -> usize) -> Self {
        let cache = CacheOfNothing::new(CacheLimits { bytes: usize::MAX, entries: usize::MAX });
        let lengths: Vec<usize> = (0..count).map(length).collect();
        // The pages are never touched, so there are none.
        let memory = SharedMemory::from(vec![0u8; lengths.iter().sum()]);
        let mut start = 0;
        let pieces: Vec<SharedMemory> = lengths
            .iter()
            .map(|length| {
                start += length;
                memory.slice(start - length..start)
            })
            .collect();
        for piece in &pieces {
            drop(cache.get(piece, 0..piece.len()).expect("registers"));
        }
        assert_eq!(cache.statistics().entries, count);
        Self { cache, pieces }
    }

    fn pick(&self, numbers: &mut Numbers, count: usize) -> Vec<Pick> {
        let pick = |_| {
            let piece = &self.pieces[numbers.below(self.pieces.len())];
            let start = numbers.below(piece.len());
            (piece.clone(), start..start + 1 + numbers.below(piece.len() - start))
        };
        (0..count).map(pick).collect()
    }

    /// Uses every entry: the other cases have used the processor's caches meanwhile.
    fn warm_up(&self) {
        self.pieces.iter().for_each(|piece| drop(black_box(self.cache.get(piece, 0..1).expect("a hit"))));
    }

    #[inline]
    fn hit(&self, (memory, range): &Pick) {
        let lease = self.cache.get(memory, range.clone()).expect("a hit");
        black_box(lease.key());
    }
}

fn random(name: &str, filled: &Arc<Filled>) -> Case {
    let (filled, mut numbers) = (Arc::clone(filled), Numbers::new(1));
    let run = move || {
        let picks = filled.pick(&mut numbers, PICKS);
        filled.warm_up();
        nanoseconds_each(&picks, |pick| filled.hit(pick))
    };
    Case { name: format!("hit, {name}"), unit: "ns", goal: Some(Goal::AtMost(50.0)), run: Box::new(run) }
}

fn hot(filled: &Arc<Filled>) -> Case {
    let name = format!("hit, the same of {} entries", filled.pieces.len());
    let (filled, mut numbers) = (Arc::clone(filled), Numbers::new(2));
    let run = move || {
        let piece = &filled.pieces[numbers.below(filled.pieces.len())];
        let pick = (piece.clone(), 0..piece.len());
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
                    let picks = filled.pick(&mut Numbers::new(seed << 8 | thread as u64), HITS);
                    filled.warm_up();
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
