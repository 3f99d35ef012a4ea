//! What must come of what the peer has said: the same as `input` does, in the plainest way.

use std::collections::VecDeque;

use super::super::frame::{Frame, HEADER, Header, MOST_MESSAGE, Reason, SHORT_HEADER};
use super::super::input::SCRATCH;
use super::take_front;
use crate::Access;
use crate::transport::Operation;

/// Answers that a peer may wait for.
const MOST_ANSWERS: usize = 64;

/// What the peer has done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Protocol,
    /// The request of this number.
    Refused(u64, Reason),
    /// It depends on what the queue had written by then, which is not seen.
    Unsure,
}

type Outcome<T = ()> = Result<T, Verdict>;

/// What peers may do with the memory by a key.
pub(super) struct Door {
    pub(super) key: u32,
    pub(super) access: Access,
    pub(super) is_open: bool,
}

pub(super) struct Request {
    pub(super) token: u64,
    pub(super) operation: Operation,
    pub(super) length: u32,
    pub(super) answer: Vec<u8>,
    pub(super) is_answered: bool,
}

impl Request {
    pub(super) fn is_read(&self) -> bool {
        matches!(self.operation, Operation::CompareSwap { .. } | Operation::FetchAdd { .. } | Operation::Read { .. })
    }

    fn is_plain_read(&self) -> bool {
        matches!(self.operation, Operation::Read { .. })
    }
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Done,
    Flushed,
    Refused,
}

/// Token of a message that needed no receive.
pub(super) const MESSAGE: u64 = u64::MAX;

/// A receive that has ended.
pub(super) struct Received {
    pub(super) token: u64,
    pub(super) length: u32,
    pub(super) immediate: Option<u32>,
    pub(super) bytes: Vec<u8>,
}

/// What the peer is to be answered.
pub(super) struct Answer {
    pub(super) request: u64,
    pub(super) what: What,
}

#[derive(Clone, Copy)]
pub(super) enum What {
    Bytes { address: u64, key: u32, left: u32 },
    Word(u64),
}

/// A frame whose bytes are coming.
struct Body {
    to: Place,
    done: usize,
    length: usize,
}

enum Place {
    Answer,
    Message(Vec<u8>),
    Receive(u64, Vec<u8>),
    Target { address: u64, key: u32, notified: Option<(u32, u64)> },
}

pub(super) struct Model {
    /// Address of the memory, and its bytes.
    base: u64,
    pub(super) memory: Vec<u8>,
    pub(super) doors: Vec<Door>,
    /// What the peer has said and was not looked at.
    pub(super) unread: VecDeque<u8>,
    body: Option<Body>,
    /// Whether a message waits for a receive.
    pub(super) is_stalled: bool,
    /// Whether what is posted ends at once.
    pub(super) is_failed: bool,
    /// Whether nothing is read any more.
    pub(super) is_over: bool,
    /// Requests of the peer that are done, and what it is still to be answered.
    pub(super) done: u64,
    pub(super) answers: VecDeque<Answer>,
    /// Receives, with their lengths.
    pub(super) receives: VecDeque<(u64, usize)>,
    pub(super) received: VecDeque<Received>,
    /// Our requests: the number of the first, and how many are certainly written.
    pub(super) first: u64,
    pub(super) pending: VecDeque<Request>,
    pub(super) written: u64,
    pub(super) ended: VecDeque<(Request, How)>,
    /// Whether memory was written since this was set back.
    pub(super) has_written: bool,
}

impl Model {
    pub(super) fn new(base: u64, memory: Vec<u8>) -> Self {
        Self {
            base,
            memory,
            doors: Vec::new(),
            unread: VecDeque::new(),
            body: None,
            is_stalled: false,
            is_failed: false,
            is_over: false,
            done: 0,
            answers: VecDeque::new(),
            receives: VecDeque::new(),
            received: VecDeque::new(),
            first: 1,
            pending: VecDeque::new(),
            written: 0,
            ended: VecDeque::new(),
            has_written: false,
        }
    }

    /// Looks at all that the peer has said, as far as there is a receive for it.
    pub(super) fn run(&mut self) -> Outcome {
        while !self.is_over {
            if self.body.is_some() {
                if !self.take_body()? {
                    return Ok(());
                }
                continue;
            }
            let Some(header) = self.header() else { return Ok(()) };
            let header = Header::parse(header).map_err(|_| Verdict::Protocol)?;
            let needs_receive = matches!(header.frame, Frame::Send { .. } | Frame::WriteNotify { .. });
            self.is_stalled = needs_receive && self.receives.is_empty();
            if self.is_stalled {
                return Ok(());
            }
            let length = if let Frame::Message { .. } = header.frame { SHORT_HEADER } else { HEADER };
            self.unread.drain(..length);
            self.begin(header)?;
        }
        Ok(())
    }

