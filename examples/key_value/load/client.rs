//! One client of the load generator.

use std::sync::Arc;
use std::time::Instant;

use rand::RngExt;

use super::Shared;
use super::tally::{Kind, Tally};
use crate::NAME;
use crate::common::{Failure, Result, is_loss, say};
use crate::store::Store;

/// A client, which alone puts the keys that are its number, modulo the number of clients.
pub(crate) struct LoadClient {
    shared: Arc<Shared>,
    number: usize,
    store: Store,
    tally: Tally,
}

impl LoadClient {
    /// A client that has done nothing yet.
    pub(crate) fn new(shared: Arc<Shared>, number: usize, store: Store) -> Self {
        let tally = Tally::new(shared.options.duration());
        Self { shared, number, store, tally }
    }

    /// Puts each of its keys once.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        let (keys, clients) = (self.shared.options.keys as usize, self.shared.options.clients as usize);
        let page = self.page().await?;
        for key in (self.number..keys).step_by(clients) {
            let (sequence, value) = self.shared.book.next(key);
            self.store.put(&self.shared.options.name(key), &value).await?;
            page.learn(key, sequence);
        }
        Ok(())
    }

    /// Reads and puts until the time is over.
    pub(crate) async fn run(mut self, begun: Instant) -> Result<Tally> {
        let until = begun + self.shared.options.duration();
        while Instant::now() < until {
            let key = self.shared.keys.pick(&mut rand::rng());
            let reads = rand::rng().random_range(0..100) < self.shared.options.reads;
            let done = match self.own(key).filter(|_| !reads) {
                Some(key) => self.put(key, begun).await,
                None => self.get(key, begun).await,
            };
            match done {
                Err(failure) if is_loss(&failure) => {
                    self.tally.losses += 1;
                    say(format_args!("{NAME}: client {}: {failure}; connecting again", self.number));
                }
                done => done?,
            }
        }
        self.tally.counts = self.store.counts();
        self.store.close().await?;
        Ok(self.tally)
    }

    /// The transport that it uses.
    pub(crate) fn transport(&self) -> Option<&'static str> {
        self.store.transport()
    }

    async fn get(&mut self, key: usize, begun: Instant) -> Result<()> {
        let page = self.page().await?;
        let known = page.known(key);
        let start = Instant::now();
        let value = self.store.get(&self.shared.options.name(key)).await?;
        self.tally.count(Kind::Get, start - begun, start.elapsed());
        self.tally.absent += u64::from(value.is_none());
        self.shared.book.check(&page, key, known, value.as_deref()).map_err(Failure::Other)
    }

    async fn put(&mut self, key: usize, begun: Instant) -> Result<()> {
        let page = self.page().await?;
        let (sequence, value) = self.shared.book.next(key);
        let start = Instant::now();
        match self.store.put(&self.shared.options.name(key), &value).await {
            Ok(()) => page.learn(key, sequence),
            Err(failure) => {
                page.leave_open(key);
                return Err(failure);
            }
        }
        self.tally.count(Kind::Put, start - begun, start.elapsed());
        Ok(())
    }

    /// What is known of the server's table, as it is now.
    async fn page(&mut self) -> Result<Arc<super::book::Page>> {
        let patience = self.shared.options.patience();
        // No loss that one could go on from: so long was waited.
        let incarnation = self.store.ready(patience).await.map_err(|failure| match failure {
            failure if is_loss(&failure) => {
                Failure::Other(format!("no server for {} s: {failure}", patience.as_secs()))
            }
            failure => failure,
        })?;
        Ok(self.shared.book.page(incarnation))
    }

    /// The key near `key` that this client puts, if there is one.
    fn own(&self, key: usize) -> Option<usize> {
        let clients = self.shared.options.clients as usize;
        let own = key - key % clients + self.number;
        (own < self.shared.options.keys as usize).then_some(own)
    }
}
