//! What the application and the device do.

use std::io::IoSlice;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::model::place_of;
use super::peer::any_grant;
use super::{Claim, Coming, Fuzzed, SESSION};
use crate::connection::grants::NewGrant;
use crate::connection::link::Finish;
use crate::connection::message::Message;
use crate::connection::posting::Wanted;
use crate::connection::taking::{NotFetched, Step};
use crate::fuzzing::Input;
use crate::memory::{Held, Registration, Transfer};
use crate::protocol::{GrantId, OFFER, Record, Scope};
use crate::transport::Operation;
use crate::{Access, Buffer, ErrorKind, RemoteBuffer, Result};

impl Fuzzed {
    /// One thing that happens.
    pub(super) fn step(&mut self, input: &mut Input<'_>) {
        match input.below(24) {
            0..=5 => self.peer_acts(input),
            6..=8 => self.poll(),
            9 | 10 => self.receive(input),
            11 => self.claim(input),
            12 => self.go_on_with_claim(input),
            13 => self.give_up_claim(input),
            14 => {
                let at_least = input.below(4);
                self.complete(at_least);
            }
            15 => self.send(input),
            16 => self.offer(input),
            17 => self.end_something(input),
            18 => self.begin_write(input),
            19 => self.grant(input),
            20 => self.revoke(input),
            21 => self.look_at_notification(),
            22 => {
                let later = self.clock.nanoseconds() + u64::from(input.byte()) * 100_000_000;
                self.clock.advance_to(later);
                self.core.tend_all(self.clock.now());
            }
            _ => self.seldom(input),
        }
    }

    pub(super) fn complete(&mut self, at_least: usize) {
        let ended = self.core.queue.complete(at_least);
        let is_window = ended.iter().any(|ended| ended.is_window);
        self.coming.extend(ended.into_iter().map(Coming::Completed));
        if is_window {
            // A grant that is no longer wanted is asked for at once, which costs a credit before what comes next: the model
            // would not see that in its order.
            self.poll();
            self.settle();
        }
    }

    fn seldom(&mut self, input: &mut Input<'_>) {
        match input.below(6) {
            0 => {
                let ended = self.core.queue.break_down();
                self.coming.extend(ended.into_iter().map(Coming::Completed));
            }
            1 => {
                let id = input.below(6) as u32;
                let (made, expected) = (self.link().channel_index(id).is_ok(), self.model.channel(id).is_ok());
                assert!(made == expected || self.model.has_ended, "channel {id}");
            }
            2 => self.decline(),
            3 => self.core.uncork(),
            4 => {
                let serial = input.byte().into();
                self.link().outbox.ping = Some(serial);
                self.core.post_frames(self.key, true);
            }
            _ => {
                let id = GrantId { scope: Scope::Domain, slot: input.byte().into(), generation: 0 };
                let is_asked = self.link().grants.of_domain.iter().any(|(asked, _)| *asked == id);
                if !is_asked {
                    self.core.ask_for_domain(self.key, id, Arc::new(()));
                }
            }
        }
    }

    /// A channel that is there: index and id.
    fn channel(&mut self, input: &mut Input<'_>) -> (usize, u32) {
        let choice = input.below(self.link().conversations.len());
        (choice, self.link().conversations[choice].id)
    }

    fn buffer(&self, length: u64) -> Transfer {
        let length = usize::try_from(length).expect("64 bits");
        let buffer = Buffer::allocate(length).expect("memory");
        Transfer::new(buffer, 0..length, &*self.domain).expect("it can be registered")
    }

    fn receive(&mut self, input: &mut Input<'_>) {
        let ((channel, id), ahead) = (self.channel(input), input.byte() & 1 == 1);
        if self.model.declines {
            return;
        }
        match self.core.receive(self.key, channel, ahead) {
            Poll::Ready(Ok(Step::Message(stored))) => self.model.takes(id, &Message::new(stored)),
            Poll::Ready(Ok(Step::Fetch { serial, length, .. })) => {
                let memory = self.buffer(length);
                if let Ok(()) = self.core.fetch(self.key, channel, serial, false, memory) {
                    self.model.fetches(id, serial);
                }
            }
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::PeerClosed => self.model.is_over(id),
            Poll::Ready(Err(_)) => assert!(self.link().ending.get().is_some(), "an error while the connection lives"),
            Poll::Pending => {}
        }
    }

