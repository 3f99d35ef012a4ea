//! The one word that decides who may use an entry and who takes it apart.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many leases hold an entry, how often it was hit, and whether it is open to more.
///
/// Pinning counts the hit too: a hit costs one atomic addition, and threads share no counter besides. What an entry
/// holds belongs to whoever closed it idle ([`close_idle`](Self::close_idle)) or, if it was doomed in use, to whoever
/// brought the pins to zero: exactly one of them is told so.
pub(super) struct State {
    word: AtomicU64,
    /// Hits that have left the word, in steps of [`STEP`].
    steps: AtomicU32,
}

const PIN: u64 = 1;
/// Half of what the pins' bits can hold: more leases than this are refused, in time.
const CROWDED: u64 = 1 << 20;
const PINS: u64 = (1 << 21) - 1;
/// Not to be pinned any more.
const CLOSED: u64 = 1 << 21;
/// The one who brings the pins to zero takes the entry apart.
const DOOMED: u64 = 1 << 22;
const HIT: u64 = 1 << 23;
/// The hits are about to leave their bits.
const FULL: u64 = 1 << 63;
const STEP: u64 = 1 << 39;

/// The right and the duty to take apart what an entry holds.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Claim {
    /// How often the entry was hit.
    pub(super) hits: u64,
}

