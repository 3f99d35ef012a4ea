//! Which channels a poll looks at.
//!
//! Where looking is free, those that were busy lately; all others doze, so their peers ring, and the kernel is asked now and then who
//! has. So a channel costs nothing while it is idle. Elsewhere all, if they are few, or else those that the kernel names.

use super::carrier::Carrier;
use super::channel::{Channel, Outcome, Standing};
use super::events::EVENTS;
use super::queue::FramedQueue;
use crate::transport::ChannelKey;

/// Polls in a row that find nothing on a channel before it dozes, if more are awake than a few.
const QUIET: u32 = 1024;
/// Polls after which the kernel is asked who has rung, if nobody waits for that.
const POLLS: u32 = 64;

/// Places of channels whose stream is theirs.
pub(super) struct Attention {
    pub(super) live: Vec<u32>,
    /// Where looking is free: those that each poll looks at, and how many in a row have found nothing.
    awake: Vec<(u32, u32)>,
    /// Polls since the kernel was asked.
    polls: u32,
    /// Whether it is to be asked by the next.
    must_ask: bool,
}

impl Attention {
    pub(super) fn new() -> Self {
        Self { live: Vec::with_capacity(16), awake: Vec::with_capacity(16), polls: 0, must_ask: false }
    }

    pub(super) fn leave(&mut self, place: u32) {
        self.live.retain(|live| *live != place);
        self.awake.retain(|(awake, _)| *awake != place);
    }

    /// Somebody was woken, or the time has come to look after those who say nothing.
    pub(super) fn ask_soon(&mut self) {
        self.must_ask = true;
    }

    fn is_time_to_ask<C: Carrier>(&mut self) -> bool {
        if !C::IS_FREE_TO_LOOK {
            return self.live.len() > C::FEW;
        }
        self.polls += 1;
        self.must_ask || self.live.len() > self.awake.len() && self.polls >= POLLS
    }
}

impl<C: Carrier> FramedQueue<C> {
    /// Reads of the channels that have something; answers whether there was any.
    pub(super) fn look(&mut self) -> bool {
        let mut happened = false;
        if C::IS_FREE_TO_LOOK {
            happened |= self.look_at_those_awake();
        } else if self.attention.live.len() <= C::FEW {
            for index in 0..self.attention.live.len() {
                happened |= self.read_one(self.attention.live[index]);
            }
            return happened;
        }
        if self.attention.is_time_to_ask::<C>() {
            happened |= self.ask();
        }
        for index in 0..self.stalled.len() {
            happened |= self.read_one(self.stalled[index]);
        }
        happened
    }

    fn look_at_those_awake(&mut self) -> bool {
        let (mut happened, mut index) = (false, 0);
        let is_crowded = self.attention.awake.len() > C::FEW;
        while let Some(&(place, quiet)) = self.attention.awake.get(index) {
            let is_worth_it = self.channel_mut(ChannelKey(place)).is_some_and(Channel::is_worth_a_look);
            let quiet = if is_worth_it && self.read_one(place) {
                happened = true;
                0
            } else {
                quiet.saturating_add(1)
            };
            self.attention.awake[index].1 = quiet;
            if is_crowded && quiet >= QUIET && self.goes_to_sleep(place) {
                self.attention.awake.swap_remove(index);
            } else {
                index += 1;
            }
        }
        happened
    }

    /// Has the peer ring from now on, unless there is something by now.
    fn goes_to_sleep(&mut self, place: u32) -> bool {
        let Some(channel) = self.channel_mut(ChannelKey(place)) else { return true };
        channel.is_listed_awake = channel.carrier.doze(channel.wanted());
        !channel.is_listed_awake
    }

    /// Has each poll look at a channel.
    pub(super) fn wake_up(&mut self, place: u32) {
        let Some(channel) = self.channel_mut(ChannelKey(place)) else { return };
        if !std::mem::replace(&mut channel.is_listed_awake, true) {
            self.attention.awake.push((place, 0));
        }
    }

    /// Asks the kernel which sockets have something, and reads of those.
    fn ask(&mut self) -> bool {
        let (places, count) = self.events.ready();
        (self.attention.must_ask, self.attention.polls) = (count == EVENTS, 0);
        let mut happened = false;
        for &place in &places[..count] {
            if C::IS_FREE_TO_LOOK
                && let Some(channel) = self.channel_mut(ChannelKey(place))
            {
                channel.carrier.heed();
                self.wake_up(place);
            }
            happened |= self.read_one(place);
        }
        happened
    }

    /// Reads of a channel, and writes what it has kept; answers whether there was any.
    fn read_one(&mut self, place: u32) -> bool {
        let is_waited_for = self.events.is_waited_for();
        self.turn(place, |channel, shared| -> Outcome<bool> {
            let was_blocked = channel.output.is_blocked;
            if was_blocked {
                channel.write(&shared.accesses)?;
            }
            let has_written = was_blocked && !channel.output.is_blocked;
            let has_read = channel.read(shared)?;
            if has_read {
                channel.output.dry_polls = 0;
            }
            if (has_read || has_written) && !is_waited_for {
                channel.carrier.rouse();
            }
            Ok(has_read || has_written)
        })
    }

    /// Somebody is about to sleep: has the peers of those that are awake ring; answers whether there is something by now.
    pub(super) fn doze(&mut self) -> bool {
        let mut is_there = false;
        for index in 0..self.attention.awake.len() {
            let place = self.attention.awake[index].0;
            if let Some(channel) = self.channel_mut(ChannelKey(place)) {
                is_there |= channel.carrier.doze(channel.wanted());
            }
        }
        is_there
    }
}

impl<C: Carrier> Channel<C> {
    fn is_worth_a_look(&mut self) -> bool {
        let is_readable = self.is_readable && self.standing == Standing::Active;
        is_readable && self.carrier.has_something() || self.output.is_blocked
    }
}