    /// Takes the message that comes next, if nothing else does and all of it is there.
    pub(super) fn take_message(&mut self) -> Option<Vec<u8>> {
        let is_between = self.body.is_none() && !self.is_stalled && !self.is_failed && !self.is_over;
        let header = self.header().filter(|_| is_between)?;
        let Ok(Header { acknowledged, frame: Frame::Message { length } }) = Header::parse(header) else { return None };
        let length = length as usize;
        if acknowledged >= self.first || length > MOST_MESSAGE || self.unread.len() < SHORT_HEADER + length {
            return None;
        }
        self.unread.drain(..SHORT_HEADER);
        Some(take_front(&mut self.unread, length))
    }

    fn header(&self) -> Option<[u8; HEADER]> {
        let begin: Vec<u8> = self.unread.iter().copied().take(2).collect();
        let length = Header::length(&begin);
        if self.unread.len() < length {
            return None;
        }
        let mut header = [0; HEADER];
        header.iter_mut().zip(self.unread.iter().take(length)).for_each(|(to, from)| *to = *from);
        Some(header)
    }

    fn begin(&mut self, header: Header) -> Outcome {
        self.acknowledged(header.acknowledged)?;
        let (to, length) = match header.frame {
            Frame::Acknowledge => return Ok(()),
            Frame::Message { length } => {
                if length as usize > MOST_MESSAGE {
                    return Err(Verdict::Protocol);
                }
                (Place::Message(Vec::new()), length)
            }
            Frame::Probe => {
                self.done += 1;
                return Ok(());
            }
            Frame::CompareSwap { address, key, compare, swap } => {
                return self.atomic(address, key, |old| if old == compare { swap } else { old });
            }
            Frame::FetchAdd { address, key, add } => return self.atomic(address, key, |old| old.wrapping_add(add)),
            Frame::Read { address, key, length } => {
                self.has_room_for_answer()?;
                if length > 0 && self.place(address, key, Access::READ, length as usize).is_none() {
                    return Err(self.refuse(Reason::Access));
                }
                self.answer(What::Bytes { address, key, left: length });
                return Ok(());
            }
            Frame::Word { old } => {
                let request = self.unanswered()?;
                if request.is_plain_read() {
                    return Err(Verdict::Protocol);
                }
                request.answer = old.to_ne_bytes().to_vec();
                return self.was_answered();
            }
            Frame::Refuse { request, .. } => return self.was_refused(request),
            Frame::Data { length } => {
                let request = self.unanswered()?;
                let left = request.length - request.answer.len() as u32;
                if !request.is_plain_read() || length > left || (length == 0 && left > 0) {
                    return Err(Verdict::Protocol);
                }
                (Place::Answer, length)
            }
            Frame::Send { length } => {
                let (token, room) = self.receives[0];
                if length as usize > room {
                    return Err(self.refuse(Reason::TooLong));
                }
                self.receives.pop_front();
                (Place::Receive(token, Vec::new()), length)
            }
            Frame::Write { address, key, length } => (self.target(address, key, length, None)?, length),
            Frame::WriteNotify { address, key, length, value } => {
                let token = self.receives[0].0;
                let to = self.target(address, key, length, Some((value, token)))?;
                self.receives.pop_front();
                (to, length)
            }
        };
        self.body = Some(Body { to, done: 0, length: length as usize });
        if length == 0 { self.is_whole() } else { Ok(()) }
    }

    fn target(&self, address: u64, key: u32, length: u32, notified: Option<(u32, u64)>) -> Outcome<Place> {
        if length > 0 && self.place(address, key, Access::WRITE, length as usize).is_none() {
            return Err(self.refuse(Reason::Access));
        }
        Ok(Place::Target { address, key, notified })
    }

    /// Where in the memory `length` bytes at `address` are, if `key` opens all of them for `right`.
    fn place(&self, address: u64, key: u32, right: Access, length: usize) -> Option<usize> {
        let door = self.doors.iter().find(|door| door.key == key)?;
        let offset = i128::from(address) - i128::from(self.base);
        let is_inside = offset >= 0 && offset + length as i128 <= self.memory.len() as i128;
        (door.is_open && door.access.contains(right) && is_inside).then_some(offset as usize)
    }

    fn refuse(&self, reason: Reason) -> Verdict {
        Verdict::Refused(self.done + 1, reason)
    }

    fn has_room_for_answer(&self) -> Outcome {
        // Some of them are on their way, which is not seen.
        if self.answers.len() >= MOST_ANSWERS { Err(Verdict::Unsure) } else { Ok(()) }
    }

    fn answer(&mut self, what: What) {
        self.done += 1;
        self.answers.push_back(Answer { request: self.done, what });
    }

    fn atomic(&mut self, address: u64, key: u32, change: impl FnOnce(u64) -> u64) -> Outcome {
        self.has_room_for_answer()?;
        let place = self.place(address, key, Access::ATOMIC, 8).filter(|_| address.is_multiple_of(8));
        let Some(at) = place else { return Err(self.refuse(Reason::Access)) };
        let word = &mut self.memory[at..at + 8];
        let old = u64::from_ne_bytes((&*word).try_into().expect("eight bytes"));
        word.copy_from_slice(&change(old).to_ne_bytes());
        self.has_written = true;
        self.answer(What::Word(old));
        Ok(())
    }

