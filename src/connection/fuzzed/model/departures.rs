//! What goes to the peer: it must be what was to be sent, and what the peer takes.

use super::{Model, revocation};
use crate::protocol::{Frame, FrameKind, HEADER, Record, taken_grants};

impl Model {
    /// We have posted a frame.
    pub(in crate::connection::fuzzed) fn posted(&mut self, bytes: &[u8]) {
        let frame = Frame::parse(bytes).expect("a frame that a peer takes");
        let payload = &bytes[HEADER..];
        assert!(bytes.len() <= self.theirs.frame.min(self.ours.frame).into(), "a frame that is too long");
        self.theirs_left += i64::from(frame.credits);
        assert!(self.theirs_left <= self.most_receives.into(), "more credits than there are receives");
        if frame.kind == FrameKind::Credit {
            return;
        }
        self.ours_left -= 1;
        assert!(self.ours_left >= 0, "a frame for which the peer has no receive");
        match frame.kind {
            FrameKind::Credit => {}
            FrameKind::Data => {
                assert!(!payload.is_empty(), "a data frame without records");
                let mut rest = payload;
                while !rest.is_empty() {
                    let before = rest;
                    let record = Record::take(&mut rest).expect("a record that a peer takes");
                    self.record_posted(record, &before[..before.len() - rest.len()]);
                }
            }
            FrameKind::Revoke => {
                let (serial, ids) = revocation(payload).expect("a request that a peer takes");
                assert!(!ids.is_empty() && self.asked_them.len() < 2, "more requests than may be unanswered");
                self.asked_them.push((serial, ids));
            }
            FrameKind::Revoked => {
                let (serial, ids) = revocation(payload).expect("an answer that a peer takes");
                let at = self.asked_us.iter().position(|(asked, _)| *asked == serial).expect("an answer to a request");
                let drained = if ids.is_empty() { self.asked_us.remove(at).1 } else { ids };
                for id in &drained {
                    assert!(self.is_idle(*id), "{id:?} is in use, and its owner told that it is not");
                }
                if let Some((_, left)) = self.asked_us.get_mut(at).filter(|_| payload.len() > 8) {
                    assert!(drained.iter().all(|id| left.contains(id)), "an answer for what was not asked");
                    left.retain(|id| !drained.contains(id));
                    assert!(!left.is_empty(), "an answer that is not the last names all that is left");
                }
            }
        }
    }

    fn record_posted(&mut self, record: Record<'_>, bytes: &[u8]) {
        match record {
            Record::Message { .. } | Record::Offer { .. } | Record::End { .. } => {
                assert_eq!(self.promised.pop_front().as_deref(), Some(bytes), "not what was to be sent next");
            }
            Record::Taken { grants, .. } => {
                for id in taken_grants(grants).expect("grants") {
                    assert!(self.offers.contains_key(&id), "{id:?} is given back twice, or was not offered");
                    // A peer that offers one thing twice, or what it has granted as well, has itself to blame.
                    let is_alone = self.offers[&id] == 1 && !self.written.contains(&id);
                    assert!(self.is_idle(id) || !is_alone, "{id:?} is in use");
                    self.forget_offer(id);
                    self.no_longer(id);
                }
            }
            Record::Window { channel, bytes } => {
                let channel = self.channels.get_mut(&channel).expect("a channel that is there");
                channel.taken -= i64::from(bytes);
                channel.used -= i64::from(bytes);
                assert!(channel.taken >= 0, "more window than was used");
            }
            Record::Acknowledge { messages } => {
                self.acknowledge = self.acknowledge.checked_sub(messages).expect("no more than have arrived");
            }
            Record::Pong { serial } => assert_eq!(self.pong.take(), Some(serial), "a pong without a ping"),
            Record::Ping { .. } => {}
            Record::Notified { notifications } => {
                self.looked_at = self.looked_at.checked_sub(notifications).expect("no more than were looked at");
            }
            Record::Forget { .. } | Record::Hand { .. } | Record::Returned { .. } | Record::Segment { .. } => {
                panic!("pages on a connection that shares none");
            }
        }
    }
}
