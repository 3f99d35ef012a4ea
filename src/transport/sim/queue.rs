//! The queue of an engine, as the layers above use it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::faults::Fault;
use super::node::NodeId;
use super::pair::{End, Memory, Pair, PairId, Pending, Progress, What};
use super::queue_state::{GUARANTEED, QueueId, QueueState, refused};
use super::trace::Note;
use super::windows::WindowChange;
use super::world::World;
use crate::memory::Transfer;
use crate::transport::{
    Capabilities, ChannelKey, ChannelSizes, Completion, NotBound, Opening, Queue, Refused, Request, Source, WindowKey,
};
use crate::{Error, ErrorKind, Result};

/// A queue of a node's device.
pub(crate) struct SimQueue {
    world: Arc<World>,
    id: QueueId,
    /// What failed without a completion, for the next poll.
    found: Vec<Completion>,
}

impl SimQueue {
    pub(super) fn open(world: Arc<World>, node: NodeId, completions: usize) -> Self {
        let id = world.with(|state| {
            let capacity = completions.min(state.settings.completions);
            state.queues.push(Some(QueueState::new(node, capacity)));
            QueueId(state.queues.len() - 1)
        });
        Self { world, id, found: Vec::new() }
    }

    /// Makes a channel.
    pub(super) fn create(&mut self, sizes: ChannelSizes) -> Result<(ChannelKey, PairId)> {
        self.world.with(|state| {
            let node = state.queue(self.id).map(|queue| queue.node);
            let (Some(node), Some(queue)) = (node, state.queue(self.id)) else {
                return Err(Error::new(ErrorKind::NoDevice, "open channel"));
            };
            let guaranteed = GUARANTEED.min(sizes.sends as usize);
            if queue.reserved + guaranteed > queue.capacity {
                let detail = "the completion queue has no room for another channel";
                return Err(Error::new(ErrorKind::ResourceExhausted, "open channel").with_detail(detail));
            }
            queue.reserved += guaranteed;
            let place = queue.channels.iter().position(Option::is_none).unwrap_or(queue.channels.len());
            let channel = ChannelKey(place as u32);
            let pair = state.open_pair(node, self.id, channel, sizes);
            if let Some(queue) = state.queue(self.id) {
                queue.channels.resize(queue.channels.len().max(place + 1), None);
                queue.channels[place] = Some(pair);
            }
            Ok((channel, pair))
        })
    }

    /// The pair of a channel.
    pub(super) fn pair(&self, channel: ChannelKey) -> Option<PairId> {
        self.world.with(|state| state.queue(self.id)?.pair(channel))
    }
}

impl Queue for SimQueue {
    fn stage(&mut self, channel: ChannelKey, request: Request<'_>) -> std::result::Result<(), Refused> {
        self.world.with(|state| {
            state.devices_go_on();
            let pair = state.postable(self.id, channel);
            let staged_for = state.queue(self.id).and_then(|queue| queue.staged.as_ref().map(|(pair, _)| *pair));
            if let (Ok(pair), Some(other)) = (&pair, staged_for)
                && *pair != other
            {
                // What fails there is told there, by the next poll.
                state.flush_staged(self.id);
            }
            let room = state.room(self.id, channel);
            let (memory, transfer) = match request.source {
                Source::Inline(bytes) => (Memory::Inline(bytes.to_vec()), false),
                Source::Owned(memory) => (Memory::Owned(memory), true),
            };
            let limits = |pair: &mut Pair| match &memory {
                Memory::Inline(bytes) if bytes.len() > pair.inline => Some("too much inline"),
                Memory::Owned(memory) if memory.pieces() > pair.segments => Some("too many segments"),
                _ => None,
            };
            let error = match pair {
                Err(error) => Some(Some(error)),
                Ok(pair) => match state.pair(pair).and_then(limits) {
                    Some(detail) => Some(Some(refused(detail))),
                    None if room == 0 => Some(None),
                    None => {
                        let pending = Pending {
                            sequence: 0,
                            token: request.token,
                            what: What::Remote(request.operation),
                            memory,
                            is_signaled: request.signaled,
                            is_fenced: request.fence,
                            progress: Progress::Posted,
                        };
                        state.stage(self.id, pair, pending);
                        return Ok(());
                    }
                },
            };
            let memory = if transfer { memory.into_transfer() } else { None };
            Err(Refused { error: error.flatten(), memory })
        })
    }

