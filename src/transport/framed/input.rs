//! Reading: frames are taken as they come, and their bytes are put where they belong.

use std::time::Instant;

use super::access::Target;
use super::carrier::{Carrier, Halt};
use super::channel::{Channel, Outcome, Standing, Trouble};
use super::frame::{Frame, HEADER, Header, MOST_MESSAGE, Reason, SHORT_HEADER};
use super::queue::Shared;
use crate::memory::{Transfer, volatile};
use crate::transport::{Completion, Operation};
use crate::{Access, failpoint};

/// Bytes that are read before it is known what they are.
pub(super) const SCRATCH: usize = 16 << 10;
/// Bytes that one poll reads of one channel, at least, so that others get their turn.
const TURN: usize = 1 << 20;
/// Bytes that a look takes of what may be a message.
const GLANCE: usize = 128;
/// Answers that a peer may wait for. Who asks for more has not kept to what was negotiated.
const MOST_ANSWERS: usize = 64;

/// What is coming in.
pub(super) struct Intake {
    /// The header, as far as it is here.
    header: [u8; HEADER],
    have: usize,
    body: Option<Incoming>,
    /// Of a message that needs no receive, as much as is here.
    message: Vec<u8>,
    /// What was read behind a message that waits for a receive.
    kept: Vec<u8>,
}

/// A frame whose bytes are coming in.
struct Incoming {
    to: Place,
    done: usize,
    length: usize,
}

enum Place {
    /// The oldest read that is not answered.
    Answer,
    /// The queue, which lends it.
    Message,
    /// A receive.
    Receive(u64, Transfer),
    /// Memory that the peer may write, and who is notified then.
    Target(Target, Option<(u32, u64, Transfer)>),
}

impl Default for Intake {
    fn default() -> Self {
        Self { header: [0; HEADER], have: 0, body: None, message: Vec::new(), kept: Vec::new() }
    }
}

impl Intake {
    pub(super) fn drop_kept(&mut self) {
        self.kept = Vec::new();
    }

    /// Gives back a receive that is not complete.
    pub(super) fn take_receive(&mut self) -> Option<(u64, Transfer)> {
        match self.body.take()?.to {
            Place::Receive(token, memory) => Some((token, memory)),
            Place::Target(_, notified) => notified.map(|(_, token, memory)| (token, memory)),
            Place::Answer | Place::Message => None,
        }
    }
}

impl<C: Carrier> Channel<C> {
    /// Reads what has come, and does what it asks for; answers whether something has come.
    pub(super) fn read(&mut self, shared: &mut Shared) -> Outcome<bool> {
        let mut total = 0;
        if self.stalled.is_some() && !self.resume(shared)? {
            return Ok(false);
        }
        while total < TURN && self.stalled.is_none() && self.is_readable {
            let (read, wanted) = match self.read_directly(shared)? {
                Some(read) => read,
                None => {
                    let mut scratch = std::mem::take(&mut shared.scratch);
                    let read = self.carrier.read(&mut scratch);
                    let taken = match read {
                        Ok(read) => self.take(&scratch[..read], shared),
                        Err(_) => Ok(()),
                    };
                    shared.scratch = scratch;
                    taken?;
                    (read, SCRATCH)
                }
            };
            match read {
                Ok(read) => {
                    total += read;
                    if read < wanted {
                        break;
                    }
                }
                Err(Halt::Later) => break,
                Err(Halt::Lost(error)) => {
                    self.is_readable = false;
                    return Err(Trouble::Lost(self.why_lost.take().unwrap_or(error)));
                }
                Err(Halt::Protocol(detail)) => return Err(Trouble::Protocol(detail)),
            }
        }
        Ok(total > 0)
    }

