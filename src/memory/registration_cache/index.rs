//! The exact index: which entry contains a range, and which was not used for longest.

use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map};
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::entry::{Entry, Recency};
use super::slots;
use super::state::Claim;
use super::wanted::Wanted;
use crate::memory::Owners;

/// The entries that can be hit. None contains another of the same access, so in the order of their first bytes
/// they are in the order of their last bytes too, and one look finds what contains a range, however they overlap.
#[derive(Default)]
pub(super) struct Index {
    ranges: BTreeMap<(u64, usize), Node>,
    /// By what `recency` said last: it can only have become later.
    recent: BTreeSet<(Recency, u32)>,
    /// How many entries own what is known by that address.
    owners: HashMap<usize, usize>,
    /// Where the search for last owners goes on.
    cursor: (u64, usize),
}

struct Node {
    entry: &'static Entry,
    end: usize,
    recency: Recency,
    /// What it owns, if that can be known.
    owner: Option<usize>,
    /// Since when it has looked unused, and what `recency` said then.
    quiet: (Recency, Instant),
}

/// After that time the registration of what perhaps nobody else owns is given up.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// How many entries that turn out to be in use or used lately one eviction looks at. Up to that many, it finds the
/// least recently used exactly.
const EXAMINED: usize = 256;

impl Index {
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &'static Entry> {
        self.ranges.values().map(|node| node.entry)
    }

    /// The entry that contains `wanted`.
    pub(super) fn find(&self, wanted: &Wanted) -> Option<&'static Entry> {
        let (_, node) = self.ranges.range((wanted.owner, 0)..=(wanted.owner, wanted.base)).next_back()?;
        (wanted.end <= node.end).then_some(node.entry)
    }

    /// Those that `range` contains.
    pub(super) fn contained(&self, range: &Wanted) -> Vec<&'static Entry> {
        let from = self.ranges.range((range.owner, range.base)..(range.owner, range.end));
        from.map(|(_, node)| node).take_while(|node| node.end <= range.end).map(|node| node.entry).collect()
    }

    /// Adds an entry that neither contains another nor is contained.
    pub(super) fn insert(&mut self, entry: &'static Entry, now: Instant) {
        let (range, recency) = (entry.range(), entry.recency());
        let owner = match entry.owners() {
            // Of `Bytes` the id would change with the number of owners.
            Some(Owners::Counted { id, owners: 2.. }) => Some(id),
            _ => None,
        };
        if let Some(owner) = owner {
            *self.owners.entry(owner).or_default() += 1;
        }
        let quiet = (recency, now);
        self.ranges.insert((range.owner, range.base), Node { entry, end: range.end, recency, owner, quiet });
        self.recent.insert((recency, entry.number));
    }

    pub(super) fn remove(&mut self, entry: &'static Entry) {
        let range = entry.range();
        if let Some(node) = self.ranges.remove(&(range.owner, range.base)) {
            self.recent.remove(&(node.recency, entry.number));
            if let Some(owner) = node.owner
                && let hash_map::Entry::Occupied(mut count) = self.owners.entry(owner)
            {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    /// Closes the least recently used idle entries until `enough`, which is told of each, says so; they stay in the
    /// index. If there is not enough among those that one call looks at, none is closed unless `partly`.
    pub(super) fn close_oldest(
        &mut self,
        period: u64,
        partly: bool,
        mut enough: impl FnMut(Option<&'static Entry>) -> bool,
    ) -> Vec<(&'static Entry, Claim)> {
        let mut chosen: Vec<&'static Entry> = Vec::new();
        let mut examined = EXAMINED.min(2 * self.len());
        let mut after = Bound::Unbounded;
        while !enough(chosen.last().copied()) {
            match self.next_oldest(&mut after, &mut examined, period) {
                Some(entry) => chosen.push(entry),
                None if partly => break,
                None => return Vec::new(),
            }
        }
        chosen.into_iter().filter_map(|entry| Some((entry, close(entry)?))).collect()
    }

    /// The least recently used idle entry behind `after`.
    fn next_oldest(
        &mut self,
        after: &mut Bound<(Recency, u32)>,
        examined: &mut usize,
        period: u64,
    ) -> Option<&'static Entry> {
        loop {
            let &(recency, number) = self.recent.range((*after, Bound::Unbounded)).next()?;
            let entry = slots::entry(number)?;
            let in_use = !evictable(entry);
            if in_use {
                // To be in use is to be used.
                entry.touch(period);
            }
            if *examined > 0 && entry.recency() > recency {
                *examined -= 1;
                self.renew(entry);
            } else if in_use {
                return None;
            } else {
                *after = Bound::Excluded((recency, number));
                return Some(entry);
            }
        }
    }

    /// Closes, of the next `count` entries in turn, those that are idle and whose memory only entries own, or perhaps only
    /// entries and nobody used it lately.
    pub(super) fn close_ownerless(&mut self, count: usize, now: Instant) -> Vec<(&'static Entry, Claim)> {
        let mut closed = Vec::new();
        let mut left = count.min(self.len());
        while left > 0 {
            let mut last = None;
            for (key, node) in self.ranges.range_mut(self.cursor..).take(left) {
                left -= 1;
                last = Some(*key);
                if node.entry.state().is_idle() && node.is_ownerless(&self.owners, now) {
                    closed.extend(close(node.entry).map(|claim| (node.entry, claim)));
                }
            }
            // Behind the last it begins anew.
            self.cursor = last.filter(|_| left == 0).map_or((0, 0), |(owner, base)| (owner, base + 1));
        }
        closed
    }

    /// Closes all idle entries.
    pub(super) fn close_idle(&mut self) -> Vec<(&'static Entry, Claim)> {
        self.entries().filter_map(|entry| Some((entry, close(entry)?))).collect()
    }

    fn renew(&mut self, entry: &'static Entry) {
        let (range, recency) = (entry.range(), entry.recency());
        if let Some(node) = self.ranges.get_mut(&(range.owner, range.base)) {
            self.recent.remove(&(node.recency, entry.number));
            node.recency = recency;
            self.recent.insert((recency, entry.number));
        }
    }
}

impl Node {
    fn is_ownerless(&mut self, of_entries: &HashMap<usize, usize>, now: Instant) -> bool {
        match self.entry.owners() {
            Some(Owners::Counted { owners, .. }) => {
                owners <= self.owner.and_then(|owner| of_entries.get(&owner)).copied().unwrap_or(1)
            }
            Some(Owners::Unknown) => {
                let recency = self.entry.recency();
                if self.quiet.0 != recency {
                    self.quiet = (recency, now);
                }
                now.saturating_duration_since(self.quiet.1) >= QUIET
            }
            Some(Owners::Eternal) | None => false,
        }
    }
}

fn evictable(entry: &Entry) -> bool {
    #[cfg(test)]
    if super::mutation::Mutation::PinNotChecked.is_on() {
        return true;
    }
    entry.state().is_idle()
}

fn close(entry: &Entry) -> Option<Claim> {
    #[cfg(test)]
    if super::mutation::Mutation::PinNotChecked.is_on() {
        let _ = entry.state().doom();
        return Some(Claim { hits: 0 });
    }
    entry.state().close_idle()
}