    fn flush(&mut self) -> Result<()> {
        let is_whole = self.world.with(|state| {
            let is_whole = state.flush_staged(self.id);
            state.devices_go_on();
            is_whole
        });
        if is_whole { Ok(()) } else { Err(Error::new(ErrorKind::ResourceExhausted, "post").with_detail("injected")) }
    }

    fn room(&self, channel: ChannelKey) -> usize {
        self.world.with(|state| if state.seems_full(self.id, channel) { 0 } else { state.room(self.id, channel) })
    }

    fn post_receive(&mut self, token: u64, memory: Transfer) -> std::result::Result<(), Refused> {
        self.world.with(|state| {
            let Some(queue) = state.queue(self.id) else {
                return Err(Refused { error: Some(refused("the device is gone")), memory: Some(memory) });
            };
            if queue.receives_outstanding >= queue.most_receives {
                state.bug(format!("receive queue {} is overrun", self.id.0));
                return Err(Refused { error: None, memory: Some(memory) });
            }
            queue.receives_outstanding += 1;
            queue.receives.push_back((token, memory));
            let posted = queue.receives.len();
            state.note(Note::Receives { queue: self.id.0, posted });
            Ok(())
        })
    }

    fn receive_room(&self) -> usize {
        self.world.with(|state| {
            state.queue(self.id).map_or(0, |queue| queue.most_receives.saturating_sub(queue.receives_outstanding))
        })
    }

    fn tend(&mut self, _now: Instant) {
        let found = self.world.with(|state| state.tend(self.id));
        self.found.extend(found);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) -> Result<bool> {
        let found = &mut self.found;
        let polled = self.world.with(|state| {
            if let Some(queue) = state.queue(self.id) {
                queue.losses_are_made_up_for();
            }
            let polled = state.poll(self.id, done);
            if !polled {
                // Behind all that came before: that may say more.
                done.append(found);
                if let Some(queue) = state.queue(self.id) {
                    queue.losses_are_told();
                }
            }
            polled
        });
        Ok(polled)
    }

    fn request_notification(&mut self) -> Result<()> {
        self.world.with(|state| {
            if let Some(queue) = state.queue(self.id) {
                queue.is_armed = true;
            }
            // Between the arming and the last poll something may come.
            state.devices_go_on();
        });
        Ok(())
    }

    fn drain_events(&mut self) -> Result<()> {
        Ok(())
    }

    fn event_descriptor(&self) -> Result<Option<OwnedFd>> {
        Ok(None)
    }

    fn call_on_event(&mut self, on_event: Box<dyn FnMut() + Send>) {
        self.world.with(|state| match state.queue(self.id) {
            Some(queue) => queue.on_event = Some(on_event),
            None => state.discard(on_event),
        });
    }

    fn capabilities(&self, channel: ChannelKey) -> Capabilities {
        let pair = self.pair(channel);
        self.world.with(|state| {
            let (longest, reads) = (state.settings.longest, state.settings.reads);
            let sizes = pair.and_then(|pair| state.pair(pair)).map(|pair| (pair.inline, pair.sends, pair.segments));
            let (inline, sends, segments) = sizes.unwrap_or_default();
            Capabilities { inline, sends, longest, segments, reads }
        })
    }

