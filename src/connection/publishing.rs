//! What the engines of this process have for who publishes metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::domain_grants;
use super::engine::Engine;
use crate::CacheStatistics;
use crate::telemetry::{ConnectionId, Meters, Tally};
use crate::transport::Transport;

/// What there is on one device now.
#[derive(Debug, Default)]
pub(crate) struct Now {
    pub(crate) connections: usize,
    pub(crate) operations: usize,
    pub(crate) frames: usize,
    pub(crate) grants: usize,
    pub(crate) messages: usize,
    /// By a number of the cache: engines of one domain share it.
    pub(crate) caches: BTreeMap<usize, CacheStatistics>,
    /// Those that are to be told one by one.
    pub(crate) each: Vec<(ConnectionId, String, Tally)>,
}

/// What all engines have now, by the meters of their devices, which have what was counted.
pub(crate) fn gather() -> Vec<(Arc<Meters>, Now)> {
    let mut devices: Vec<(Arc<Meters>, Now)> = Vec::new();
    for engine in domain_grants::engines() {
        let index = devices.iter().position(|(meters, _)| Arc::ptr_eq(meters, &engine.meters));
        let index = index.unwrap_or_else(|| {
            devices.push((Arc::clone(&engine.meters), Now::default()));
            devices.len() - 1
        });
        engine.tell(&mut devices[index].1);
    }
    devices
}

impl<T: Transport> Engine<T> {
    fn tell(self: &Arc<Self>, now: &mut Now) {
        now.caches.insert(Arc::as_ptr(&self.cache).addr(), self.cache.statistics());
        self.with(|core| {
            now.operations += core.operations.count_in_flight();
            for (_, link) in core.links.iter_mut().flatten() {
                self.meters.take(&mut link.tally);
                let Some(identity) = link.identity.as_ref().filter(|_| link.ending.get().is_none()) else { continue };
                now.connections += 1;
                now.frames += link.outstanding;
                now.grants += link.grants.table().filter(|grant| !grant.is_offer).count();
                now.messages += link.conversations.iter().map(|conversation| conversation.messages()).sum::<usize>();
                if self.config.metrics_per_connection {
                    now.each.push((identity.connection, identity.peer.clone(), link.tally));
                }
            }
        });
    }
}
