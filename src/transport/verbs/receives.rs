//! Receives that can take nothing any more: when there is no channel, and when a queue pair has taken one with it.

use std::time::{Duration, Instant};

use crate::memory::Transfer;
use crate::transport::{ChannelKey, Completion, Failure};
use crate::verbs::{Completed, OwningQueue};

/// How long there is no channel before the receives that the last ones have left are taken back.
const IDLE: Duration = Duration::from_secs(1);
/// How long others have overtaken a receive before it counts as lost.
const OVERTAKEN: Duration = Duration::from_secs(10);

/// Looks after the receives of a queue.
#[derive(Debug, Default)]
pub(super) struct Receives {
    channels: usize,
    /// Since when there is none.
    idle_since: Option<Instant>,
    /// Whether a channel was closed, so that there may be lost ones.
    has_closed: bool,
    looked: Option<Instant>,
    lost: usize,
}

impl Receives {
    pub(super) fn channel_opened(&mut self) {
        self.channels += 1;
    }

    /// Its queue pair may take a receive along.
    pub(super) fn channel_closed(&mut self) {
        self.channels -= 1;
        self.has_closed = true;
    }

    /// Takes receives back that nobody could take, which would stay pinned, and finds those that are lost.
    pub(super) fn tend(
        &mut self,
        queue: &mut OwningQueue<Transfer>,
        done: &mut Vec<Completed<Transfer>>,
        now: Instant,
    ) {
        if self.channels == 0 {
            self.take_back(queue, done, now);
            return;
        }
        self.idle_since = None;
        let is_due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= OVERTAKEN);
        if self.has_closed && is_due {
            self.looked = Some(now);
            let lost = queue.write_off_receives();
            if lost > 0 {
                tracing::debug!(lost, "receives went with their queue pairs");
                self.lost += lost;
            }
        }
    }

    fn take_back(&mut self, queue: &mut OwningQueue<Transfer>, done: &mut Vec<Completed<Transfer>>, now: Instant) {
        let is_empty = queue.shared_receives().is_none_or(|shared| queue.receive_room() >= shared.receives() as usize);
        if is_empty {
            self.idle_since = None;
        } else if now.saturating_duration_since(*self.idle_since.get_or_insert(now)) >= IDLE {
            match queue.renew_shared_receives(done) {
                Ok(()) => (self.has_closed, self.idle_since) = (false, None),
                Err(error) => {
                    // The last queue pairs may be about to be destroyed; another look follows.
                    tracing::debug!(%error, "receives are kept");
                    self.idle_since = Some(now);
                }
            }
        }
    }

    /// Appends a receive without memory for each that was lost.
    #[inline]
    pub(super) fn tell(&mut self, done: &mut Vec<Completion>) {
        for _ in 0..std::mem::take(&mut self.lost) {
            done.push(Completion {
                token: 0,
                channel: ChannelKey(u32::MAX),
                is_receive: true,
                result: Err(Failure::Flushed),
                immediate: None,
                memory: None,
            });
        }
    }
}
