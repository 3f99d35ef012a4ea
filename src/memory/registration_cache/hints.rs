//! Where to look first: a table from addresses to entries that readers use without a lock.

use super::entry::Entry;
use super::slots;
use super::wanted::Wanted;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::locks::OnceLock;

/// Says which entries probably contain a range. It may lack entries and may name others: the reader checks what it
/// is led to, and the index under the cache's lock has the last word.
///
/// An entry of a length in `2^(k-1)+1 ..= 2^k` has level `k` (short ones: 12) and is found under each aligned cell of
/// `2^k` bytes that it overlaps, which are one or two. A lookup probes, for each level in use that can contain the
/// range, the cell of its first byte: one cache line.
pub(super) struct Hints {
    /// A bit for each level in use.
    levels: AtomicU64,
    /// The table in use. Smaller ones stay, as readers may be in them; together they are as large as it is.
    current: AtomicU32,
    tables: [OnceLock<Box<[Bucket]>>; TABLES],
}

const LOWEST: u32 = 12;
const TABLES: usize = 24;
const WAYS: usize = 8;

#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// The side of the table that changes it, under the cache's lock.
pub(super) struct HintWriter {
    entries_of_level: [u32; 64],
    entries: usize,
}

impl Hints {
    pub(super) fn new() -> (Self, HintWriter) {
        let hints = Self {
            levels: AtomicU64::new(0),
            current: AtomicU32::new(0),
            tables: std::array::from_fn(|_| OnceLock::new()),
        };
        hints.tables[0].get_or_init(|| buckets(0));
        (hints, HintWriter { entries_of_level: [0; 64], entries: 0 })
    }

    /// The first answer that `check` gives for an entry that may contain `wanted`.
    #[inline]
    pub(super) fn find<T>(&self, wanted: &Wanted, mut check: impl FnMut(&'static Entry) -> Option<T>) -> Option<T> {
        let table = self.tables[self.current.load(Ordering::Acquire) as usize].get()?;
        let mut levels = self.levels.load(Ordering::Relaxed) & (u64::MAX << level(wanted));
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels - 1;
            let cell = wanted.base >> level;
            let place = Place::new(cell, level, wanted.access(), table);
            let (first, last) = (position(wanted.base, cell, level), position(wanted.end - 1, cell, level));
            for bucket in [place.bucket, place.bucket ^ 1] {
                let mut full = true;
                for slot in &table[bucket].0 {
                    let slot = Slot(slot.load(Ordering::Relaxed));
                    full &= slot.0 != 0;
                    if slot.tag() == place.tag
                        && slot.first() <= first
                        && last <= slot.last()
                        && let Some(entry) = slots::entry(slot.number())
                        && let Some(answer) = check(entry)
                    {
                        return Some(answer);
                    }
                }
                // Only what has no room spills over.
                if !full {
                    break;
                }
            }
        }
        None
    }
}

impl HintWriter {
    /// Makes the entry known; `all` are those that a larger table must have, this one included.
    pub(super) fn insert(&mut self, hints: &Hints, entry: &'static Entry, all: impl Iterator<Item = &'static Entry>) {
        let level = level(&entry.range());
        self.entries_of_level[level as usize] += 1;
        self.entries += 1;
        hints.levels.fetch_or(1 << level, Ordering::Relaxed);
        // An entry fills two slots at most; a table that is half full hardly ever overflows.
        let current = hints.current.load(Ordering::Relaxed) as usize;
        if self.entries * 4 > bucket_count(current) * WAYS && current + 1 < TABLES {
            let table = hints.tables[current + 1].get_or_init(|| buckets(current + 1));
            all.for_each(|entry| write(table, entry));
            hints.current.store(current as u32 + 1, Ordering::Release);
        } else {
            self.renew(hints, entry);
        }
    }

    /// Makes an entry known again that was pushed out.
    pub(super) fn renew(&mut self, hints: &Hints, entry: &'static Entry) {
        if let Some(table) = hints.tables[hints.current.load(Ordering::Relaxed) as usize].get() {
            erase(table, entry);
            write(table, entry);
        }
    }

