//! What the peer does: any bytes, and frames that are well-formed and say anything.

use super::model::place_of;
use super::{Coming, Fuzzed, SESSION};
use crate::fuzzing::Input;
use crate::protocol::{Frame, FrameKind, GrantId, HEADER, RECORD, Record, Scope, taken_bytes};
use crate::{Access, RemoteBuffer};

/// Channels that the peer names.
const CHANNELS: usize = 6;

impl Fuzzed {
    /// One thing that a peer can do.
    pub(super) fn peer_acts(&mut self, input: &mut Input<'_>) {
        match input.below(7) {
            0 => {
                let length = usize::from(input.short()) % (self.frame + 1);
                let bytes = input.take(length);
                self.arrive(bytes);
            }
            1 => {
                let kind = [FrameKind::Data, FrameKind::Credit, FrameKind::Revoke, FrameKind::Revoked][input.below(4)];
                let (credits, length) = (input.byte().into(), usize::from(input.short()) % (self.frame - HEADER + 1));
                self.frame_arrives(kind, credits, input.take(length));
            }
            2 | 3 => {
                let (credits, records) = (self.credits(input), input.below(4) + 1);
                let mut payload = Vec::new();
                (0..records).for_each(|_| self.append_record(input, &mut payload));
                self.frame_arrives(FrameKind::Data, credits, &payload);
            }
            4 => {
                let (credits, count, serial) = (self.credits(input), input.below(5), input.byte());
                let ids: Vec<_> = (0..count).map(|_| any_grant(input)).collect();
                self.frame_arrives(FrameKind::Revoke, credits, &revocation(serial.into(), &ids));
            }
            5 => {
                let (credits, choice, skip) = (self.credits(input), input.byte(), input.byte());
                let answer = match self.model.request(choice.into()) {
                    // All, or those whose bit is set.
                    Some((serial, _)) if skip == 0 => revocation(*serial, &[]),
                    Some((serial, ids)) => {
                        let some = ids.iter().enumerate().filter(|(at, _)| skip >> (at % 8) & 1 == 1);
                        revocation(*serial, &some.map(|(_, id)| *id).collect::<Vec<_>>())
                    }
                    None => return,
                };
                self.frame_arrives(FrameKind::Revoked, credits, &answer);
            }
            _ => {
                // Many, or their bound would hardly be reached; with a device that keeps up.
                let count = input.byte();
                for at in 0..count {
                    if self.core.queue.arrive(&[], Some(at.into())) {
                        self.coming.push(Coming::Notification);
                    }
                    if count > 1 {
                        self.complete(0);
                        self.poll();
                        self.settle();
                    }
                }
            }
        }
    }

    /// Credits that the peer gives back: mostly those that it may.
    fn credits(&self, input: &mut Input<'_>) -> u16 {
        let choice = input.byte();
        if choice == 0xff { u16::MAX } else { u16::from(choice).min(self.model.most_credits()) }
    }

    fn frame_arrives(&mut self, kind: FrameKind, credits: u16, payload: &[u8]) {
        let frame = Frame { kind, credits, length: payload.len() as u32 };
        self.arrive(&[&frame.to_bytes()[..], payload].concat());
    }

    /// A record of any kind.
    fn append_record(&self, input: &mut Input<'_>, payload: &mut Vec<u8>) {
        let (kind, channel, argument) = (input.byte(), input.below(CHANNELS) as u32, u32::from(input.short()));
        let (handle, taken);
        let record = match kind % 9 {
            0 | 1 => {
                let length = argument as usize % (self.frame - HEADER - RECORD + 1);
                Record::Message { channel, acknowledge: kind & 0x80 != 0, payload: &vec![argument as u8; length] }
            }
            2 => {
                let grant = any_grant(input);
                let (address, key) = place_of(grant);
                let (length, session) = (u64::from(argument), SESSION + u64::from(kind >> 7));
                handle = RemoteBuffer::new(address, length, key, Access::READ, session, grant).to_bytes();
                Record::Offer { channel, handle: &handle }
            }
            3 => {
                let id = self.model.offered(argument as usize).unwrap_or_else(|| any_grant(input));
                taken = taken_bytes(id);
                Record::Taken { declined: kind & 0x80 != 0, grants: &taken }
            }
            4 => Record::Window { channel, bytes: argument },
            5 => Record::Acknowledge { messages: argument },
            6 => Record::End { channel: (kind & 0x80 == 0).then_some(channel) },
            7 => Record::Ping { serial: argument },
            8 if kind == 0x7d => Record::Forget { segment: argument },
            _ if kind & 0x80 == 0 => Record::Pong { serial: argument },
            _ => Record::Notified { notifications: argument },
        };
        append(&record, payload);
    }
}

fn append(record: &Record<'_>, payload: &mut Vec<u8>) {
    let at = payload.len();
    payload.resize(at + record.length(), 0);
    record.write(&mut payload[at..]);
}

/// A grant of the peer, one of a few.
pub(super) fn any_grant(input: &mut Input<'_>) -> GrantId {
    let choice = input.byte();
    let scope = if choice & 0x40 == 0 { Scope::Connection } else { Scope::Domain };
    // Some are beyond what may be.
    let slot = if choice & 0x80 == 0 { choice & 7 } else { choice };
    let slot = if slot == 0xff { crate::protocol::MOST_GRANTS } else { slot.into() };
    GrantId { scope, slot, generation: u32::from(choice >> 3 & 7) }
}

fn revocation(serial: u32, ids: &[GrantId]) -> Vec<u8> {
    let mut payload = [serial.to_le_bytes(), [0; 4]].concat();
    for id in ids {
        let flag = if id.scope == Scope::Domain { 1 << 31 } else { 0 };
        payload.extend((id.slot | flag).to_le_bytes().into_iter().chain(id.generation.to_le_bytes()));
    }
    payload
}
