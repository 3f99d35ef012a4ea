//! Writing: frames are made when the carrier takes them, and their bytes are taken from where they are.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::access::{Accesses, Target};
use super::carrier::{Carrier, Halt};
use super::channel::{Channel, Outcome, Standing, Trouble, find};
use super::frame::{Frame, HEADER, Header, MOST_MESSAGE, Reason, SHORT_HEADER};
use crate::memory::{Registrable, volatile};
use crate::{Access, ErrorKind, failpoint};

/// Bytes of a message's head that are written with its header.
const MOST_HEAD: usize = 32;
/// Frames that are written by one call.
const BATCH: usize = 16;
/// Pieces of memory in one call.
const PIECES: usize = 64;
/// What one call is given, at least, if there is so much.
const BYTES: usize = 1 << 18;
/// What one call writes, or somewhat more, so that others get their turn.
const TURN: usize = 1 << 20;
/// Bytes of a read that are answered at once, for the same reason.
const CHUNK: u32 = 1 << 20;
/// Of exposed memory, what is copied to be written with its header.
const SHORT: usize = 4096;
/// Bytes of a frame that is half written when its channel fails, which are kept so that what comes behind it can be said.
const MOST_LAST_WORDS: usize = 1 << 20;

/// What is to be written, and what of it is being written.
#[derive(Default)]
pub(super) struct Outgoing {
    frames: VecDeque<Written>,
    /// Of the peer's requests.
    answers: VecDeque<Answer>,
    /// The peer's requests that are done, those that wait for their answer included.
    done: u64,
    /// What the frames say of that, and what those that are written have said.
    told: u64,
    said: u64,
    /// Bytes that are written.
    pub(super) total: u64,
    /// Polls that have found nothing of the peer since it was to be told.
    pub(super) dry_polls: u32,
    /// The last that is said: which request is refused.
    refusal: Option<(u64, Reason)>,
    /// Whether the carrier takes nothing at present, or has taken enough: it is waited for until it takes more.
    pub(super) is_blocked: bool,
    /// Whether a frame is half written and will stay so: whatever followed it would be taken for its bytes.
    pub(super) is_cut: bool,
    is_answers_turn: bool,
}

struct Written {
    header: [u8; HEADER],
    body: Body,
    length: usize,
    /// Bytes of header and body that are written.
    sent: usize,
    /// How many of the peer's requests it says are done.
    tells: u64,
    of: Of,
}

/// What a frame belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Nothing,
    /// A request of ours.
    Ours,
    Refusal,
    /// The peer's request of this number.
    Theirs(u64),
}

enum Body {
    Copied(Vec<u8>),
    Exposed(Target),
    None,
    /// The memory of the request of this number.
    Request(u64),
}

/// What a request of the peer is answered.
struct Answer {
    request: u64,
    what: What,
}

enum What {
    Bytes { target: Target, left: u32 },
    Word(u64),
}

impl Outgoing {
    pub(super) fn new() -> Self {
        let (frames, answers) = (VecDeque::with_capacity(BATCH + 2), VecDeque::with_capacity(BATCH));
        Self { frames, answers, ..Self::default() }
    }

    /// The peer's requests that may be acknowledged: those before the first that is not answered.
    fn acknowledgeable(&self) -> u64 {
        self.answers.front().map_or(self.done, |answer| self.done.min(answer.request - 1))
    }

    /// Requests that the peer is still to be told of.
    pub(super) fn untold(&self) -> u64 {
        self.acknowledgeable().saturating_sub(self.told)
    }

