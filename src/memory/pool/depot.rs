//! The idle blocks: a cache for each thread, and shared lists behind them.

use super::Class;
use super::waiters::Waiters;
use crate::sync::{Mutex, lock};

/// Idle things of all classes. A thread takes and puts in its own shard, under a lock that is hardly ever
/// contended; a shard that has too many moves a batch to the shared list of the class, and one that has none takes a batch from there. So what one
/// thread allocates and another releases comes back, and whoever is at the limit can take everything from every shard.
pub(super) struct Depot<T> {
    shards: Box<[Shard<T>]>,
    lists: Box<[Mutex<Vec<T>>]>,
}

/// Apart from the next by two cache lines: processors fetch them in pairs.
#[repr(align(128))]
struct Shard<T>(Mutex<Cache<T>>);

struct Cache<T> {
    open: bool,
    /// Bytes taken less those put, of all classes; the sum over the shards is what is in use.
    taken: i64,
    /// Blocks taken.
    #[cfg(feature = "metrics")]
    allocations: u64,
    /// One per class, made on first use.
    stacks: Box<[Vec<T>]>,
}

impl<T> Cache<T> {
    #[inline(always)]
    fn count(&mut self) {
        #[cfg(feature = "metrics")]
        {
            self.allocations += 1;
        }
    }
}

/// Why a block was not put.
enum Refused<T> {
    /// The pool is gone.
    Closed(T),
    /// Somebody waits.
    Wanted(T),
}

impl<T> Depot<T> {
    pub(super) fn new(shards: usize) -> Self {
        assert!(shards.is_power_of_two(), "shards are found by a mask");
        let cache = || Cache {
            open: true,
            taken: 0,
            #[cfg(feature = "metrics")]
            allocations: 0,
            stacks: Box::default(),
        };
        Self {
            shards: (0..shards).map(|_| Shard(Mutex::new(cache()))).collect(),
            lists: Class::all().map(|_| Mutex::new(Vec::new())).collect(),
        }
    }

    /// Takes an idle block of `class` from the shard of thread `number` or from the shared list.
    #[inline]
    pub(super) fn take(&self, number: usize, class: Class) -> Option<T> {
        let mut cache = lock(self.shard(number));
        let taken = match cache.stacks.get_mut(class.index()).and_then(Vec::pop) {
            Some(block) => block,
            None => self.refill(&mut cache, class)?,
        };
        cache.taken += class.size() as i64;
        cache.count();
        Some(taken)
    }

    /// Takes a released block back: it goes to the first of `waiters` who wants its class, or into the shard of thread
    /// `number`. It was [taken](Self::take), or [told of](Self::account). A closed depot refuses it.
    #[inline]
    pub(super) fn release(&self, number: usize, class: Class, block: T, waiters: &Waiters<T>) -> Result<(), T> {
        match self.put(number, class, block, Some(waiters)) {
            Ok(()) => Ok(()),
            Err(Refused::Closed(block)) => Err(block),
            Err(Refused::Wanted(block)) => self.hand_over(number, class, block, waiters),
        }
    }

    #[cold]
    fn hand_over(&self, number: usize, class: Class, block: T, waiters: &Waiters<T>) -> Result<(), T> {
        // Who gets it directly takes over its account too.
        let Some(block) = waiters.offer(class, block) else { return Ok(()) };
        // Refused if the pool has gone meanwhile.
        let result = match self.put(number, class, block, None) {
            Ok(()) => Ok(()),
            Err(Refused::Closed(block) | Refused::Wanted(block)) => Err(block),
        };
        waiters.notify();
        result
    }

    /// Puts a block into a shard, unless one of `waiters` may want it: without them, in any case.
    #[inline]
    fn put(&self, number: usize, class: Class, block: T, waiters: Option<&Waiters<T>>) -> Result<(), Refused<T>> {
        let mut cache = lock(self.shard(number));
        if !cache.open {
            return Err(Refused::Closed(block));
        }
        // Under the lock: who waits has looked into this shard after it was counted, or will.
        if waiters.is_some_and(Waiters::are_there) {
            return Err(Refused::Wanted(block));
        }
        cache.taken -= class.size() as i64;
        match cache.stacks.get_mut(class.index()) {
            Some(stack) if stack.len() < stack.capacity() => stack.push(block),
            _ => self.overflow(&mut cache, class, block),
        }
        Ok(())
    }

    /// Tells that bytes were given out that were not taken here, or, negative, came back.
    pub(super) fn account(&self, number: usize, bytes: i64) {
        let mut cache = lock(self.shard(number));
        cache.taken += bytes;
        if bytes > 0 {
            cache.count();
        }
    }

    /// Blocks given out so far.
    #[cfg(feature = "metrics")]
    pub(super) fn allocations(&self) -> u64 {
        self.shards.iter().map(|shard| lock(&shard.0).allocations).sum()
    }

    /// Adds fresh blocks to the shared list.
    pub(super) fn supply(&self, class: Class, blocks: impl IntoIterator<Item = T>) {
        lock(&self.lists[class.index()]).extend(blocks);
    }