    pub(super) fn remove(&mut self, hints: &Hints, entry: &'static Entry) {
        if let Some(table) = hints.tables[hints.current.load(Ordering::Relaxed) as usize].get() {
            erase(table, entry);
        }
        let level = level(&entry.range());
        self.entries -= 1;
        self.entries_of_level[level as usize] -= 1;
        if self.entries_of_level[level as usize] == 0 {
            hints.levels.fetch_and(!(1 << level), Ordering::Relaxed);
        }
    }
}

/// Where the entries of a cell are.
struct Place {
    bucket: usize,
    tag: u64,
}

impl Place {
    #[inline]
    fn new(cell: usize, level: u32, access: u64, table: &[Bucket]) -> Self {
        let key = (cell as u64) << 10 | access << 6 | u64::from(level);
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        // The table's length is a power of two.
        Self { bucket: (hash >> 32) as usize & (table.len() - 1), tag: hash & Slot::TAGS }
    }
}

/// Tag, the entry's first and last byte relative to the cell, and its number; zero if empty.
#[derive(Clone, Copy)]
struct Slot(u64);

impl Slot {
    const TAGS: u64 = (1 << 22) - 1;
    const POSITIONS: u64 = (1 << 9) - 1;

    fn new(tag: u64, first: u64, last: u64, number: u32) -> Self {
        Self(tag << 42 | first << 33 | last << 24 | (u64::from(number) + 1))
    }

    #[inline]
    fn tag(self) -> u64 {
        self.0 >> 42
    }

    #[inline]
    fn first(self) -> u64 {
        self.0 >> 33 & Self::POSITIONS
    }

    #[inline]
    fn last(self) -> u64 {
        self.0 >> 24 & Self::POSITIONS
    }

    /// Of an empty slot, one that no entry has.
    #[inline]
    fn number(self) -> u32 {
        (self.0 as u32 & 0xff_ffff).wrapping_sub(1)
    }
}

#[inline]
fn level(range: &Wanted) -> u32 {
    (usize::BITS - (range.end - range.base - 1).leading_zeros()).max(LOWEST)
}

/// Where `address` is, in 128ths of a cell, counted from the start of the cell before: an entry that overlaps the cell
/// starts there at the earliest, and ends in the cell after at the latest.
#[inline]
fn position(address: usize, cell: usize, level: u32) -> u64 {
    ((address >> (level - 7)) + 128 - (cell << 7)) as u64
}

fn places(table: &[Bucket], entry: &Entry) -> impl Iterator<Item = (Place, Slot)> {
    let range = entry.range();
    let level = level(&range);
    let (number, access) = (entry.number, range.access());
    (range.base >> level..=(range.end - 1) >> level).map(move |cell| {
        let place = Place::new(cell, level, access, table);
        let (first, last) = (position(range.base, cell, level), position(range.end - 1, cell, level));
        let slot = Slot::new(place.tag, first, last, number);
        (place, slot)
    })
}

fn write(table: &[Bucket], entry: &Entry) {
    for (place, slot) in places(table, entry) {
        let mut slots = [place.bucket, place.bucket ^ 1].into_iter().flat_map(|bucket| &table[bucket].0);
        let free = slots.find(|slot| slot.load(Ordering::Relaxed) == 0);
        // Without room somebody is pushed out; the index still knows them.
        let victim = &table[place.bucket].0[entry.number as usize % WAYS];
        free.unwrap_or(victim).store(slot.0, Ordering::Relaxed);
    }
}

fn erase(table: &[Bucket], entry: &Entry) {
    for (place, _) in places(table, entry) {
        for slot in [place.bucket, place.bucket ^ 1].into_iter().flat_map(|bucket| &table[bucket].0) {
            let word = Slot(slot.load(Ordering::Relaxed));
            if word.0 != 0 && word.number() == entry.number {
                slot.store(0, Ordering::Relaxed);
            }
        }
    }
}

fn bucket_count(table: usize) -> usize {
    8 << table
}

fn buckets(table: usize) -> Box<[Bucket]> {
    (0..bucket_count(table)).map(|_| Bucket(std::array::from_fn(|_| AtomicU64::new(0)))).collect()
}