    pub(super) fn answers(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn has_any(&self) -> bool {
        !self.is_cut && (!self.frames.is_empty() || !self.answers.is_empty() || self.refusal.is_some())
    }

    /// The request that comes next is done.
    pub(super) fn did(&mut self) {
        self.done += 1;
    }

    /// The request that comes next is a read of this.
    pub(super) fn answer_read(&mut self, target: Target, length: u32) {
        self.done += 1;
        self.answers.push_back(Answer { request: self.done, what: What::Bytes { target, left: length } });
    }

    /// The request that comes next is an atomic operation, which has found this.
    pub(super) fn answer_word(&mut self, old: u64) {
        self.done += 1;
        self.answers.push_back(Answer { request: self.done, what: What::Word(old) });
    }

    /// The request that comes next is refused; nothing else is said after that.
    pub(super) fn refuse(&mut self, reason: Reason) {
        if self.refusal.is_none() {
            self.refuse_number(self.done + 1, reason);
        }
    }

    fn refuse_number(&mut self, request: u64, reason: Reason) {
        self.done = self.acknowledgeable().min(request - 1);
        self.answers.clear();
        self.refusal = Some((request, reason));
        self.drop_unbegun();
    }

    /// Takes back the frames that are not begun, and what they would have said: a request whose answer goes is not done.
    fn drop_unbegun(&mut self) {
        let done = &mut self.done;
        self.frames.retain(|frame| {
            let stays = frame.sent > 0 || frame.of == Of::Refusal;
            if !stays && let Of::Theirs(request) = frame.of {
                *done = (*done).min(request - 1);
            }
            stays
        });
        self.told = self.frames.back().map_or(self.said, |last| last.tells);
    }

    fn cut(&mut self) {
        self.frames.clear();
        self.is_cut = true;
    }

    fn push(&mut self, frame: Frame, body: Body, length: usize, of: Of) {
        self.told = self.acknowledgeable();
        self.dry_polls = 0;
        let tells = self.told;
        let header = Header { acknowledged: tells, frame }.to_bytes();
        self.frames.push_back(Written { header, body, length, sent: 0, tells, of });
    }

    /// Makes the next frame of an answer.
    fn push_answer(&mut self) {
        let Some(front) = self.answers.front_mut() else { return };
        failpoint::reach("answer.due");
        let of = Of::Theirs(front.request);
        match &mut front.what {
            What::Word(old) => {
                let frame = Frame::Word { old: *old };
                self.push(frame, Body::None, 0, of);
                self.answers.pop_front();
            }
            What::Bytes { target, left } => {
                let length = CHUNK.min(*left);
                let from = *target;
                (*target, *left) = (target.behind(length as usize), *left - length);
                let is_last = *left == 0;
                self.push(Frame::Data { length }, Body::Exposed(from), length as usize, of);
                if is_last {
                    self.answers.pop_front();
                }
            }
        }
    }

    /// Whether nothing is to be written, nor ever will be too late for what comes now.
    fn is_clear(&self) -> bool {
        let has_ended = self.is_cut || self.refusal.is_some();
        self.frames.is_empty() && self.answers.is_empty() && !self.is_blocked && !has_ended
    }

    /// Tells the peer what is done, if nothing else does. To one that takes nothing, later.
    pub(super) fn acknowledge(&mut self) {
        if self.untold() > 0 && self.refusal.is_none() && !self.is_cut && !self.is_blocked {
            failpoint::reach("acknowledgement.due");
            self.push(Frame::Acknowledge, Body::None, 0, Of::Nothing);
        }
    }
}

impl<C: Carrier> Channel<C> {
    /// Whether a message of `length` bytes can be written at once: the carrier takes it whole, and nothing waits before it.
    #[inline]
    pub(super) fn takes_now(&mut self, length: usize) -> bool {
        let is_open = self.standing == Standing::Active && self.socket.is_open();
        let waits = self.next != self.first + self.pending.len() as u64 || !self.output.is_clear();
        is_open && !waits && length <= MOST_MESSAGE && self.carrier.takes_whole(SHORT_HEADER + length)
    }