    fn bind(
        &mut self,
        channel: ChannelKey,
        token: u64,
        opening: Opening,
    ) -> std::result::Result<(WindowKey, u32), NotBound> {
        self.world.with(|state| {
            // What fails there is told there, by the next poll.
            state.flush_staged(self.id);
            let pair = state.postable(self.id, channel)?;
            if state.hit(Fault::WindowRefused) {
                return Err(Error::new(ErrorKind::ResourceExhausted, "grant").with_detail("injected").into());
            }
            if state.room(self.id, channel) == 0 {
                return Err(NotBound { error: None, is_doubtful: false });
            }
            let node = state.pair(pair).map(|pair| pair.node).ok_or_else(|| refused("the queue pair was removed"))?;
            let (window, key) = state.new_window(node, pair, opening.region, opening.access);
            let change = WindowChange { window, is_invalidation: false };
            if state.post_alone(self.id, pair, token, change) {
                return Ok((window, key));
            }
            // A driver that does not say which requests it took.
            let is_doubtful = state.below(2) == 0;
            if is_doubtful {
                state.take_alone(self.id, pair, token, change);
            } else {
                state.drop_window(window);
            }
            let error = Some(Error::new(ErrorKind::ResourceExhausted, "grant").with_detail("injected"));
            Err(NotBound { error, is_doubtful })
        })
    }

    fn invalidate(
        &mut self,
        channel: ChannelKey,
        token: u64,
        window: WindowKey,
    ) -> std::result::Result<(), Option<Error>> {
        self.world.with(|state| {
            state.flush_staged(self.id);
            let pair = state.postable(self.id, channel).map_err(Some)?;
            if state.room(self.id, channel) == 0 {
                return Err(None);
            }
            if !state.begin_invalidation(window) {
                return Err(Some(Error::new(ErrorKind::Other, "revoke").with_detail("its window is not bound")));
            }
            if state.post_alone(self.id, pair, token, WindowChange { window, is_invalidation: true }) {
                return Ok(());
            }
            Err(Some(Error::new(ErrorKind::ResourceExhausted, "revoke").with_detail("injected")))
        })
    }

    fn fail(&mut self, channel: ChannelKey) {
        self.world.with(|state| {
            let pair = state.queue(self.id).and_then(|queue| queue.pair(channel));
            if let Some(id) = pair {
                if let Some(pair) = state.pair(id) {
                    pair.is_told = true;
                }
                state.fail_pair(id, "failed by its owner");
            }
        });
    }

    fn close(&mut self, channel: ChannelKey) -> Option<Box<dyn FnOnce() -> Vec<Completion> + Send>> {
        let taken = self.world.with(|state| {
            // What is staged for it is not posted any more.
            let pair = state.queue(self.id)?.channels.get_mut(channel.0 as usize)?.take()?;
            let queue = state.queue(self.id)?;
            let mut back = Vec::new();
            if queue.staged.as_ref().is_some_and(|(staged, _)| *staged == pair) {
                back.extend(queue.staged.take().into_iter().flat_map(|(_, requests)| requests));
            }
            let unposted = queue.unposted.extract_if(.., |(of, _)| *of == pair).map(|(_, request)| request);
            back.extend(unposted);
            if let Some(pair) = state.pair(pair) {
                pair.channel = None;
            }
            Some((pair, back.into_iter().map(Pending::flushed).collect::<Vec<_>>()))
        });
        let (pair, back) = taken?;
        let taken = TakenOut { world: Arc::clone(&self.world), pair, back };
        Some(Box::new(move || taken.end(channel)))
    }
}

/// A pair that was taken out of its queue, to be destroyed.
struct TakenOut {
    world: Arc<World>,
    pair: PairId,
    back: Vec<End>,
}

impl TakenOut {
    fn end(mut self, channel: ChannelKey) -> Vec<Completion> {
        let ends = self.world.with(|state| state.destroy_pair(self.pair));
        ends.into_iter().chain(std::mem::take(&mut self.back)).map(|end| end.completion(channel)).collect()
    }
}

impl Drop for TakenOut {
    fn drop(&mut self) {
        let ends = self.world.with(|state| state.destroy_pair(self.pair));
        drop(ends);
    }
}

impl Drop for SimQueue {
    fn drop(&mut self) {
        let gone = self.world.with(|state| {
            let queue = state.queues[self.id.0].take()?;
            let ends: Vec<_> = queue.channels.iter().flatten().map(|&pair| state.destroy_pair(pair)).collect();
            Some((queue, ends))
        });
        drop(gone);
    }
}