    /// Reads the bytes of a long frame to where they belong; answers what came of it, and how much was wanted. `None` if there are
    /// none, or few.
    fn read_directly(&mut self, shared: &mut Shared) -> Outcome<Option<(Result<usize, Halt>, usize)>> {
        let Some(Incoming { to, done, length }) = &mut self.intake.body else { return Ok(None) };
        let (left, at) = ((*length - *done).min(TURN), *done);
        if left < SCRATCH {
            return Ok(None);
        }
        let carrier = &mut self.carrier;
        let read = match to {
            // It is shorter.
            Place::Message => return Ok(None),
            Place::Receive(_, memory) => fill(carrier, memory, at, left),
            Place::Target(target, _) => {
                let receive = |memory: &dyn crate::Registrable, offset| carrier.read_to(memory, offset, left);
                let read = shared.accesses.lend(self.key, target.behind(at), left, receive);
                Some((read.ok_or(Trouble::Refused(Reason::Access))?, left))
            }
            Place::Answer => {
                let Some(request) = self.unanswered() else { return Err(nothing_asked()) };
                let at = request.answered as usize;
                let mut memory = request.memory.take();
                let read = memory.as_mut().and_then(|memory| fill(&mut self.carrier, memory, at, left));
                if let Some(request) = self.unanswered() {
                    request.memory = memory;
                    if let Some((Ok(read), _)) = &read {
                        request.answered += *read as u32;
                    }
                }
                read
            }
        };
        let Some((read, wanted)) = read else {
            return Err(Trouble::Protocol("bytes for memory that may not be written".to_owned()));
        };
        if let Ok(read) = &read
            && let Some(body) = &mut self.intake.body
        {
            body.done += *read;
            if body.done == body.length {
                self.frame_is_whole(shared)?;
            } else {
                failpoint::reach("frame.half_read");
            }
        }
        Ok(Some((read, wanted)))
    }

    /// Takes a message that needs no receive, if one is next, with its header; answers its length.
    #[inline]
    pub(super) fn receive_now(&mut self, shared: &mut Shared) -> Option<usize> {
        let is_between = self.intake.have == 0 && self.intake.body.is_none() && self.stalled.is_none();
        let is_read = is_between && self.is_readable && self.standing == Standing::Active && self.socket.is_open();
        if !is_read {
            return None;
        }
        let (begin, rest) = shared.now.split_at_mut_checked(GLANCE)?;
        let have = self.carrier.peek(0, begin);
        let (acknowledged, length) = Header::parse_message(begin[..have].first_chunk()?)?;
        // What it acknowledges completes, which a poll tells.
        let missing = rest.get_mut(..(SHORT_HEADER + length).saturating_sub(have))?;
        if acknowledged >= self.first
            || !missing.is_empty() && (have < GLANCE || self.carrier.peek(GLANCE, missing) < missing.len())
        {
            return None;
        }
        self.carrier.skip(SHORT_HEADER + length);
        self.output.dry_polls = 0;
        Some(length)
    }