impl State {
    /// Closed and held by nobody.
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(CLOSED), steps: AtomicU32::new(0) }
    }

    /// Opens a closed entry with one pin, that of the lease it is made for. What was written to the entry before is seen
    /// by whoever pins it.
    pub(super) fn open_pinned(&self) {
        // Pins of those who are about to find that it was closed stay: they will be undone.
        self.word.fetch_sub(CLOSED - PIN, Ordering::Release);
    }

    /// Pins the entry; a refused pin must be undone like any other.
    #[inline]
    pub(super) fn pin(&self) -> bool {
        let before = self.word.fetch_add(PIN + HIT, Ordering::Acquire);
        before & (CLOSED | CROWDED | FULL) == 0 || self.pin_despite(before)
    }

    #[cold]
    fn pin_despite(&self, before: u64) -> bool {
        if before & FULL != 0 {
            let relieve = |word: u64| (word & FULL != 0).then(|| word - STEP * HIT);
            if self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, relieve).is_ok() {
                self.steps.fetch_add(1, Ordering::Relaxed);
            }
        }
        before & (CLOSED | CROWDED) == 0
    }

    /// Ends a lease.
    #[inline]
    pub(super) fn unpin(&self) -> Option<Claim> {
        self.release(PIN)
    }

    /// Takes a pin back that was refused or hit something else.
    pub(super) fn undo(&self) -> Option<Claim> {
        self.release(PIN + HIT)
    }

    /// Closes the entry if nobody has it pinned.
    pub(super) fn close_idle(&self) -> Option<Claim> {
        self.claim(|word| word & (PINS | CLOSED) == 0)
    }

    /// Closes the entry at once, and leaves it to the last who has it pinned: that can be the caller.
    pub(super) fn doom(&self) -> Option<Claim> {
        self.word.fetch_or(CLOSED | DOOMED, Ordering::AcqRel);
        self.claim_doomed()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.word.load(Ordering::Relaxed) & PINS == 0
    }

    pub(super) fn hits(&self) -> u64 {
        self.word.load(Ordering::Relaxed) / HIT + u64::from(self.steps.load(Ordering::Relaxed)) * STEP
    }

    #[inline]
    fn release(&self, what: u64) -> Option<Claim> {
        let before = self.word.fetch_sub(what, Ordering::Release);
        if before & DOOMED == 0 { None } else { self.claim_doomed() }
    }

    #[cold]
    fn claim_doomed(&self) -> Option<Claim> {
        self.claim(|word| word & DOOMED != 0 && word & PINS == 0)
    }

    /// Leaves the word as [`new`](Self::new) made it, if `may` says so.
    fn claim(&self, may: impl Fn(u64) -> bool) -> Option<Claim> {
        // Without pins there are none that will be undone, so the hits are exact.
        let claim = |word| may(word).then_some(CLOSED);
        // Acquires what all the leases did: the memory may go.
        let word = self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, claim).ok()?;
        let steps = self.steps.swap(0, Ordering::Relaxed);
        Some(Claim { hits: word / HIT + u64::from(steps) * STEP })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_entry_cannot_be_closed() {
        let state = State::new();
        assert!(!state.pin(), "closed at first");
        assert_eq!(state.undo(), None);
        state.open_pinned();
        assert_eq!(state.close_idle(), None);
        assert!(state.pin());
        assert_eq!((state.unpin(), state.unpin()), (None, None));
        assert_eq!(state.close_idle(), Some(Claim { hits: 1 }));
        assert_eq!(state.close_idle(), None, "there is nothing to claim twice");
        assert_eq!(state.hits(), 0);
    }

    #[test]
    fn a_doomed_entry_is_claimed_by_its_last_lease() {
        let state = State::new();
        state.open_pinned();
        assert!(state.pin());
        assert_eq!(state.doom(), None);
        assert!(!state.pin());
        assert_eq!((state.undo(), state.unpin()), (None, None));
        assert_eq!(state.unpin(), Some(Claim { hits: 1 }));
        state.open_pinned();
        assert_eq!(state.unpin(), None);
        assert_eq!(state.doom(), Some(Claim { hits: 0 }), "idle: it falls to the caller");
    }

    #[test]
    fn a_refused_pin_may_be_undone_in_the_next_life() {
        let state = State::new();
        assert!(!state.pin());
        state.open_pinned();
        assert_eq!(state.unpin(), None);
        assert_eq!(state.close_idle(), None, "it looks used for a moment");
        assert_eq!(state.undo(), None);
        assert_eq!(state.close_idle(), Some(Claim { hits: 0 }));
    }

    #[test]
    fn hits_outgrow_their_bits_without_loss() {
        let state = State::new();
        state.open_pinned();
        state.word.fetch_add((FULL / HIT - 1) * HIT, Ordering::Relaxed);
        for _ in 0..3 {
            assert!(state.pin());
            assert_eq!(state.unpin(), None);
        }
        assert_eq!(state.word.load(Ordering::Relaxed) & FULL, 0);
        assert_eq!(state.hits(), FULL / HIT + 2);
        assert_eq!(state.unpin(), None);
        assert_eq!(state.close_idle(), Some(Claim { hits: FULL / HIT + 2 }));
    }

    #[test]
    fn too_many_leases_are_refused() {
        let state = State::new();
        state.open_pinned();
        state.word.fetch_add(CROWDED - 1, Ordering::Relaxed);
        assert!(!state.pin());
        assert_eq!(state.undo(), None);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::atomic::AtomicUsize;
    use loom::sync::Arc;
    use loom::thread;

    /// An entry that serves `range` as long as it is open, and what it holds.
    struct Slot {
        state: State,
        range: AtomicUsize,
        held: AtomicUsize,
    }

    impl Slot {
        fn opened(range: usize) -> Arc<Self> {
            let slot = Self { state: State::new(), range: AtomicUsize::new(0), held: AtomicUsize::new(0) };
            slot.open(range);
            assert_eq!(slot.state.unpin(), None);
            Arc::new(slot)
        }

        fn open(&self, range: usize) {
            self.range.store(range, Ordering::Relaxed);
            self.held.store(1, Ordering::Relaxed);
            self.state.open_pinned();
        }

        /// What a hit does: pin, look whether it is still what was wanted, use, unpin. Answers whether it was.
        fn hit(&self, wanted: usize) -> bool {
            if !self.state.pin() || self.range.load(Ordering::Relaxed) != wanted {
                self.take_apart(self.state.undo());
                return false;
            }
            assert_eq!(self.held.load(Ordering::Relaxed), 1, "used after it was taken apart");
            assert_eq!(self.range.load(Ordering::Relaxed), wanted, "another range while it is in use");
            self.take_apart(self.state.unpin());
            true
        }

        fn take_apart(&self, claim: Option<Claim>) -> bool {
            if claim.is_some() {
                assert_eq!(self.held.swap(0, Ordering::Relaxed), 1, "taken apart twice");
            }
            claim.is_some()
        }
    }

    #[test]
    fn loom_a_hit_never_uses_what_eviction_took_apart() {
        loom::model(|| {
            let slot = Slot::opened(1);
            let other = Arc::clone(&slot);
            let hitter = thread::spawn(move || other.hit(1));
            slot.take_apart(slot.state.close_idle());
            hitter.join().expect("no assertion failed");
        });
    }

    #[test]
    fn loom_a_doomed_entry_is_taken_apart_once() {
        // Three threads: not every way to interrupt them more than thrice, or than `LOOM_MAX_PREEMPTIONS` says.
        let mut model = loom::model::Builder::new();
        model.preemption_bound.get_or_insert(3);
        model.check(|| {
            let slot = Slot::opened(1);
            let hitters: Vec<_> = (0..2)
                .map(|_| {
                    let slot = Arc::clone(&slot);
                    thread::spawn(move || slot.hit(1))
                })
                .collect();
            slot.take_apart(slot.state.doom());
            for hitter in hitters {
                hitter.join().expect("no assertion failed");
            }
            assert_eq!(slot.held.load(Ordering::Relaxed), 0, "nobody took it apart");
        });
    }

    #[test]
    fn loom_an_entry_that_is_used_again_does_not_pass_for_the_old_one() {
        loom::model(|| {
            let slot = Slot::opened(1);
            let other = Arc::clone(&slot);
            let hitter = thread::spawn(move || other.hit(1));
            if slot.take_apart(slot.state.close_idle()) {
                slot.open(2);
                slot.take_apart(slot.state.unpin());
            }
            hitter.join().expect("no assertion failed");
            let range = slot.range.load(Ordering::Relaxed);
            assert!(slot.hit(range));
            assert!(slot.take_apart(slot.state.close_idle()), "a pin was lost");
        });
    }
}
