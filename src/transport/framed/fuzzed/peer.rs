//! What the peer says.

use super::super::frame::{Frame, Header, Reason};
use super::{Fuzzed, LONGEST, pattern};
use crate::fuzzing::Input;
use crate::transport::Operation;

/// Lengths on both sides of what makes a difference.
const LENGTHS: [u32; 16] = [0, 1, 7, 8, 9, 100, 112, 512, 4096, 4097, 16_383, 16_384, 20_000, 24_576, 24_577, u32::MAX];

pub(super) fn length(input: &mut Input<'_>) -> u32 {
    LENGTHS[input.below(LENGTHS.len())]
}

impl Fuzzed {
    /// A key that opens something, or did, or never has.
    fn key(&self, input: &mut Input<'_>) -> u32 {
        let choice = input.below(8);
        self.model.doors.get(choice).map_or(choice as u32, |door| door.key)
    }

    fn address(&self, input: &mut Input<'_>) -> u64 {
        match input.byte() {
            choice @ 0..=0xef => self.base.wrapping_add(u64::from(choice) * 8),
            0xf0..=0xf7 => self.base.wrapping_add(u64::from(input.short())),
            0xf8..=0xfb => self.base.wrapping_sub(u64::from(input.byte())),
            _ => u64::MAX - u64::from(input.byte()),
        }
    }

    /// How much it says is done: what it has heard, or more, or less.
    fn acknowledged(&self, input: &mut Input<'_>) -> u64 {
        match input.byte() {
            0..=0x7f => self.acknowledged,
            0x80..=0xbf => self.safely_done(),
            0xc0..=0xcf => self.model.written,
            0xd0..=0xdf => self.model.written + 1,
            0xe0..=0xef => self.model.written + u64::from(input.byte()),
            0xf0..=0xf7 => self.acknowledged.saturating_sub(1),
            _ => input.long(),
        }
    }

    /// What it may say is done.
    fn safely_done(&self) -> u64 {
        let is_unanswered = |request: &super::model::Request| request.is_read() && !request.is_answered;
        let before = self.model.pending.iter().take_while(|request| !is_unanswered(request)).count() as u64;
        self.model.written.min(self.model.first + before - 1).max(self.acknowledged)
    }

    /// The answer that is due next.
    fn answer(&self, input: &mut Input<'_>) -> Frame {
        let next = self.model.pending.iter().find(|request| request.is_read() && !request.is_answered);
        match next {
            Some(request) if matches!(request.operation, Operation::Read { .. }) => {
                let left = request.length - request.answer.len() as u32;
                Frame::Data { length: if input.byte() < 0xc0 { left } else { left / 2 } }
            }
            _ => Frame::Word { old: input.long() },
        }
    }

    fn frame(&self, input: &mut Input<'_>) -> Frame {
        match input.below(18) {
            0 => Frame::Acknowledge,
            1 => Frame::Probe,
            2 | 3 => Frame::Send { length: length(input) },
            4 | 5 => Frame::Write { key: self.key(input), address: self.address(input), length: length(input) },
            6 => {
                let (key, address) = (self.key(input), self.address(input));
                Frame::WriteNotify { key, address, length: length(input), value: input.byte().into() }
            }
            7 | 8 => Frame::Read { key: self.key(input), address: self.address(input), length: length(input) },
            9 => Frame::FetchAdd { key: self.key(input), address: self.address(input), add: input.long() },
            10 => {
                let (key, address) = (self.key(input), self.address(input));
                Frame::CompareSwap { key, address, compare: 0x5a5a_5a5a_5a5a_5a5a, swap: input.long() }
            }
            11 | 12 => self.answer(input),
            13 => Frame::Data { length: length(input) },
            14 => Frame::Word { old: input.long() },
            15 | 16 => Frame::Message { length: length(input) },
            _ => Frame::Refuse { request: self.model.first + input.below(4) as u64, reason: Reason::Access },
        }
    }

    /// Says a frame, with as many bytes behind it as it has, or fewer.
    pub(super) fn say(&mut self, input: &mut Input<'_>) {
        let (frame, acknowledged) = (self.frame(input), self.acknowledged(input));
        self.acknowledged = self.acknowledged.max(acknowledged.min(self.model.written));
        let length = match frame {
            Frame::Data { length }
            | Frame::Message { length }
            | Frame::Send { length }
            | Frame::Write { length, .. }
            | Frame::WriteNotify { length, .. } => (length as usize).min(LONGEST),
            _ => 0,
        };
        let length = if length > 0 && input.byte() >= 0xe0 { length / 2 } else { length };
        self.said = self.said.wrapping_add(1);
        let filling = u64::from(self.said);
        let header = Header { acknowledged, frame }.to_bytes();
        self.send(&header[..Header::length(&header)]);
        self.send(pattern(filling, 0..length));
    }
}
