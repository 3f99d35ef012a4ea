//! What is left at the end of a world.

use std::collections::BTreeMap;

use super::state::State;

impl State {
    /// What nodes that live still have: nothing, when their programs have ended.
    pub(super) fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        let mut count = |what: &str, count: usize| {
            if count > 0 {
                leaks.push(format!("{count} {what}"));
            }
        };
        count("queues", self.queues.iter().flatten().count());
        count("channels in use", self.queues.iter().flatten().map(|queue| queue.pairs()).sum());
        count("receives", self.queues.iter().flatten().map(|queue| queue.receives.len()).sum());
        count("queue pairs", self.pairs.iter().flatten().count());
        count("windows", self.windows.iter().flatten().count());
        count("ends of connections", self.endpoints.iter().flatten().count());
        count("listeners", self.live_listeners());
        let mut regions = BTreeMap::<String, usize>::new();
        for region in self.nodes.iter().flat_map(|node| node.books.regions()) {
            *regions.entry(region.describe()).or_default() += 1;
        }
        for (region, times) in regions {
            count(&format!("registrations of {region}"), times);
        }
        leaks
    }
}