    fn claim(&mut self, input: &mut Input<'_>) {
        let ((channel, id), room) = (self.channel(input), usize::from(input.short()));
        if self.model.declines {
            return;
        }
        match self.core.receive_into(self.key, channel, room) {
            Poll::Ready(Ok(Step::Message(stored))) => self.model.takes(id, &Message::new(stored)),
            Poll::Ready(Ok(Step::Fetch { serial, length, .. })) => {
                assert!(length <= room as u64, "longer than the memory");
                self.model.claims(id, serial, true);
                self.claims.push(Claim { channel, id, serial, length, is_posted: false });
            }
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::PeerClosed => self.model.is_over(id),
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
    }

    fn go_on_with_claim(&mut self, input: &mut Input<'_>) {
        if self.claims.is_empty() {
            return;
        }
        let at = input.below(self.claims.len());
        let Claim { channel, id, serial, length, is_posted } = self.claims[at];
        if !is_posted {
            let memory = self.buffer(length);
            match self.core.fetch(self.key, channel, serial, true, memory) {
                Ok(()) => {
                    self.model.fetches(id, serial);
                    self.claims[at].is_posted = true;
                }
                Err(NotFetched::Later(_)) => {}
                Err(NotFetched::Gone(_)) => {
                    assert!(self.link().ending.get().is_some(), "a claimed message is gone");
                    self.claims.swap_remove(at);
                }
            }
            return;
        }
        match self.core.delivered(self.key, channel, serial) {
            Poll::Ready((Ok(()), Some(Held::Buffer(buffer)))) => self.model.takes_claimed(id, serial, &buffer),
            Poll::Ready((Ok(()), _)) => panic!("a message without its memory"),
            Poll::Ready((Err(_), _)) => {
                assert!(self.link().ending.get().is_some(), "a claimed message is gone");
            }
            Poll::Pending => return,
        }
        self.claims.swap_remove(at);
    }

    fn give_up_claim(&mut self, input: &mut Input<'_>) {
        if !self.claims.is_empty() {
            let claim = self.claims.swap_remove(input.below(self.claims.len()));
            self.core.abandon_claim(self.key, claim.channel, claim.serial);
            self.model.claims(claim.id, claim.serial, false);
        }
    }

    fn send(&mut self, input: &mut Input<'_>) {
        let ((channel, id), length, acknowledge) = (self.channel(input), input.short(), input.byte() & 1 == 1);
        let payload = vec![length as u8; usize::from(length) % (self.link().eager_limit() + 1)];
        if let Poll::Ready(Ok(_)) =
            self.core.send(self.key, channel, &[IoSlice::new(&payload)], payload.len(), acknowledge)
        {
            let record = bytes(&Record::Message { channel: id, acknowledge, payload: &payload });
            self.model.sends(id, payload.len(), acknowledge, record);
        }
    }

    /// A grant to the peer, as an offer or for itself.
    fn open_grant(&mut self, is_offer: bool, patience: u8) -> Option<(GrantId, u32)> {
        let region = Arc::new(Region);
        let (by_window, patience) = (self.has_windows, Duration::from_millis(u64::from(patience) * 20));
        let new = NewGrant {
            region,
            by_window,
            access: Access::READ,
            length: 0,
            lease: None,
            patience,
            is_offer,
            is_direct: false,
        };
        match self.core.open_grant(self.key, &new) {
            Poll::Ready(Ok((id, key, _))) => Some((id, key)),
            _ => None,
        }
    }

    fn offer(&mut self, input: &mut Input<'_>) {
        let ((channel, channel_id), patience) = (self.channel(input), input.byte());
        let Some((id, key)) = self.open_grant(true, patience) else { return };
        self.model.offers(id);
        let handle = RemoteBuffer::new(4096, 8, key, Access::READ, SESSION, id);
        match self.core.offer(self.key, channel, &handle) {
            Poll::Ready(Ok(())) => {
                let record = bytes(&Record::Offer { channel: channel_id, handle: &handle.to_bytes() });
                self.model.sends(channel_id, OFFER, false, record);
            }
            // As a sender who goes.
            _ => self.core.begin_revoke(self.key, id, None),
        }
    }

    fn grant(&mut self, input: &mut Input<'_>) {
        let patience = input.byte();
        self.open_grant(false, patience);
    }

    fn revoke(&mut self, input: &mut Input<'_>) {
        let (choice, patience) = (usize::from(input.byte()), input.byte());
        let ids: Vec<_> = self.link().grants.all().map(|grant| grant.id).collect();
        if let Some(id) = ids.get(choice % ids.len().max(1)) {
            self.core.begin_revoke(self.key, *id, Some(Duration::from_millis(u64::from(patience) * 20)));
        }
    }

    fn end_something(&mut self, input: &mut Input<'_>) {
        let (channel, id) = self.channel(input);
        if input.byte() & 3 != 0 {
            if let Poll::Ready(Ok(())) = self.core.end_channel(self.key, channel) {
                self.model.ends(bytes(&Record::End { channel: Some(id) }));
            }
        } else if self.link().finish == Finish::Open {
            self.core.finish(self.key);
            if self.link().finish != Finish::Open {
                self.model.ends(bytes(&Record::End { channel: None }));
            }
        }
    }

    /// The application writes to memory of the peer, or finds that it may not.
    fn begin_write(&mut self, input: &mut Input<'_>) {
        let grant = any_grant(input);
        let (address, key) = place_of(grant);
        let (operation, memory) = (Operation::Write { address, key }, Some(self.buffer(8)));
        let wanted = Wanted { operation, memory, grant: Some(grant), segment: None, fence: false };
        if let Ok(started) = self.core.start(self.key, wanted, true) {
            self.model.writes(grant);
            // Whoever waits goes at once.
            let (_, unwanted) = self.core.operations.detach(started);
            drop(unwanted);
        }
    }

    fn look_at_notification(&mut self) {
        let link = self.link();
        if link.take_notification().is_some() {
            self.model.looked_at();
            self.core.post_frames(self.key, false);
        }
    }

    /// The application has dropped the connection: nobody receives any more.
    fn decline(&mut self) {
        while let Some(claim) = self.claims.pop() {
            self.core.abandon_claim(self.key, claim.channel, claim.serial);
        }
        self.model.declines();
        self.core.decline_all(self.key);
    }
}

/// Memory that is offered; nobody reads it.
struct Region;

impl Registration for Region {
    fn local_key(&self) -> u32 {
        1
    }

    fn remote_key(&self) -> u32 {
        2
    }

    fn end(self: Arc<Self>) -> Result<()> {
        Ok(())
    }
}

fn bytes(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = vec![0; record.length()];
    record.write(&mut bytes);
    bytes
}