    /// Takes bytes of a body; answers whether to go on.
    fn take_body(&mut self) -> Outcome<bool> {
        let Some(Body { to, done, length }) = &mut self.body else { return Ok(false) };
        let (count, done_before) = (self.unread.len().min(*length - *done), *done);
        if count == 0 {
            return Ok(false);
        }
        let target = if let Place::Target { address, key, .. } = to { Some((*address, *key)) } else { None };
        if let Some((address, key)) = target {
            let at = self.place(address.wrapping_add(done_before as u64), key, Access::WRITE, count);
            let at = at.ok_or(self.refuse(Reason::Access))?;
            self.memory[at..at + count].copy_from_slice(&take_front(&mut self.unread, count));
            self.has_written = true;
        } else {
            let bytes = take_front(&mut self.unread, count);
            match to {
                Place::Message(have) | Place::Receive(_, have) => have.extend(bytes),
                _ => self.unanswered()?.answer.extend(bytes),
            }
        }
        let Some(body) = &mut self.body else { return Ok(false) };
        body.done += count;
        if body.done == body.length {
            self.is_whole()?;
        }
        Ok(true)
    }

    fn is_whole(&mut self) -> Outcome {
        let Some(Body { to, length, .. }) = self.body.take() else { return Ok(()) };
        let length = length as u32;
        match to {
            Place::Answer => {
                let request = self.unanswered()?;
                if request.answer.len() == request.length as usize {
                    self.was_answered()?;
                }
                return Ok(());
            }
            Place::Message(bytes) => {
                self.received.push_back(Received { token: MESSAGE, length, immediate: None, bytes });
                return Ok(());
            }
            Place::Receive(token, bytes) => {
                self.received.push_back(Received { token, length, immediate: None, bytes });
            }
            Place::Target { notified: Some((value, token)), .. } => {
                self.received.push_back(Received { token, length, immediate: Some(value), bytes: Vec::new() });
            }
            Place::Target { .. } => {}
        }
        self.done += 1;
        Ok(())
    }

    fn posted(&self) -> u64 {
        self.first + self.pending.len() as u64 - 1
    }

    fn acknowledged(&mut self, number: u64) -> Outcome {
        if number > self.posted() {
            return Err(Verdict::Protocol);
        }
        if number > self.written {
            return Err(Verdict::Unsure);
        }
        while self.first <= number {
            if self.pending[0].is_read() && !self.pending[0].is_answered {
                return Err(Verdict::Protocol);
            }
            self.ends(How::Done);
        }
        Ok(())
    }

    fn ends(&mut self, how: How) {
        if let Some(request) = self.pending.pop_front() {
            self.first += 1;
            self.ended.push_back((request, how));
        }
    }

    fn unanswered(&mut self) -> Outcome<&mut Request> {
        let place = self.pending.iter().position(|request| request.is_read() && !request.is_answered);
        let place = place.ok_or(Verdict::Protocol)?;
        if self.first + place as u64 > self.written {
            return Err(Verdict::Unsure);
        }
        Ok(&mut self.pending[place])
    }

    fn was_answered(&mut self) -> Outcome {
        let request = self.unanswered()?;
        request.is_answered = true;
        let last = self.pending.iter().rposition(|request| request.is_read() && request.is_answered).unwrap_or(0);
        self.acknowledged(self.first + last as u64)
    }

    fn was_refused(&mut self, number: u64) -> Outcome {
        if number < self.first || number > self.posted() {
            return Err(Verdict::Protocol);
        }
        if number > self.written {
            return Err(Verdict::Unsure);
        }
        while self.first < number {
            self.ends(How::Flushed);
        }
        self.ends(How::Refused);
        (self.is_failed, self.is_over) = (true, true);
        Ok(())
    }

    /// All that is pending ends.
    pub(super) fn fail(&mut self) {
        (self.is_failed, self.is_over) = (true, true);
        while !self.pending.is_empty() {
            self.ends(How::Flushed);
        }
    }

    /// Receives of which something has come, and not all.
    pub(super) fn begun_receives(&self) -> usize {
        let to = self.body.as_ref().map(|body| &body.to);
        usize::from(matches!(to, Some(Place::Receive(..) | Place::Target { notified: Some(_), .. })))
    }

    /// Whether the queue may have found by itself that the peer may not go on with what it could begin.
    pub(super) fn may_be_refused(&self) -> bool {
        let is_closed = |address, key, right, length| length > 0 && self.place(address, key, right, length).is_none();
        let cannot_read = self.answers.iter().any(|answer| match answer.what {
            What::Bytes { address, key, left } => is_closed(address, key, Access::READ, left as usize),
            What::Word(_) => false,
        });
        let cannot_write = self.body.as_ref().is_some_and(|Body { to, done, length }| match to {
            Place::Target { address, key, .. } if length - done >= SCRATCH => {
                is_closed(address.wrapping_add(*done as u64), *key, Access::WRITE, length - done)
            }
            _ => false,
        });
        cannot_read || cannot_write
    }
}