    /// Takes bytes as they have come, up to a refusal, behind which there is nothing.
    fn take(&mut self, mut bytes: &[u8], shared: &mut Shared) -> Outcome {
        while !bytes.is_empty() && self.is_readable {
            if self.intake.body.is_some() {
                let taken = self.take_body(bytes, shared)?;
                bytes = &bytes[taken..];
                continue;
            }
            let have = self.intake.have;
            if have == 0
                && let Some(rest) = self.take_message(bytes, shared)?
            {
                bytes = rest;
                continue;
            }
            // The second byte says how long it is.
            let known = if have < 2 { 2 } else { Header::length(&self.intake.header) };
            let taken = bytes.len().min(known - have);
            self.intake.header[have..have + taken].copy_from_slice(&bytes[..taken]);
            self.intake.have += taken;
            bytes = &bytes[taken..];
            let is_whole = self.intake.have >= 2 && self.intake.have == Header::length(&self.intake.header);
            if is_whole && !self.begin(shared)? {
                // Bounded by what is read at once, since nothing more is read meanwhile.
                self.intake.kept.extend_from_slice(bytes);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes a message that needs no receive, if `bytes` begin with all of one; answers what is behind it.
    #[inline]
    fn take_message<'a>(&mut self, bytes: &'a [u8], shared: &mut Shared) -> Outcome<Option<&'a [u8]>> {
        let Some((acknowledged, message, rest)) = Header::split_message(bytes) else { return Ok(None) };
        self.acknowledged(acknowledged, &mut shared.ready)?;
        shared.message_came(self.key, message);
        Ok(Some(rest))
    }

    /// Goes on with a message that has waited for a receive; answers whether there is one now.
    fn resume(&mut self, shared: &mut Shared) -> Outcome<bool> {
        if shared.receives.is_empty() {
            return Ok(false);
        }
        let kept = std::mem::take(&mut self.intake.kept);
        self.stalled = None;
        if !self.begin(shared)? {
            self.intake.kept = kept;
            return Ok(false);
        }
        self.take(&kept, shared)?;
        Ok(self.stalled.is_none())
    }

    /// A header is whole; answers whether it could be begun with it, or has to wait for a receive.
    fn begin(&mut self, shared: &mut Shared) -> Outcome<bool> {
        let header = Header::parse(self.intake.header).map_err(Trouble::Protocol)?;
        let needs_receive = matches!(header.frame, Frame::Send { .. } | Frame::WriteNotify { .. });
        if needs_receive && shared.receives.is_empty() {
            self.stalled = Some(Instant::now());
            return Ok(false);
        }
        self.intake.have = 0;
        self.acknowledged(header.acknowledged, &mut shared.ready)?;
        let (to, length) = match header.frame {
            Frame::Acknowledge => return Ok(true),
            Frame::Message { length } => {
                if length as usize > MOST_MESSAGE {
                    return Err(Trouble::Protocol(format!("a message of {length} bytes that needs no receive")));
                }
                (Place::Message, length)
            }
            Frame::Probe => {
                self.output.did();
                return Ok(true);
            }
            Frame::CompareSwap { address, key, compare, swap } => {
                let act = |memory: &dyn crate::Registrable, at| volatile::compare_swap(memory, at, compare, swap);
                return self.change_word(shared, address, key, act).map(|()| true);
            }
            Frame::FetchAdd { address, key, add } => {
                let act = |memory: &dyn crate::Registrable, at| volatile::fetch_add(memory, at, add);
                return self.change_word(shared, address, key, act).map(|()| true);
            }
            Frame::Read { address, key, length } => {
                self.has_room_for_answer()?;
                let target = super::output::readable(address, key);
                if !shared.accesses.allows(self.key, target, length as usize) {
                    return Err(Trouble::Refused(Reason::Access));
                }
                self.output.answer_read(target, length);
                return Ok(true);
            }
            Frame::Word { old } => {
                let request = self.unanswered().filter(|request| !matches!(request.operation, Operation::Read { .. }));
                let request = request.ok_or_else(nothing_asked)?;
                if let Some(memory) = &mut request.memory {
                    memory.fill(&old.to_ne_bytes());
                }
                self.was_answered(&mut shared.ready)?;
                return Ok(true);
            }
            Frame::Refuse { request, reason } => {
                self.is_readable = false;
                self.was_refused(request, reason, &mut shared.ready)?;
                return Ok(true);
            }
            Frame::Data { length } => {
                let request = self.unanswered().filter(|request| matches!(request.operation, Operation::Read { .. }));
                let request = request.ok_or_else(nothing_asked)?;
                let left = request.length - request.answered;
                if length > left || (length == 0 && left > 0) {
                    let detail = format!("{length} bytes as answer to a read that has {left} left");
                    return Err(Trouble::Protocol(detail));
                }
                (Place::Answer, length)
            }
            Frame::Send { length } => {
                let (token, memory) = take_receive(shared)?;
                if length as usize > memory.length() {
                    shared.receives.push_front((token, memory));
                    return Err(Trouble::Refused(Reason::TooLong));
                }
                (Place::Receive(token, memory), length)
            }
            Frame::Write { address, key, length } => {
                let target = self.writable(shared, address, key, length)?;
                (Place::Target(target, None), length)
            }
            Frame::WriteNotify { address, key, length, value } => {
                let target = self.writable(shared, address, key, length)?;
                let (token, memory) = take_receive(shared)?;
                (Place::Target(target, Some((value, token, memory))), length)
            }
        };
        self.intake.body = Some(Incoming { to, done: 0, length: length as usize });
        if length == 0 {
            self.frame_is_whole(shared)?;
        }
        Ok(true)
    }

    fn writable(&self, shared: &Shared, address: u64, key: u32, length: u32) -> Outcome<Target> {
        let target = Target { address, key, right: Access::WRITE };
        let is_allowed = shared.accesses.allows(self.key, target, length as usize);
        is_allowed.then_some(target).ok_or(Trouble::Refused(Reason::Access))
    }

    fn has_room_for_answer(&self) -> Outcome {
        if self.output.answers() >= MOST_ANSWERS {
            let detail = format!("more than {MOST_ANSWERS} reads are outstanding");
            return Err(Trouble::Protocol(detail));
        }
        Ok(())
    }

    fn change_word(
        &mut self,
        shared: &Shared,
        address: u64,
        key: u32,
        act: impl FnOnce(&dyn crate::Registrable, usize) -> u64,
    ) -> Outcome {
        self.has_room_for_answer()?;
        let target = Target { address, key, right: Access::ATOMIC };
        let is_aligned = address.is_multiple_of(8);
        let old = is_aligned.then(|| shared.accesses.with(self.key, target, 8, act)).flatten();
        self.output.answer_word(old.ok_or(Trouble::Refused(Reason::Access))?);
        Ok(())
    }

    /// Takes bytes of the frame that is coming in; answers how many.
    fn take_body(&mut self, bytes: &[u8], shared: &mut Shared) -> Outcome<usize> {
        let Some(Incoming { to, done, length }) = &mut self.intake.body else { return Ok(0) };
        let bytes = &bytes[..bytes.len().min(*length - *done)];
        let is_put = match to {
            Place::Message => {
                self.intake.message.extend_from_slice(bytes);
                true
            }
            Place::Receive(_, memory) => memory.fill_from(*done, bytes),
            Place::Target(target, _) => {
                let store = |memory: &dyn crate::Registrable, offset| volatile::store(memory, offset, bytes);
                let stored = shared.accesses.with(self.key, target.behind(*done), bytes.len(), store);
                // It was allowed when it began, and is not any more.
                stored.ok_or(Trouble::Refused(Reason::Access))?;
                true
            }
            Place::Answer => {
                let request = self.unanswered().ok_or_else(nothing_asked)?;
                let at = request.answered as usize;
                request.answered += bytes.len() as u32;
                request.memory.as_mut().is_some_and(|memory| memory.fill_from(at, bytes))
            }
        };
        if !is_put {
            return Err(Trouble::Protocol("bytes for memory that may not be written".to_owned()));
        }
        if let Some(body) = &mut self.intake.body {
            body.done += bytes.len();
            if body.done == body.length {
                self.frame_is_whole(shared)?;
            } else {
                failpoint::reach("frame.half_read");
            }
        }
        Ok(bytes.len())
    }

    /// All bytes of a frame are where they belong.
    fn frame_is_whole(&mut self, shared: &mut Shared) -> Outcome {
        let Some(Incoming { to, length, .. }) = self.intake.body.take() else { return Ok(()) };
        let received = |token, memory, immediate| Completion {
            token,
            channel: self.key,
            is_receive: true,
            result: Ok(length as u32),
            immediate,
            memory: Some(memory),
        };
        match to {
            Place::Answer => {
                if self.unanswered().is_some_and(|request| request.answered == request.length) {
                    self.was_answered(&mut shared.ready)?;
                }
                return Ok(());
            }
            Place::Receive(token, memory) => shared.receive_ended(received(token, memory, None)),
            Place::Target(_, Some((value, token, memory))) => {
                shared.receive_ended(received(token, memory, Some(value)));
            }
            Place::Target(_, None) => {}
            Place::Message => {
                shared.message_came(self.key, &self.intake.message);
                self.intake.message.clear();
                return Ok(());
            }
        }
        self.output.did();
        Ok(())
    }
}

/// Reads to the piece of `memory` that has the byte at `at`; answers what came of it, and how much was wanted.
fn fill<C: Carrier>(
    carrier: &mut C,
    memory: &mut Transfer,
    at: usize,
    most: usize,
) -> Option<(Result<usize, Halt>, usize)> {
    let piece = memory.piece_from(at)?;
    let wanted = piece.len().min(most);
    Some((carrier.read(&mut piece[..wanted]), wanted))
}

/// The receive that is next.
fn take_receive(shared: &mut Shared) -> Outcome<(u64, Transfer)> {
    shared.receives.pop_front().ok_or(Trouble::Refused(Reason::NotReady))
}

fn nothing_asked() -> Trouble {
    Trouble::Protocol("an answer to nothing that was asked".to_owned())
}