    /// Writes a message that can be written at once.
    #[inline]
    pub(super) fn send_now(&mut self, head: &[u8], pieces: &[IoSlice<'_>]) {
        let length = pieces.iter().fold(head.len(), |length, piece| length + piece.len());
        let tells = self.output.acknowledgeable();
        let header = Header::message(tells, length as u32);
        let mut heads = [0; SHORT_HEADER + MOST_HEAD];
        match heads[SHORT_HEADER..].get_mut(..head.len()) {
            Some(to) => {
                to.copy_from_slice(head);
                heads[..SHORT_HEADER].copy_from_slice(&header);
                self.carrier.write_whole([&heads[..SHORT_HEADER + head.len()], &[]], pieces);
            }
            None => self.carrier.write_whole([&header, head], pieces),
        }
        (self.output.told, self.output.said, self.output.dry_polls) = (tells, tells, 0);
        self.output.total += (SHORT_HEADER + length) as u64;
    }

    /// Makes frames of what is to be written, as long as there is room in a batch.
    fn make_frames(&mut self) {
        let mut bytes = 0;
        if self.output.is_cut {
            return;
        }
        while self.output.frames.len() < BATCH && bytes < BYTES {
            let next = self.next_request();
            if let Some((request, reason)) = self.output.refusal {
                if self.output.frames.back().is_none_or(|last| last.of != Of::Refusal) && !self.output.is_cut {
                    self.output.push(Frame::Refuse { request, reason }, Body::None, 0, Of::Refusal);
                }
                return;
            }
            let answers = !self.output.answers.is_empty();
            if answers && (next.is_none() || self.output.is_answers_turn) {
                self.output.is_answers_turn = false;
                self.output.push_answer();
            } else if let Some((number, request)) = next {
                let (frame, is_read) = (Self::frame(request), request.is_read());
                let length = if is_read { 0 } else { request.length as usize };
                let body = if length == 0 { Body::None } else { Body::Request(number) };
                self.output.is_answers_turn = true;
                self.next += 1;
                self.reads_out += usize::from(is_read);
                self.output.push(frame, body, length, Of::Ours);
            } else {
                return;
            }
            bytes += self.output.frames.back().map_or(0, |last| HEADER + last.length);
        }
    }

    /// Writes what the carrier takes.
    pub(super) fn write(&mut self, accesses: &Accesses) -> Outcome {
        self.output.is_blocked = false;
        if !self.socket.is_open() || self.output.is_cut {
            return Ok(());
        }
        let written = self.write_frames(accesses);
        self.carrier.flush();
        written
    }

    fn write_frames(&mut self, accesses: &Accesses) -> Outcome {
        let mut total = 0;
        loop {
            self.make_frames();
            let written = match self.output.frames.front() {
                None => return Ok(()),
                Some(_) if total >= TURN => {
                    self.output.is_blocked = true;
                    return Ok(());
                }
                Some(Written { body: Body::Exposed(target), sent, length, .. })
                    if *sent >= HEADER || *length <= SHORT =>
                {
                    self.write_exposed(accesses, *target, *sent, *length)?
                }
                Some(_) => self.write_batch(),
            };
            match written {
                Ok(bytes) => {
                    total += bytes;
                    self.advance(bytes);
                }
                Err(Halt::Later) => {
                    self.output.is_blocked = true;
                    return Ok(());
                }
                Err(Halt::Lost(error)) => {
                    self.output.cut();
                    if error.kind() == ErrorKind::ConnectionBroken {
                        // Only writing has failed.
                        return Err(Trouble::Lost(error));
                    }
                    // What the peer has said before is still to be read, and then the end of the stream.
                    self.why_lost.get_or_insert(error);
                    return Ok(());
                }
                Err(Halt::Protocol(detail)) => {
                    self.output.cut();
                    return Err(Trouble::Protocol(detail));
                }
            }
        }
    }

    /// Writes from memory that the peer may read: as long as it may.
    fn write_exposed(
        &mut self,
        accesses: &Accesses,
        target: Target,
        sent: usize,
        length: usize,
    ) -> Outcome<Result<usize, Halt>> {
        let done = sent.saturating_sub(HEADER);
        let (rest, at) = (length - done, target.behind(done));
        if sent < HEADER || rest <= SHORT {
            let mut copy = [0; SHORT];
            let copied = &mut copy[..rest];
            let is_there = rest == 0
                || accesses.with(self.key, at, rest, |memory, offset| volatile::load(memory, offset, copied)).is_some();
            if !is_there {
                return self.cannot_read(sent).map(|()| Ok(0));
            }
            let header = self.output.frames.front().map_or(&[][..], |front| &front.header[sent.min(HEADER)..]);
            return Ok(self.carrier.write(&[IoSlice::new(header), IoSlice::new(&copy[..rest])], false));
        }
        let carrier = &mut self.carrier;
        match accesses.lend(self.key, at, rest, |memory, offset| carrier.write_from(memory, offset, rest)) {
            Some(written) => Ok(written),
            None => self.cannot_read(sent).map(|()| Ok(0)),
        }
    }

    /// The peer may not read any more what it has asked for.
    fn cannot_read(&mut self, sent: usize) -> Outcome {
        match self.output.frames.front().map(|front| front.of) {
            Some(Of::Theirs(request)) if sent == 0 => self.output.refuse_number(request, Reason::Access),
            // A refusal would be taken for its bytes.
            _ => self.output.cut(),
        }
        Err(Trouble::Refused(Reason::Access))
    }

    /// Writes frames up to the first whose bytes are taken from elsewhere.
    fn write_batch(&mut self) -> Result<usize, Halt> {
        let segments = self.capabilities().segments;
        let Self { carrier, output, pending, first, .. } = self;
        let mut slices = [IoSlice::new(&[]); PIECES];
        let (mut count, mut goes_on) = (0, false);
        for frame in &output.frames {
            if count + 2 + segments > PIECES {
                break;
            }
            if frame.sent < HEADER {
                slices[count] = IoSlice::new(&frame.header[frame.sent..]);
                count += 1;
            }
            let skip = frame.sent.saturating_sub(HEADER);
            match &frame.body {
                Body::None => {}
                Body::Copied(bytes) => {
                    slices[count] = IoSlice::new(&bytes[skip..]);
                    count += 1;
                }
                Body::Request(number) => {
                    if let Some(memory) = find(pending, *first, *number).and_then(|request| request.memory.as_ref()) {
                        count += memory.gather(skip, &mut slices[count..]);
                    }
                }
                Body::Exposed(_) => {
                    goes_on = true;
                    break;
                }
            }
        }
        carrier.write(&slices[..count], goes_on)
    }

    /// So many bytes were written.
    fn advance(&mut self, mut bytes: usize) {
        self.output.total += bytes as u64;
        while let Some(front) = self.output.frames.front_mut() {
            let left = HEADER + front.length - front.sent;
            if bytes < left {
                front.sent += bytes;
                failpoint::reach("frame.half_written");
                return;
            }
            bytes -= left;
            self.written += u64::from(front.of == Of::Ours);
            self.output.said = front.tells;
            // It is the last.
            self.output.is_cut |= front.of == Of::Refusal;
            self.output.frames.pop_front();
        }
    }

    /// Has nothing more written but the frame that is half written, and then why it ends, or what is done.
    pub(super) fn keep_last_words(&mut self, accesses: &Accesses) {
        self.keep_back();
        self.output.drop_unbegun();
        self.output.done = self.output.acknowledgeable();
        self.output.answers.clear();
        self.output.acknowledge();
        let Some(front) = self.output.frames.front().filter(|front| front.sent > 0) else { return };
        let done = front.sent.max(HEADER) - HEADER;
        let left = front.length - done;
        if left > MOST_LAST_WORDS {
            return self.output.cut();
        }
        let mut rest = vec![0; left];
        let is_whole = match &front.body {
            Body::Copied(_) | Body::None => return,
            Body::Exposed(target) => {
                let copy = |memory: &dyn Registrable, offset| volatile::load(memory, offset, &mut rest);
                accesses.with(self.key, target.behind(done), left, copy).is_some()
            }
            Body::Request(number) => {
                let memory = self.request(*number).and_then(|request| request.memory.as_ref());
                memory.is_some_and(|memory| memory.copy_from(done, &mut rest))
            }
        };
        match self.output.frames.front_mut() {
            Some(front) if is_whole => {
                // What is written already is forgotten.
                (front.length, front.sent) = (left, front.sent.min(HEADER));
                front.body = Body::Copied(rest);
            }
            _ => self.output.cut(),
        }
    }

    /// Whether there is something left that should be written before the end.
    pub(super) fn has_last_words(&self) -> bool {
        self.output.has_any()
    }
}

/// What a peer may read.
pub(super) fn readable(address: u64, key: u32) -> Target {
    Target { address, key, right: Access::READ }
}
