//! What a run has covered.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;

use zcmi::ErrorKind;
use zcmi::internals::simulation::{Fault, Statistics, note_progress};

/// Every operation of a world, from begin to end.
#[derive(Default)]
pub(crate) struct Ledger {
    begun: Cell<u64>,
    ended: Cell<u64>,
    counts: RefCell<BTreeMap<&'static str, u64>>,
    /// Bytes that messages, reads and writes had.
    sizes: Cell<Moved>,
    errors: RefCell<BTreeMap<String, u64>>,
}

impl Ledger {
    /// An operation begins. What is answered must end once, well or not.
    pub(crate) fn begin(&self, name: &'static str) -> Begun<'_> {
        self.begun.set(self.begun.get() + 1);
        Begun { ledger: self, name, has_ended: false }
    }

    /// Something of no length.
    pub(crate) fn count(&self, name: &'static str) {
        *self.counts.borrow_mut().entry(name).or_default() += 1;
    }

    /// A message, a read or a write had so many bytes.
    pub(crate) fn moved(&self, bytes: usize) {
        self.sizes.set(self.sizes.get().and(Moved {
            operations: 1,
            long: u64::from(bytes > 1 << 20),
            bytes,
            longest: bytes,
        }));
    }

    pub(crate) fn error(&self, kind: ErrorKind) {
        *self.errors.borrow_mut().entry(format!("{kind:?}")).or_default() += 1;
    }

    /// Operations that have begun and not ended.
    pub(crate) fn open(&self) -> u64 {
        self.begun.get() - self.ended.get()
    }
}

/// What was moved in all.
#[derive(Clone, Copy, Default)]
struct Moved {
    operations: u64,
    /// Those above 1 MiB.
    long: u64,
    bytes: usize,
    longest: usize,
}

impl Moved {
    fn and(self, other: Self) -> Self {
        Self {
            operations: self.operations + other.operations,
            long: self.long + other.long,
            bytes: self.bytes + other.bytes,
            longest: self.longest.max(other.longest),
        }
    }
}

/// An operation that has begun.
pub(crate) struct Begun<'a> {
    ledger: &'a Ledger,
    name: &'static str,
    has_ended: bool,
}

impl Begun<'_> {
    /// It has ended.
    pub(crate) fn end(mut self) {
        self.has_ended = true;
        self.ledger.count(self.name);
        note_progress();
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        // Also one whose node has died with it.
        self.ledger.ended.set(self.ledger.ended.get() + 1);
    }
}

/// Of many worlds.
#[derive(Default)]
pub(crate) struct Coverage {
    seeds: u64,
    with_faults: u64,
    time: u64,
    statistics: Statistics,
    counts: BTreeMap<&'static str, u64>,
    sizes: Moved,
    errors: BTreeMap<String, u64>,
}

impl Coverage {
    pub(crate) fn add(&mut self, ledger: &Ledger, statistics: &Statistics, time: u64, with_faults: bool) {
        self.seeds += 1;
        self.with_faults += u64::from(with_faults);
        self.time += time;
        self.sizes = self.sizes.and(ledger.sizes.get());
        for (name, count) in &*ledger.counts.borrow() {
            *self.counts.entry(name).or_default() += count;
        }
        for (kind, count) in &*ledger.errors.borrow() {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        let all = &mut self.statistics;
        all.steps += statistics.steps;
        all.polls += statistics.polls;
        all.jobs += statistics.jobs;
        all.connections += statistics.connections;
        all.rnr += statistics.rnr;
        all.injected_rnr += statistics.injected_rnr;
        for (name, count) in &statistics.requests {
            *all.requests.entry(name).or_default() += count;
        }
        for (fault, count) in &statistics.faults {
            *all.faults.entry(*fault).or_default() += count;
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.with_faults += other.with_faults;
        self.time += other.time;
        self.sizes = self.sizes.and(other.sizes);
        for (name, count) in other.counts {
            *self.counts.entry(name).or_default() += count;
        }
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        let (all, more) = (&mut self.statistics, other.statistics);
        all.steps += more.steps;
        all.polls += more.polls;
        all.jobs += more.jobs;
        all.connections += more.connections;
        all.rnr += more.rnr;
        all.injected_rnr += more.injected_rnr;
        for (name, count) in more.requests {
            *all.requests.entry(name).or_default() += count;
        }
        for (fault, count) in more.faults {
            *all.faults.entry(fault).or_default() += count;
        }
    }

    /// Operations that never ran, and faults that never hit.
    pub(crate) fn missing(&self, names: &[&'static str], faults: &[Fault]) -> Vec<String> {
        let names = names.iter().filter(|name| !self.counts.contains_key(*name)).map(|name| (*name).to_owned());
        let faults = faults.iter().filter(|fault| !self.statistics.faults.contains_key(fault));
        let long = (self.sizes.long == 0).then(|| "anything above 1 MiB".to_owned());
        names.chain(faults.map(|fault| format!("{fault:?}"))).chain(long).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = &self.statistics;
        let seconds = self.time as f64 / 1e9;
        writeln!(
            f,
            "  {} seeds, {} of them with faults; {seconds:.0} s of virtual time",
            self.seeds, self.with_faults
        )?;
        writeln!(
            f,
            "  {} connections, {} steps, {} polls, {} jobs; receiver not ready {} times by a fault, {} without",
            all.connections, all.steps, all.polls, all.jobs, all.injected_rnr, all.rnr
        )?;
        let Moved { operations, long, bytes, longest } = self.sizes;
        writeln!(
            f,
            "  sizes: {operations} messages, reads and writes of {} MiB in all, {long} above 1 MiB, the longest {} MiB",
            bytes >> 20,
            longest >> 20
        )?;
        let list = |counts: Vec<String>| counts.join(", ");
        writeln!(
            f,
            "  operations: {}",
            list(self.counts.iter().map(|(name, count)| format!("{name} {count}")).collect())
        )?;
        writeln!(
            f,
            "  requests: {}",
            list(all.requests.iter().map(|(name, count)| format!("{name} {count}")).collect())
        )?;
        writeln!(
            f,
            "  faults: {}",
            list(all.faults.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect())
        )?;
        write!(f, "  errors: {}", list(self.errors.iter().map(|(kind, count)| format!("{kind} {count}")).collect()))
    }
}
