//! What a run has covered.

use std::collections::BTreeMap;
use std::fmt;

use zcmi::internals::simulation::{Fault, Statistics};

use crate::ledger::{Ledger, Moved};

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
        self.sizes = self.sizes.and(ledger.moved_in_all());
        for (name, count) in &*ledger.counts() {
            *self.counts.entry(name).or_default() += count;
        }
        for (kind, count) in &*ledger.errors() {
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
