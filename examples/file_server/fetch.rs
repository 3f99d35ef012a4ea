//! Fetching a file: several chunks at once, each checked and kept, over as many connections as it takes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::block_in_place;
use tokio::time::Instant;

use crate::NAME;
use crate::common::{Failure, Result, is_loss, say};
use crate::digest::digest;
use crate::part::{Head, Part};
use crate::remote::{Fetched, Place, Remote, Trouble};

/// Version of the journal.
const JOURNAL: u32 = 1;
/// How often a fetch begins anew, or a chunk comes damaged, before that is an error.
const ATTEMPTS: u32 = 3;
/// Connections in a row that may be lost without a chunk.
const FRUITLESS: u32 = 5;

/// How to fetch.
#[derive(Clone, Debug)]
pub(crate) struct How {
    /// Chunks at once.
    pub(crate) in_flight: usize,
    /// Bytes of a chunk, unless an earlier fetch has begun with others.
    pub(crate) chunk: u64,
    /// How long a server is waited for that has gone.
    pub(crate) patience: Duration,
    /// Bytes a second at most.
    pub(crate) rate: Option<u64>,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Bytes of the file.
    pub(crate) length: u64,
    /// Chunks of the file.
    pub(crate) chunks: u64,
    /// Chunks that were fetched and kept by this run.
    pub(crate) fetched: u64,
    /// Chunks that an earlier run had fetched.
    pub(crate) resumed: u64,
    /// Chunks of an earlier run that were not as they were fetched any more.
    pub(crate) damaged: u64,
    /// How often the file had changed, and it was begun anew.
    pub(crate) anew: u32,
    /// Connections that were lost.
    pub(crate) losses: u32,
    /// The SHA-256 of the file, the same at both ends.
    pub(crate) digest: [u8; 32],
    /// The transport of the last connection.
    pub(crate) transport: &'static str,
}

/// A fetch under way.
struct Fetch<'a> {
    path: &'a str,
    how: &'a How,
    part: Part,
    outcome: Outcome,
    /// When the next chunk may be asked for.
    next: Instant,
}

/// Fetches the file at `path` into `target`.
pub(crate) async fn fetch(place: &Place, path: &str, target: &Path, how: &How) -> Result<Outcome> {
    let mut remote = place.connect(how.patience).await?;
    let head = head(&remote, path, how).await.map_err(Failure::from)?;
    let (part, found) = block_in_place(|| Part::open(target, head.clone()))?;
    let mut outcome = Outcome { resumed: found.whole, damaged: found.damaged, ..Outcome::default() };
    if found.was_other {
        say(format_args!("{NAME}: what is there of {path:?} is of another file, or it has changed: beginning anew"));
        outcome.anew = 1;
    }
    let mut fetch = Fetch { path, how, part, outcome, next: Instant::now() };
    let (mut fruitless, mut before, mut changes) = (0, 0, 0);
    loop {
        match fetch.all(&remote).await {
            Ok(()) => break,
            // What it is now is looked at in the next round.
            Err(Trouble::Changed) if changes < ATTEMPTS => changes += 1,
            Err(Trouble::Failure(failure)) if is_loss(&failure) && fruitless < FRUITLESS => {
                say(format_args!("{NAME}: {failure}; connecting again"));
                fetch.outcome.losses += 1;
                fruitless = if fetch.outcome.fetched > before { 0 } else { fruitless + 1 };
                before = fetch.outcome.fetched;
                remote = place.connect(how.patience).await?;
            }
            Err(trouble) => return Err(trouble.into()),
        }
    }
    let Fetch { part, mut outcome, .. } = fetch;
    block_in_place(|| part.finish())?;
    outcome.transport = remote.transport();
    // The file is there, whatever becomes of the connection.
    let _ = remote.close().await;
    Ok(outcome)
}

async fn head(remote: &Remote, path: &str, how: &How) -> std::result::Result<Head, Trouble> {
    let identity = remote.open(path).await?;
    Ok(Head { version: JOURNAL, path: path.to_owned(), identity, chunk: how.chunk })
}

impl Fetch<'_> {
    /// Fetches what is missing, and compares the whole.
    async fn all(&mut self, remote: &Arc<Remote>) -> std::result::Result<(), Trouble> {
        let head = head(remote, self.path, self.how).await?;
        let identity = head.identity;
        if self.part.begin_anew_if_other(head)? {
            say(format_args!("{NAME}: {:?} has changed: beginning anew", self.path));
            self.outcome.anew += 1;
        }
        self.chunks(remote).await?;
        let file = Arc::new(self.part.bytes()?);
        let (theirs, ours) = tokio::join!(remote.digest(self.path, identity), digest(&file, identity.length));
        let ours = ours.map_err(|error| Failure::Other(format!("what was fetched cannot be read again: {error}")))?;
        if theirs? != ours {
            // It was written without a sign, or damaged on the way, or on this disk.
            say(format_args!("{NAME}: {:?} is not what the server has now: beginning anew", self.path));
            self.part.forget()?;
            self.outcome.anew += 1;
            return Err(Trouble::Changed);
        }
        let (length, chunks) = (identity.length, self.part.count());
        self.outcome = Outcome { length, chunks, digest: ours, ..self.outcome.clone() };
        Ok(())
    }

    /// Fetches the chunks that are missing, several at once.
    async fn chunks(&mut self, remote: &Arc<Remote>) -> std::result::Result<(), Trouble> {
        let mut under_way = FuturesUnordered::new();
        let mut next = 0;
        let mut damaged = 0;
        loop {
            while under_way.len() < self.how.in_flight && next < self.part.count() {
                if !self.part.has(next) {
                    under_way.push(self.chunk(remote, next));
                }
                next += 1;
            }
            let Some(ended) = under_way.next().await else { return Ok(()) };
            let (chunk, Fetched { bytes, checksum }) = ended?;
            if crc32c::crc32c(&bytes) == checksum {
                block_in_place(|| self.part.keep(chunk, &bytes, checksum))?;
                self.outcome.fetched += 1;
            } else {
                damaged += 1;
                if damaged == ATTEMPTS {
                    return Err(Failure::Other(format!("chunk {chunk} came damaged")).into());
                }
                under_way.push(self.chunk(remote, chunk));
            }
        }
    }

    /// One chunk, when it is its turn.
    fn chunk(
        &mut self,
        remote: &Arc<Remote>,
        chunk: u64,
    ) -> impl Future<Output = std::result::Result<(u64, Fetched), Trouble>> + use<> {
        let (remote, path, identity) = (Arc::clone(remote), self.path.to_owned(), self.part.identity());
        let (offset, length) = self.part.range(chunk);
        let turn = self.next.max(Instant::now());
        if let Some(rate) = self.how.rate {
            self.next = turn + Duration::from_secs_f64(length as f64 / rate as f64);
        }
        async move {
            tokio::time::sleep_until(turn).await;
            Ok((chunk, remote.chunk(&path, identity, offset, length).await?))
        }
    }
}
