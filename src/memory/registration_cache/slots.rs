//! The places of entries: they are used again, never freed, and known by number.

use std::sync::TryLockError;

use super::entry::{Entry, RecordPlace};
use crate::sync::locks::{Mutex, MutexGuard, OnceLock};

const CHUNK: usize = 1024;
/// Places for four million entries in a process.
const CHUNKS: usize = 4096;

static DIRECTORY: [OnceLock<Chunk>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];
static FREE: Mutex<Vec<&'static Entry>> = Mutex::new(Vec::new());
static NEXT_CHUNK: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

struct Chunk {
    entries: Box<[Entry]>,
    /// Apart, so that entries that are hit are close together.
    records: Box<[RecordPlace]>,
}

/// The place of that number.
#[inline]
pub(super) fn entry(number: u32) -> Option<&'static Entry> {
    let number = number as usize;
    DIRECTORY.get(number / CHUNK)?.get()?.entries.get(number % CHUNK)
}

/// The place for the record of the entry of that number.
pub(super) fn record(number: u32) -> Option<&'static RecordPlace> {
    let number = number as usize;
    DIRECTORY.get(number / CHUNK)?.get()?.records.get(number % CHUNK)
}

/// A few free places; none if there are no more.
pub(super) fn take() -> Vec<&'static Entry> {
    const BATCH: usize = 64;
    if let Some(mut free) = free()
        && !free.is_empty()
    {
        let rest = free.len().saturating_sub(BATCH);
        return free.split_off(rest);
    }
    let chunk = NEXT_CHUNK.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let Some(place) = DIRECTORY.get(chunk) else {
        // Not to wrap around.
        NEXT_CHUNK.store(CHUNKS, std::sync::atomic::Ordering::Relaxed);
        return Vec::new();
    };
    let first = (chunk * CHUNK) as u32;
    let made = place.get_or_init(|| Chunk {
        entries: (first..first + CHUNK as u32).map(Entry::new).collect(),
        records: (0..CHUNK).map(|_| RecordPlace::default()).collect(),
    });
    let mut entries: Vec<&'static Entry> = made.entries.iter().collect();
    let batch = entries.split_off(CHUNK - BATCH);
    give_back(entries);
    batch
}

/// Makes places free for other caches.
pub(super) fn give_back(entries: impl IntoIterator<Item = &'static Entry>) {
    if let Some(mut free) = free() {
        free.extend(entries);
    }
}

/// The list, unless it was locked when this process was forked.
fn free() -> Option<MutexGuard<'static, Vec<&'static Entry>>> {
    // It is held for so short that somewhat more than an instant means for ever.
    for _ in 0..1000 {
        match FREE.try_lock() {
            Ok(free) => return Some(free),
            Err(TryLockError::Poisoned(free)) => return Some(free.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}
