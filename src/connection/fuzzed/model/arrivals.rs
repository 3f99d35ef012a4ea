//! What comes from the peer: whether it may, and what follows.

use super::{Model, OVERHEAD, Verdict, Waiting, What, check, fits, revocation};
use crate::protocol::{Frame, FrameKind, HEADER, MOST_CREDITS, MOST_GRANTS, OFFER, Record, Scope, taken_grants};
use crate::{Access, RemoteBuffer};

impl Model {
    /// A frame has come.
    pub(in crate::connection::fuzzed) fn arrived(&mut self, bytes: &[u8]) -> Verdict {
        if self.is_violated {
            return Ok(());
        }
        let verdict = self.frame_arrived(bytes);
        self.is_violated = verdict.is_err();
        verdict
    }

    /// A notification has come.
    pub(in crate::connection::fuzzed) fn notified(&mut self) -> Verdict {
        if self.is_violated {
            return Ok(());
        }
        self.is_violated = true;
        self.cost_a_credit()?;
        check(self.notifications + self.looked_at < 256, "more notifications than there is room for")?;
        if self.declines {
            self.looked_at += 1;
        } else {
            self.notifications += 1;
        }
        self.is_violated = false;
        Ok(())
    }

    fn cost_a_credit(&mut self) -> Verdict {
        check(self.theirs_left > 0, "a frame without a credit")?;
        self.theirs_left -= 1;
        Ok(())
    }

    fn frame_arrived(&mut self, bytes: &[u8]) -> Verdict {
        let frame = Frame::parse(bytes)?;
        let payload = &bytes[HEADER..];
        assert_eq!(frame.to_bytes(), bytes[..HEADER], "a header is not what it was read from");
        assert_eq!(frame.length as usize, payload.len());
        let left = self.ours_left + i64::from(frame.credits);
        check(left <= MOST_CREDITS.into(), "more credits than there can be receives")?;
        self.ours_left = left;
        if frame.kind == FrameKind::Credit {
            return Ok(());
        }
        self.cost_a_credit()?;
        match frame.kind {
            FrameKind::Credit => {}
            FrameKind::Data => {
                check(!payload.is_empty(), "a data frame without records")?;
                let mut rest = payload;
                while !rest.is_empty() {
                    let before = rest;
                    let record = Record::take(&mut rest)?;
                    let mut again = vec![0; record.length()];
                    record.write(&mut again);
                    assert_eq!(again, before[..before.len() - rest.len()], "{record:?} is not what it was read from");
                    self.record(record)?;
                }
            }
            FrameKind::Revoke => {
                let (serial, ids) = revocation(payload)?;
                check(!ids.is_empty() && ids.iter().all(|id| id.slot < MOST_GRANTS), "a request for no grant")?;
                check(self.asked_us.len() < 2, "more requests than may be unanswered")?;
                check(self.asked_us.iter().all(|(other, _)| *other != serial), "two requests of one serial")?;
                ids.iter().for_each(|id| self.no_longer(*id));
                self.asked_us.push((serial, ids));
            }
            FrameKind::Revoked => {
                let (serial, ids) = revocation(payload)?;
                let at = self.asked_them.iter().position(|(asked, _)| *asked == serial).ok_or("not asked for")?;
                if ids.is_empty() {
                    self.asked_them.remove(at);
                } else {
                    let left = &mut self.asked_them[at].1;
                    for id in &ids {
                        let place = left.iter().position(|asked| asked == id).ok_or("not asked for")?;
                        left.remove(place);
                    }
                    check(!left.is_empty(), "an answer that is not the last names all that is left")?;
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, record: Record<'_>) -> Verdict {
        let is_message = matches!(record, Record::Message { .. } | Record::Offer { .. } | Record::Hand { .. });
        let is_late = is_message || matches!(record, Record::End { .. });
        check(!(self.peer_finished && is_late), "a message after the last one")?;
        match record {
            Record::Message { channel, acknowledge, payload } => {
                self.comes(channel, payload.len(), What::Message(payload.to_vec()))?;
                self.acknowledge += u32::from(acknowledge);
            }
            Record::Offer { channel, handle } => {
                let handle = self
                    .channel(channel)
                    .and_then(|_| RemoteBuffer::from_bytes(handle).map_err(|_| "an offer with a broken handle"))?;
                let grant = handle.grant();
                let is_good = grant.scope == Scope::Connection
                    && handle.session() == self.session
                    && handle.access().contains(Access::READ)
                    && (1..=u64::from(self.ours.longest)).contains(&handle.len());
                check(is_good, "an offer that cannot be read, or is too long")?;
                let sessions = (self.session, self.session);
                let (address, _) =
                    handle.check("fuzz", Access::READ, sessions, 1).map_err(|_| "an offer of nothing")?;
                *self.offers.entry(grant).or_default() += 1;
                let result = self.comes(channel, OFFER, What::Offer { address, length: handle.len() });
                if result.is_err() {
                    self.forget_offer(grant);
                }
                result?;
            }
            Record::Taken { grants, .. } => {
                self.is_unsure = true;
                for id in taken_grants(grants)? {
                    check(self.offered.contains(&id), "a message taken that was not offered")?;
                }
            }
            Record::Window { channel, bytes } => {
                let channel = self.channels.get_mut(&channel).ok_or("window for an unknown channel")?;
                check(channel.sent >= i64::from(bytes), "more window than was used")?;
                channel.sent -= i64::from(bytes);
            }
            Record::Acknowledge { messages } => {
                let left = self.unacknowledged.checked_sub(messages);
                self.unacknowledged = left.ok_or("more messages acknowledged than were sent")?;
            }
            Record::End { channel: Some(channel) } => {
                let channel = self.channel(channel)?;
                check(!channel.peer_ended, "a channel that it ends twice")?;
                channel.peer_ended = true;
            }
            Record::End { channel: None } => self.peer_finished = true,
            Record::Ping { serial } => self.pong = Some(serial),
            Record::Pong { .. } => {}
            Record::Notified { .. } => check(false, "more notifications looked at than were sent")?,
            Record::Forget { .. } | Record::Hand { .. } | Record::Returned { .. } | Record::Segment { .. } => {
                check(false, "pages on a connection that shares none")?;
            }
        }
        Ok(())
    }

    fn comes(&mut self, id: u32, length: usize, what: What) -> Verdict {
        let (window, declines, ended) = (i64::from(self.ours.window), self.declines, self.has_ended);
        let channel = self.channel(id)?;
        check(!channel.peer_ended, "a message on a channel that it has ended")?;
        let cost = length as i64 + OVERHEAD;
        check(fits(channel.used, window, cost), "more bytes than the channel's window")?;
        channel.used += cost;
        if declines {
            channel.taken += cost;
            return Ok(());
        }
        let is_here = matches!(what, What::Message(_)) && !ended;
        let serial = channel.next_serial;
        channel.waiting.push_back(Waiting { serial, what, is_claimed: false, is_here, cost });
        channel.next_serial += 1;
        Ok(())
    }
}