    /// Takes a block of `class` from whichever thread has some; the others of that thread go to the shared list.
    pub(super) fn steal(&self, number: usize, class: Class) -> Option<T> {
        for shard in &self.shards {
            let mut cache = lock(&shard.0);
            let Some(stack) = cache.stacks.get_mut(class.index()) else { continue };
            if let Some(block) = stack.pop() {
                lock(&self.lists[class.index()]).append(stack);
                drop(cache);
                self.account(number, class.size() as i64);
                return Some(block);
            }
        }
        // Of what others released meanwhile.
        self.take(number, class)
    }

    /// Takes all idle blocks of `class`.
    pub(super) fn drain(&self, class: Class) -> Vec<T> {
        let mut all = Vec::new();
        for shard in &self.shards {
            if let Some(stack) = lock(&shard.0).stacks.get_mut(class.index()) {
                all.append(stack);
            }
        }
        all.append(&mut lock(&self.lists[class.index()]));
        all
    }

    /// Lets go of everything; what is put from now on is refused.
    pub(super) fn close(&self) -> Vec<T> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut cache = lock(&shard.0);
            cache.open = false;
            all.extend(std::mem::take(&mut cache.stacks).into_iter().flatten());
        }
        // An overflow happens under the lock of an open shard, so there is none after this.
        all.extend(self.lists.iter().flat_map(|list| std::mem::take(&mut *lock(list))));
        all
    }

    /// Makes a closed one as good as new, when nobody has anything of it any more.
    pub(super) fn open(&self) {
        for shard in &self.shards {
            let mut cache = lock(&shard.0);
            cache.open = true;
            cache.taken = 0;
        }
    }

    /// Bytes given out.
    pub(super) fn taken(&self) -> usize {
        let sum: i64 = self.shards.iter().map(|shard| lock(&shard.0).taken).sum();
        usize::try_from(sum).unwrap_or(0)
    }

    /// Runs `test` while every lock is held.
    #[cfg(test)]
    pub(super) fn while_locked(&self, test: impl FnOnce()) {
        let _caches: Vec<_> = self.shards.iter().map(|shard| lock(&shard.0)).collect();
        let _lists: Vec<_> = self.lists.iter().map(lock).collect();
        test();
    }

    fn shard(&self, number: usize) -> &Mutex<Cache<T>> {
        &self.shards[number & (self.shards.len() - 1)].0
    }

    #[cold]
    fn refill(&self, cache: &mut Cache<T>, class: Class) -> Option<T> {
        let mut list = lock(&self.lists[class.index()]);
        let block = list.pop()?;
        let rest = list.len().saturating_sub(capacity(class) / 2);
        cache.stack(class).extend(list.drain(rest..));
        Some(block)
    }

    #[cold]
    fn overflow(&self, cache: &mut Cache<T>, class: Class, block: T) {
        let stack = cache.stack(class);
        if stack.len() == stack.capacity() {
            // The older half: the newer is warmer.
            lock(&self.lists[class.index()]).extend(stack.drain(..stack.len() / 2));
        }
        stack.push(block);
    }
}

impl<T> Cache<T> {
    fn stack(&mut self, class: Class) -> &mut Vec<T> {
        if self.stacks.is_empty() {
            self.stacks = Class::all().map(|_| Vec::new()).collect();
        }
        let stack = &mut self.stacks[class.index()];
        if stack.capacity() == 0 {
            stack.reserve_exact(capacity(class));
        }
        stack
    }
}

/// How many idle blocks of `class` a thread keeps: at most 1 MiB of them, and four of the long ones.
fn capacity(class: Class) -> usize {
    ((1 << 20) / class.size()).clamp(4, 64)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn class() -> Class {
        Class::of(4096).expect("small")
    }

    fn put(depot: &Depot<u32>, number: usize, block: u32) {
        assert!(depot.put(number, class(), block, None).is_ok());
    }

    #[test]
    fn what_one_thread_puts_another_takes() {
        let depot = Depot::new(4);
        depot.account(0, 1000 * 4096);
        for block in 0..1000 {
            put(&depot, 1, block);
        }
        let mut seen: Vec<_> = std::iter::from_fn(|| depot.take(2, class())).collect();
        // The rest is in the cache of the first.
        seen.extend(std::iter::from_fn(|| depot.take(1, class())));
        seen.sort();
        assert!(seen.into_iter().eq(0..1000));
        assert_eq!(depot.taken(), 1000 * 4096);
    }

    #[test]
    fn a_thread_takes_what_it_put_last() {
        let depot = Depot::new(1);
        put(&depot, 0, 1);
        put(&depot, 0, 2);
        assert_eq!((depot.take(0, class()), depot.take(0, class())), (Some(2), Some(1)));
    }

    #[test]
    fn stealing_finds_the_last_block() {
        let depot = Depot::new(64);
        put(&depot, 63, 7);
        assert_eq!(depot.take(0, class()), None);
        assert_eq!(depot.steal(0, class()), Some(7));
        assert_eq!(depot.steal(0, class()), None);
    }

    #[test]
    fn a_closed_depot_refuses() {
        let depot = Depot::new(2);
        put(&depot, 0, 1);
        assert_eq!(depot.close(), [1]);
        assert_eq!(depot.release(0, class(), 1, &Waiters::new()), Err(1));
    }
}
