//! What the time asks for: peers are told what is done, and those that do nothing are given up.

use std::time::{Duration, Instant};

use super::carrier::Carrier;
use super::channel::Trouble;
use super::frame::Reason;
use super::queue::{FramedQueue, NONE};
use crate::transport::{ChannelKey, Completion, Failure};
use crate::{Error, ErrorKind};

/// How long a message waits for a receive.
const NOT_READY: Duration = Duration::from_millis(250);
/// How long there is no channel before what is posted is given back.
const IDLE: Duration = Duration::from_secs(1);
/// More than this does not count at once: then it was this process that stood still.
const LONGEST_STEP: Duration = Duration::from_millis(500);

/// How far the peer is with the oldest request that has not ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    request: u64,
    /// Bytes of its answer that are here, or, while it is not written whole, that are written.
    bytes: u64,
}

impl Mark {
    pub(super) fn new(request: u64, bytes: u64) -> Self {
        Self { request, bytes }
    }
}

impl<C: Carrier> FramedQueue<C> {
    /// Tells peers what is done, those that have not heard it for `polls` polls in a row.
    pub(super) fn acknowledge(&mut self, polls: u32) {
        let mut due = std::mem::take(&mut self.due);
        due.retain(|&place| {
            let Some(channel) = self.channel_mut(ChannelKey(place)) else { return false };
            channel.output.dry_polls += 1;
            // The poll that has read of it counts too.
            let is_to_wait = channel.output.dry_polls <= polls || channel.output.is_blocked;
            channel.is_listed_due = channel.output.untold() > 0 && is_to_wait;
            if channel.is_listed_due || channel.output.untold() == 0 {
                return channel.is_listed_due;
            }
            self.turn(place, |channel, shared| {
                channel.output.acknowledge();
                channel.write(&shared.accesses).map(|()| false)
            });
            false
        });
        // The room of the list is kept.
        due.append(&mut self.due);
        self.due = due;
    }

    /// Messages that have waited for a receive for as long as they may are refused.
    pub(super) fn end_stalls(&mut self, now: Instant) {
        for index in 0..self.stalled.len() {
            let Some(&place) = self.stalled.get(index) else { break };
            let since = self.channel(ChannelKey(place)).and_then(|channel| channel.stalled);
            if since.is_some_and(|since| now.saturating_duration_since(since) >= NOT_READY) {
                self.turn(place, |_, _| Err(Trouble::Refused(Reason::NotReady)));
            }
        }
    }

    /// Gives up peers that take what is asked of them and never do it, whatever else they say: it would be held for ever.
    pub(super) fn give_up(&mut self, now: Instant) {
        let passed = self.tended_at.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.channels.iter().flatten().for_each(|channel| channel.host_answers.set(None));
        let Some(patience) = self.patience else { return };
        for place in 0..self.channels.len() as u32 {
            let Some(channel) = self.channel_mut(ChannelKey(place)) else { continue };
            let mark = channel.mark();
            if mark.is_none() || mark != channel.mark || !channel.socket.is_open() {
                (channel.mark, channel.waited) = (mark, Duration::ZERO);
                continue;
            }
            channel.waited = channel.waited.saturating_add(passed.min(LONGEST_STEP));
            if channel.waited >= patience && channel.is_readable {
                let detail = format!("it did nothing of what it was asked for {:.1} s", channel.waited.as_secs_f64());
                let error = Error::new(ErrorKind::Unresponsive, "connection").with_detail(detail);
                self.turn(place, |_, _| Err(Trouble::Lost(error)));
            }
        }
    }

    /// Gives back what nobody could take.
    pub(super) fn give_back_receives(&mut self, now: Instant) {
        let is_empty = self.shared.receives.is_empty();
        if is_empty || self.channels.iter().any(Option::is_some) {
            self.idle_since = None;
        } else if now.saturating_duration_since(*self.idle_since.get_or_insert(now)) >= IDLE {
            self.idle_since = None;
            while let Some((token, memory)) = self.shared.receives.pop_front() {
                self.shared.receive_ended(Completion {
                    token,
                    channel: NONE,
                    is_receive: true,
                    result: Err(Failure::Flushed),
                    immediate: None,
                    memory: Some(memory),
                });
            }
        }
    }
}
