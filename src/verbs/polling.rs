//! How what an owning queue has in flight comes back by completions.

use std::time::{Duration, Instant};

use super::operation_table::{OperationTable, Owner};
use super::{
    Arrival, Completed, CompletionError, CompletionStatus, InFlight, OwningQueue, QueuePairKey, QueuePairState, Result,
};

impl<B: InFlight> OwningQueue<B> {
    /// Passes on the completions that are there, up to 16 polled ones; answers how many were polled.
    ///
    /// # Errors
    /// Fails if the queue was overrun or the device is gone.
    pub fn poll(&mut self, done: &mut Vec<Completed<B>>) -> Result<usize> {
        self.poll_each(|completed| done.push(completed))
    }

    /// As [`poll`](Self::poll), for who has another place for each than a vector.
    pub(crate) fn poll_each(&mut self, mut done: impl FnMut(Completed<B>)) -> Result<usize> {
        if !self.unposted.is_empty() {
            for (index, errno) in std::mem::take(&mut self.unposted) {
                let status = CompletionStatus::NotPosted;
                let error = CompletionError { status, vendor_error: errno.unsigned_abs() };
                done(failed(&mut self.table, index, error));
            }
        }
        self.room.before_poll();
        let completions = self.completions.poll(&mut self.batch)?;
        let count = completions.len();
        if !completions.is_full() {
            self.room.after_emptying();
        }
        for completion in completions {
            let Some((last, owner)) = self.table.find(completion.wr_id()) else { continue };
            let number = completion.queue_pair();
            if let Owner::Shared(_) | Owner::WrittenOff = owner {
                let Some(shared) = &mut self.shared else { continue };
                let key = shared.completed(number, owner, &mut self.room);
                let operation = self.table.leave(last);
                done(Completed::new(operation, key, true, completion.result(), completion.arrival()));
                continue;
            }
            let (Owner::Sends(pair_index) | Owner::Receives(pair_index)) = owner else { continue };
            let Some(Some(pair)) = self.pairs.get_mut(pair_index as usize) else { continue };
            // Of an earlier queue pair.
            if pair.number != number {
                continue;
            }
            let is_receive = matches!(owner, Owner::Receives(_));
            let before = pair.sends.len();
            let outstanding = if is_receive { &mut pair.receives } else { &mut pair.sends };
            while let Some(index) = outstanding.pop_front() {
                let is_last = index == last;
                let operation = self.table.leave(index);
                let (result, arrival) = match (is_last, is_receive) {
                    (true, true) => (completion.result(), completion.arrival()),
                    (true, false) => (completion.result().map(|_| 0), Arrival::default()),
                    // A send request behind which another completed has succeeded: failures always complete.
                    (false, _) => (Ok(0), Arrival::default()),
                };
                done(Completed::new(operation, QueuePairKey::from_index(pair_index), is_receive, result, arrival));
                if is_last {
                    break;
                }
            }
            self.room.give_back(&mut pair.share, (before - pair.sends.len()) as u32);
        }
        Ok(count)
    }

    /// Moves the queue pair to ERROR and polls, for at most `patience`, until all its requests have completed; answers
    /// whether they have. Those that the driver withholds come back by [`detach`](Self::detach).
    ///
    /// # Errors
    /// As [`QueuePair::fail`](super::QueuePair::fail) and [`poll`](Self::poll).
    pub fn drain(&mut self, key: QueuePairKey, patience: Duration, done: &mut Vec<Completed<B>>) -> Result<bool> {
        let begun = Instant::now();
        // What fails is reported by the poll.
        let _ = self.flush();
        let Some(pair) = self.queue_pair(key) else { return Ok(true) };
        // From RESET there is no way to ERROR, nor anything that completes.
        if pair.state()? != QueuePairState::Reset {
            pair.fail()?;
        }
        loop {
            let polled = self.poll(done)?;
            if self.outstanding(key) == 0 {
                return Ok(true);
            }
            if begun.elapsed() >= patience {
                return Ok(false);
            }
            if polled == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

pub(super) const FLUSHED: CompletionError = CompletionError { status: CompletionStatus::Flushed, vendor_error: 0 };

/// Takes out the request at `index`, which has failed.
pub(super) fn failed<B>(table: &mut OperationTable<B>, index: u32, error: CompletionError) -> Completed<B> {
    let (key, is_receive) = match table.owner(index) {
        Owner::Receives(pair) => (QueuePairKey::from_index(pair), true),
        Owner::Sends(pair) => (QueuePairKey::from_index(pair), false),
        Owner::Shared(_) | Owner::WrittenOff | Owner::Nobody => (QueuePairKey::NONE, true),
    };
    Completed::new(table.leave(index), key, is_receive, Err(error), Arrival::default())
}
