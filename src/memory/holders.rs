//! The peers whose own processors access exposed memory.

use std::sync::{Arc, PoisonError};

use super::{GrantState, Tether};
use crate::sync::locks::{Mutex, MutexGuard};

/// Those of the grants that only their holders can end.
#[derive(Default)]
pub(super) struct Holders(Mutex<Vec<Holder>>);

struct Holder {
    tether: Arc<Tether>,
    state: Arc<GrantState>,
}

impl Holders {
    /// There is one more grant of a peer's.
    pub(super) fn add(&self, tether: &Arc<Tether>, state: &Arc<GrantState>) {
        let mut holders = self.lock();
        // When it is full only, so that a grant costs the same however many there are.
        if holders.len() == holders.capacity() {
            holders.retain(|holder| !holder.state.has_agreed() && !holder.tether.is_cut());
            let left = holders.len();
            holders.reserve(left.max(8));
        }
        holders.push(Holder { tether: Arc::clone(tether), state: Arc::clone(state) });
    }

    /// The peers of whom it is not certain that they do not access the memory any more, each once.
    pub(super) fn take(&self) -> Vec<Arc<Tether>> {
        let holders = std::mem::take(&mut *self.lock());
        let may_access = holders.into_iter().filter(|holder| !holder.state.has_agreed());
        let mut tethers: Vec<_> = may_access.map(|holder| holder.tether).collect();
        tethers.sort_unstable_by_key(Arc::as_ptr);
        tethers.dedup_by(|tether, other| Arc::ptr_eq(tether, other));
        tethers.retain(|tether| !tether.is_cut());
        tethers
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Holder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn grant() -> Arc<GrantState> {
        Arc::new(GrantState::default())
    }

    #[test]
    fn each_peer_that_may_access_the_memory_is_there_once() {
        let holders = Holders::default();
        let peers: Vec<_> = (0..3).map(|_| Tether::new().expect("a pipe")).collect();
        for _ in 0..100 {
            peers.iter().for_each(|(tether, _)| holders.add(tether, &grant()));
        }
        let (agrees, _its_end) = Tether::new().expect("a pipe");
        let agreed = grant();
        holders.add(&agrees, &agreed);
        agreed.agreed();
        let (dies, its_end) = Tether::new().expect("a pipe");
        holders.add(&dies, &grant());
        drop(its_end);
        let left = holders.take();
        assert_eq!(left.len(), peers.len());
        for (tether, _) in &peers {
            assert!(left.iter().any(|known| Arc::ptr_eq(known, tether)));
        }
    }

    #[test]
    fn grants_that_are_over_do_not_gather() {
        let holders = Holders::default();
        let (stays, _its_end) = Tether::new().expect("a pipe");
        holders.add(&stays, &grant());
        for _ in 0..1000 {
            let agreed = grant();
            holders.add(&stays, &agreed);
            agreed.agreed();
            let (dies, its_end) = Tether::new().expect("a pipe");
            holders.add(&dies, &grant());
            drop(its_end);
        }
        let kept = holders.lock().len();
        assert!(kept < 32, "{kept} are kept");
        assert_eq!(holders.take().len(), 1);
    }
}
