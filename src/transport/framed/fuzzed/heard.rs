//! What the queue says, as its peer hears it.

use super::super::frame::{Frame, HEADER, Header, Reason};
use super::model::{Model, What};
use super::pattern;
use crate::transport::Operation;

/// What is coming.
enum Body {
    /// Of a request that has ended with the channel.
    Ended,
    Nothing,
    /// Bytes of our request of this token, from here on.
    Ours(u64, usize),
    /// Bytes of the memory, from here on, if it still is as it was.
    Memory(u64),
}

pub(super) struct Heard {
    header: Vec<u8>,
    body: Body,
    left: usize,
    acknowledged: u64,
    /// Our requests that were begun.
    begun: u64,
    /// Which request may be refused.
    pub(super) refusal: Option<(u64, Reason)>,
    has_refused: bool,
}

impl Heard {
    pub(super) fn new() -> Self {
        let header = Vec::with_capacity(HEADER);
        Self { header, body: Body::Nothing, left: 0, acknowledged: 0, begun: 0, refusal: None, has_refused: false }
    }

    /// Hears more; `base` is the address of the memory, whose bytes are looked at if `is_still`.
    pub(super) fn hear(&mut self, mut bytes: &[u8], model: &mut Model, base: u64, is_still: bool) {
        while !bytes.is_empty() {
            let now = if self.left > 0 { self.left } else { HEADER - self.header.len() }.min(bytes.len());
            let (taken, rest) = bytes.split_at(now);
            bytes = rest;
            if self.left > 0 {
                self.compare(taken, model, base, is_still);
                self.left -= now;
                self.is_whole(model);
                continue;
            }
            self.header.extend_from_slice(taken);
            if let Some(header) = self.header.first_chunk() {
                let header = Header::parse(*header).expect("a header of ours");
                self.header.clear();
                self.begin(header, model);
                self.is_whole(model);
            }
        }
    }

    /// Of our requests all are written whole, but for one whose bytes are coming.
    fn is_whole(&self, model: &mut Model) {
        if self.left == 0 || !matches!(self.body, Body::Ours(..)) {
            model.written = self.begun;
        }
    }

    fn compare(&mut self, bytes: &[u8], model: &Model, base: u64, is_still: bool) {
        match &mut self.body {
            Body::Nothing => panic!("bytes of nothing"),
            Body::Ended => {}
            Body::Ours(token, at) => {
                assert!(*bytes == *pattern(*token, *at..*at + bytes.len()), "not what was posted");
                *at += bytes.len();
            }
            Body::Memory(address) => {
                let at = (*address - base) as usize;
                assert!(!is_still || model.memory[at..at + bytes.len()] == *bytes, "not what is in the memory");
                *address += bytes.len() as u64;
            }
        }
    }

    fn begin(&mut self, header: Header, model: &mut Model) {
        assert!(!self.has_refused, "something behind a refusal: {header:?}");
        let acknowledged = header.acknowledged;
        assert!(
            acknowledged >= self.acknowledged && acknowledged <= model.done,
            "{header:?} after {}",
            self.acknowledged
        );
        assert!(model.answers.front().is_none_or(|next| acknowledged < next.request), "{header:?} before the answer");
        self.acknowledged = acknowledged;
        match header.frame {
            Frame::Acknowledge => {}
            Frame::Refuse { request, reason } => {
                assert_eq!(Some((request, reason)), self.refusal, "it refuses something else");
                self.has_refused = true;
            }
            Frame::Word { old } => {
                let answer = model.answers.pop_front().expect("something was asked");
                assert!(matches!(answer.what, What::Word(was) if was == old), "another word");
            }
            Frame::Data { length } => {
                let answer = model.answers.front_mut().expect("something was asked");
                let What::Bytes { address, left, .. } = &mut answer.what else { panic!("a word was asked for") };
                assert!(length <= *left && (length > 0 || *left == 0));
                (self.body, self.left) = (Body::Memory(*address), length as usize);
                *address = address.wrapping_add(length.into());
                *left -= length;
                if *left == 0 {
                    model.answers.pop_front();
                }
            }
            frame => self.request(frame, model),
        }
    }

    /// Whether an answer is half written.
    pub(super) fn is_within_answer(&self) -> bool {
        self.left > 0 && matches!(self.body, Body::Memory(_))
    }

    fn request(&mut self, frame: Frame, model: &mut Model) {
        // One that was begun may end with the channel before any of it is heard.
        let Some(place) = (self.begun + 1).checked_sub(model.first) else {
            assert!(model.is_failed, "what has ended is said");
            let length = match frame {
                Frame::Send { length } | Frame::Write { length, .. } | Frame::WriteNotify { length, .. } => length,
                _ => 0,
            };
            return (self.body, self.left) = (Body::Ended, length as usize);
        };
        let place = place as usize;
        let request = model.pending.get(place).expect("something was posted");
        let length = request.length;
        let posted = match request.operation {
            Operation::CompareSwap { address, key, compare, swap } => {
                Frame::CompareSwap { address, key, compare, swap }
            }
            Operation::FetchAdd { address, key, add } => Frame::FetchAdd { address, key, add },
            Operation::Probe => Frame::Probe,
            Operation::Read { address, key } => Frame::Read { address, key, length },
            Operation::Send => Frame::Send { length },
            Operation::Write { address, key } => Frame::Write { address, key, length },
            Operation::WriteNotify { address, key, value } => Frame::WriteNotify { address, key, length, value },
        };
        assert_eq!(frame, posted, "not what was posted next");
        if !request.is_read() {
            (self.body, self.left) = (Body::Ours(request.token, 0), length as usize);
        }
        let is_out = |request: &&super::model::Request| request.is_read() && !request.is_answered;
        let out = model.pending.range(..=place).filter(is_out).count();
        assert!(out <= super::READS, "{out} reads are outstanding");
        self.begun += 1;
    }
}
