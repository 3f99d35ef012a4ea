//! The one way to touch memory that a peer may be reading or writing: copies by atomic words.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

#[cfg(not(loom))]
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::Registrable;

/// Copies `destination.len()` bytes from `offset` of `memory` on, though a peer may be writing them: each aligned
/// word is read whole, the order among words is open.
///
/// # Panics
/// If the range leaves the memory.
pub(crate) fn load(memory: &dyn Registrable, offset: usize, destination: &mut [u8]) {
    check(memory, offset, destination.len());
    let base = memory.address();
    if !memory.is_writable() {
        // SAFETY: within the mapped range, which nobody writes: `Registrable` says so, and no peer is granted that.
        let source = unsafe { std::slice::from_raw_parts(base.wrapping_add(offset), destination.len()) };
        return destination.copy_from_slice(source);
    }
    // SAFETY: `check` has found it within the range, which is mapped for as long as the memory is borrowed.
    unsafe { load_words(base.wrapping_add(offset), destination) }
}

/// Copies `source` to `offset` of `memory` on, though a peer may be reading or writing there.
///
/// # Panics
/// If the range leaves the memory, or the memory may only be read.
pub(crate) fn store(memory: &dyn Registrable, offset: usize, source: &[u8]) {
    check(memory, offset, source.len());
    assert!(memory.is_writable(), "the memory may only be read");
    let base = memory.address();
    // SAFETY: `check` has found it within the range, which is mapped for as long as the memory is borrowed and may be written.
    unsafe { store_words(base.wrapping_add(offset), source) }
}

/// Copies `destination.len()` bytes from `from` on, though a peer may be writing them: each aligned word is read whole.
///
/// # Safety
/// They are mapped until it returns, and only ever accessed atomically while somebody may be writing them.
pub(crate) unsafe fn load_words(from: *mut u8, destination: &mut [u8]) {
    let (head, middle) = destination.split_at_mut(until_aligned(from, destination.len()));
    // SAFETY: as the caller promises.
    unsafe { load_bytes(from, head) };
    let mut at = from.wrapping_add(head.len());
    let mut words = middle.chunks_exact_mut(WORD);
    for to in &mut words {
        // SAFETY: aligned, and mapped, as the caller promises.
        let word = unsafe { word(at) }.load(Ordering::Relaxed);
        to.copy_from_slice(&word.to_ne_bytes());
        at = at.wrapping_add(WORD);
    }
    // SAFETY: as the caller promises.
    unsafe { load_bytes(at, words.into_remainder()) };
    // What was written before the bytes we saw is seen from here on, as far as the device orders it.
    std::sync::atomic::fence(Ordering::Acquire);
}

/// Copies `source` to `to` and behind, though a peer may be reading or writing there: each aligned word is written whole.
///
/// # Safety
/// So many bytes are mapped there until it returns, may be written, and are only ever accessed atomically while somebody else may be
/// accessing them.
pub(crate) unsafe fn store_words(to: *mut u8, source: &[u8]) {
    std::sync::atomic::fence(Ordering::Release);
    let (head, middle) = source.split_at(until_aligned(to, source.len()));
    // SAFETY: as the caller promises.
    unsafe { store_bytes(to, head) };
    let mut at = to.wrapping_add(head.len());
    let mut words = middle.chunks_exact(WORD);
    for from in &mut words {
        let mut value = [0; WORD];
        value.copy_from_slice(from);
        // SAFETY: aligned, and mapped, as the caller promises.
        unsafe { word(at) }.store(u64::from_ne_bytes(value), Ordering::Relaxed);
        at = at.wrapping_add(WORD);
    }
    // SAFETY: as the caller promises.
    unsafe { store_bytes(at, words.remainder()) };
}

/// Copies bytes from `from` to `to`, one of which a peer may be writing or reading. In which order, and in which parts, is open: what they
/// mean must not depend on it.
///
/// # Safety
/// So many bytes are mapped at both until it returns, and may be written at `to`; what somebody else may be accessing is only ever
/// accessed atomically, or by this.
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom, tsan))))]
    // SAFETY: as the caller promises. To the compiler it is as foreign as what the other process does; each byte is read and written
    // once, as relaxed atomic accesses would.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") length => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, loom, tsan)))))]
    for offset in 0..length {
        // SAFETY: mapped, as the caller promises.
        let value = unsafe { byte(from.cast_mut().wrapping_add(offset)) }.load(Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { byte(to.wrapping_add(offset)) }.store(value, Ordering::Relaxed);
    }
}

const WORD: usize = size_of::<u64>();

/// How many of `length` bytes at `at` are before the first aligned word.
fn until_aligned(at: *mut u8, length: usize) -> usize {
    (at.addr().wrapping_neg() % WORD).min(length)
}

/// # Safety
/// As [`load_words`].
unsafe fn load_bytes(from: *mut u8, destination: &mut [u8]) {
    for (offset, to) in destination.iter_mut().enumerate() {
        // SAFETY: mapped, as the caller promises.
        *to = unsafe { byte(from.wrapping_add(offset)) }.load(Ordering::Relaxed);
    }
}

/// # Safety
/// As [`store_words`].
unsafe fn store_bytes(to: *mut u8, source: &[u8]) {
    for (offset, from) in source.iter().enumerate() {
        // SAFETY: mapped, as the caller promises.
        unsafe { byte(to.wrapping_add(offset)) }.store(*from, Ordering::Relaxed);
    }
}

