//! Pages of a peer that we trust: mapped here, and handed over to us part by part.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{fcntl_get_seals, fstat};

use super::mapping::SEALS;
use super::pool::IdleBlock;
use super::volatile::take_turn;
use super::{Buffer, Slab};
use crate::sync::locks::{Mutex, MutexGuard};

/// A file of a peer, mapped for reading and writing.
pub(crate) struct Foreign {
    slab: Arc<Slab>,
    /// Threads of this process take turns that access it where it is not handed over.
    turns: RwLock<()>,
}

impl Foreign {
    /// Maps what a peer has given, if it is what it has to be: sealed, and as long as the peer says. `tether` is held until it is
    /// unmapped.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(file: &OwnedFd, length: u64, tether: &Arc<OwnedFd>) -> Result<Self, &'static str> {
        let seals = fcntl_get_seals(file).map_err(|_| "pages in a descriptor that is no memfd")?;
        if !seals.contains(SEALS) {
            return Err("pages in a file that is not sealed, so that it could be cut off under us");
        }
        let stat = fstat(file).map_err(|_| "pages in a file whose size is not known")?;
        let is_whole = length > 0 && length.is_multiple_of(rustix::param::page_size() as u64);
        if !is_whole || u64::try_from(stat.st_size) != Ok(length) {
            return Err("pages in a file of another length than it says");
        }
        let length = usize::try_from(length).map_err(|_| "more pages than there can be")?;
        let slab = Slab::of_peer(file, length, Arc::clone(tether));
        let slab = slab.map_err(|_| "pages that could not be mapped here")?;
        Ok(Self { slab, turns: RwLock::new(()) })
    }

    pub(crate) fn slab(&self) -> &Arc<Slab> {
        &self.slab
    }

    /// Does `act` when it is this thread's turn to access what is not handed over.
    pub(crate) fn in_turn<R>(&self, is_writing: bool, act: impl FnOnce() -> R) -> R {
        take_turn(&self.turns, is_writing, act)
    }

    /// The buffer of `length` bytes from `start` on, which the peer has handed over as `token`; `None` if they are not all here.
    /// When it is gone `returns` is told.
    pub(crate) fn buffer(&self, start: u64, length: u64, token: u32, returns: &Arc<Returns>) -> Option<Buffer> {
        let end = start.checked_add(length)?;
        let (start, length) = (usize::try_from(start).ok()?, usize::try_from(length).ok()?);
        if end > self.slab.mapping().length() as u64 || length == 0 {
            return None;
        }
        let block = IdleBlock::of_peer(returns.spare(), &self.slab, (start, length), (returns, token));
        Some(Buffer::of_block(block, length))
    }
}

/// Blocks of one peer that are to go back to it.
pub(crate) struct Returns {
    gone: Mutex<Gone>,
    is_any: AtomicBool,
    /// Called when there is one, from whatever thread has dropped it.
    told: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Gone {
    blocks: Vec<IdleBlock>,
    /// To be used again, so that nothing is allocated for the next.
    spare: Vec<IdleBlock>,
    is_closed: bool,
}

/// Of these, so many are kept.
const MOST_SPARE: usize = 256;

impl Returns {
    pub(crate) fn new(told: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { gone: Mutex::default(), is_any: AtomicBool::new(false), told: Box::new(told) })
    }

    /// All buffers in `block` are gone.
    pub(crate) fn push(&self, block: IdleBlock) {
        let mut gone = self.gone();
        if gone.is_closed {
            drop(gone);
            // Perhaps the last of its pages: they are unmapped.
            return drop(block);
        }
        gone.blocks.push(block);
        drop(gone);
        if !self.is_any.swap(true, Ordering::AcqRel) {
            (self.told)();
        }
    }

    /// Takes what is to go back: what the peer calls it.
    pub(crate) fn take(&self, mut each: impl FnMut(u32)) {
        if !self.is_any.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut gone = self.gone();
        let Gone { blocks, spare, .. } = &mut *gone;
        for block in blocks.drain(..) {
            block.token().into_iter().for_each(&mut each);
            if spare.len() < MOST_SPARE {
                spare.push(block);
            }
        }
    }

    /// A block that has gone back is used again.
    pub(crate) fn keep(&self, block: IdleBlock) {
        let mut gone = self.gone();
        if gone.spare.len() < MOST_SPARE && !gone.is_closed {
            gone.spare.push(block);
        }
    }

    fn spare(&self) -> Option<IdleBlock> {
        self.gone().spare.pop()
    }

    /// The peer has given up the pages: nothing here keeps them.
    pub(crate) fn forget(&self, pages: &Foreign) {
        let unused: Vec<_> = self.gone().spare.extract_if(.., |block| Arc::ptr_eq(block.slab(), &pages.slab)).collect();
        drop(unused);
    }

    fn gone(&self) -> MutexGuard<'_, Gone> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody asks any more: the connection has ended. Pages are unmapped as their last buffers go.
    pub(crate) fn close(&self) {
        let mut gone = self.gone();
        gone.is_closed = true;
        let left = (std::mem::take(&mut gone.blocks), std::mem::take(&mut gone.spare));
        drop(gone);
        drop(left);
    }
}