/// Adds to the aligned word at `offset` of `memory`; answers what it was.
///
/// # Panics
/// If it leaves the memory, or the memory may only be read.
#[cfg(not(loom))]
pub(crate) fn fetch_add(memory: &dyn Registrable, offset: usize, add: u64) -> u64 {
    aligned(memory, offset).fetch_add(add, Ordering::AcqRel)
}

/// Puts `swap` into the aligned word at `offset` of `memory` if it is `compare`; answers what it was.
///
/// # Panics
/// If it leaves the memory, or the memory may only be read.
#[cfg(not(loom))]
pub(crate) fn compare_swap(memory: &dyn Registrable, offset: usize, compare: u64, swap: u64) -> u64 {
    let swapped = aligned(memory, offset).compare_exchange(compare, swap, Ordering::AcqRel, Ordering::Acquire);
    swapped.unwrap_or_else(|other| other)
}

#[cfg(not(loom))]
fn aligned(memory: &dyn Registrable, offset: usize) -> &AtomicU64 {
    check(memory, offset, 8);
    assert!(memory.is_writable(), "the memory may only be read");
    let at = memory.address().wrapping_add(offset);
    assert!(at.addr().is_multiple_of(8), "the word is not aligned");
    // SAFETY: aligned, and `check` has found it within the range, which is mapped for as long as the memory is borrowed.
    unsafe { word(at) }
}

/// Does `act` when it is this thread's turn to access `memory`: bytes and words of one place must not be accessed at once within a
/// process. What the kernel does is outside of it, as what a device does.
pub(crate) fn in_turn<R>(memory: &dyn Registrable, is_writing: bool, act: impl FnOnce() -> R) -> R {
    match memory.turns() {
        None => act(),
        Some(turns) => take_turn(turns, is_writing, act),
    }
}

/// The same with the lock by which turns are taken.
pub(super) fn take_turn<R>(turns: &RwLock<()>, is_writing: bool, act: impl FnOnce() -> R) -> R {
    if is_writing {
        let _turn = turns.write().unwrap_or_else(PoisonError::into_inner);
        return act();
    }
    let _turn = turns.read().unwrap_or_else(PoisonError::into_inner);
    act()
}

/// Has the kernel put what it has of a stream, `length` bytes at most, to `offset` of `memory`, without a copy in between.
///
/// # Panics
/// If the range leaves the memory, or the memory may only be read.
#[cfg(not(loom))]
pub(crate) fn receive(
    memory: &dyn Registrable,
    offset: usize,
    length: usize,
    socket: impl AsFd,
) -> rustix::io::Result<usize> {
    check(memory, offset, length);
    assert!(memory.is_writable(), "the memory may only be read");
    let at = memory.address().wrapping_add(offset);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the range is mapped for as long as the memory is borrowed; the kernel writes it as a device would, and nobody has a
    // reference into it.
    let received = unsafe { libc::recv(socket, at.cast(), length, libc::MSG_DONTWAIT) };
    usize::try_from(received).map_err(|_| last_error())
}

/// Has the kernel take `length` bytes at `offset` of `memory` for a stream, or as many as it has room for.
///
/// # Panics
/// If the range leaves the memory.
#[cfg(not(loom))]
pub(crate) fn send(
    memory: &dyn Registrable,
    offset: usize,
    length: usize,
    socket: impl AsFd,
) -> rustix::io::Result<usize> {
    check(memory, offset, length);
    let at = memory.address().wrapping_add(offset);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the range is mapped for as long as the memory is borrowed; the kernel copies it, whoever writes there meanwhile.
    let sent = unsafe { libc::send(socket, at.cast(), length, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| last_error())
}

#[cfg(not(loom))]
fn last_error() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

fn check(memory: &dyn Registrable, offset: usize, length: usize) {
    let end = offset.checked_add(length).expect("a range within the memory");
    assert!(end <= memory.length(), "bytes {offset}..{end} leave a memory of {} bytes", memory.length());
}

/// # Safety
/// Eight mapped bytes, aligned, only ever accessed atomically while a peer or another thread can reach them, and mapped
/// for as long as the reference is used.
unsafe fn word<'a>(at: *mut u8) -> &'a AtomicU64 {
    // SAFETY: as the caller promises.
    unsafe { AtomicU64::from_ptr(at.cast()) }
}

/// # Safety
/// As [`word`], for one byte; it needs no alignment.
unsafe fn byte<'a>(at: *mut u8) -> &'a AtomicU8 {
    // SAFETY: as the caller promises.
    unsafe { AtomicU8::from_ptr(at) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Mapping;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn store_then_load_gives_the_bytes_and_leaves_the_rest(offset in 0usize..200, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mapping = Mapping::new(600).expect("memory");
            store(&mapping, 0, &[0xee; 600]);
            store(&mapping, offset, &bytes);
            let mut all = [0; 600];
            load(&mapping, 0, &mut all);
            let end = offset + bytes.len();
            prop_assert_eq!(&all[offset..end], &bytes[..]);
            prop_assert!(all[..offset].iter().chain(&all[end..]).all(|&byte| byte == 0xee));
            let mut some = vec![0; bytes.len()];
            load(&mapping, offset, &mut some);
            prop_assert_eq!(some, bytes);
        }
    }

    #[test]
    #[should_panic(expected = "leave a memory")]
    fn a_load_out_of_bounds_panics() {
        let mapping = Mapping::new(1).expect("memory");
        load(&mapping, mapping.length() - 3, &mut [0; 4]);
    }
}
