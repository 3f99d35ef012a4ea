//! The writing side of a stream: from bytes to messages, a few at once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::chunk::{Chunk, HEADER};
use crate::background::{Background, Turn};
use crate::message::Growing;
use crate::sync::lock;
use crate::sync::locks::Mutex;
use crate::{Channel, Error, ErrorKind, Result};

/// Bytes of a message, with its header.
const LONGEST: usize = 128 << 10;
/// Messages that are on their way at once.
const AT_ONCE: usize = 4;
/// How long a few bytes wait for more.
const PATIENCE: Duration = Duration::from_millis(5);

/// Nobody needs to wait for what is on its way: if no task does, the service thread goes on with it.
pub(super) struct Writer {
    channel: Channel,
    background: Background,
    state: Mutex<State>,
    /// The task that waits for room, or for the end.
    waiter: Mutex<Option<Waker>>,
    turn: Turn,
    is_timer_set: AtomicBool,
}

struct State {
    /// The next message, with room for its header in front; nothing at all if nothing was written.
    filling: Growing,
    sending: VecDeque<Pin<Box<dyn Future<Output = Result<()>> + Send>>>,
    /// Messages before the next one.
    sequence: u32,
    is_ended: bool,
    /// The peer reads no more, and has read all.
    is_stopped: bool,
    /// Bytes of the last message whose memory went along: the next is likely to need as much.
    expected: usize,
    failure: Option<Error>,
}

impl Writer {
    pub(super) fn new(channel: Channel) -> Arc<Self> {
        let state = State {
            filling: Growing::default(),
            sending: VecDeque::with_capacity(AT_ONCE),
            sequence: 0,
            is_ended: false,
            is_stopped: false,
            expected: 0,
            failure: None,
        };
        Arc::new(Self {
            background: Background::of(channel.connection()),
            channel,
            state: Mutex::new(state),
            waiter: Mutex::default(),
            turn: Turn::default(),
            is_timer_set: AtomicBool::new(false),
        })
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(super) fn background(&self) -> &Background {
        &self.background
    }

    /// Takes bytes, as many as fit into one message.
    pub(super) fn poll_write(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.poll(context, |state| {
            if state.is_ended {
                let error = Error::new(ErrorKind::Closed, "write").with_detail("the stream was shut down");
                return Poll::Ready(Err(self.channel.connection().refine(error)));
            }
            if state.is_stopped {
                return Poll::Ready(Err(self.stopped()));
            }
            if state.room() == 0 && !self.dispatch(state) {
                return Poll::Pending;
            }
            let mut taken = 0;
            for slice in slices {
                let part = &slice[..slice.len().min(state.room())];
                if let Err(error) = state.append(part) {
                    // What was taken before is written.
                    return Poll::Ready(if taken > 0 { Ok(taken) } else { Err(error) });
                }
                taken += part.len();
            }
            if state.room() == 0 {
                self.dispatch(state);
            } else if taken > 0 {
                self.set_timer();
            }
            Poll::Ready(Ok(taken))
        })
    }

    /// Sends what was written.
    pub(super) fn poll_flush(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll(context, |state| if self.dispatch(state) { Poll::Ready(Ok(())) } else { Poll::Pending })
    }

    /// Sends what was written and the end, and waits until all is there.
    pub(super) fn poll_shutdown(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll(context, |state| {
            if state.is_stopped {
                return Poll::Ready(Ok(()));
            }
            if !self.dispatch(state) || !self.end(state, false) {
                return Poll::Pending;
            }
            if state.sending.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
    }

    /// Brings everything to its end when the stream is gone; and tells the peer if nobody reads what it still writes.
    pub(super) async fn finish(self: &Arc<Self>, stops: bool) {
        let mut has_ended = false;
        let ended = poll_fn(|context| {
            self.poll(context, |state| {
                if !has_ended {
                    // Who does not read needs no end.
                    has_ended = state.is_stopped || self.dispatch(state) && self.end(state, stops);
                }
                if has_ended && state.sending.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
            })
        });
        // Whatever came of it, the channel carries nothing more.
        let _ = ended.await;
        let _ = self.channel.finish().await;
    }

    /// Sends what was written soon, though nobody waits for it.
    pub(super) fn nudge(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        if state.failure.is_none() {
            self.go_on(&mut state);
            self.dispatch(&mut state);
        }
    }

    /// What has not arrived is given up, and its memory with it.
    pub(super) fn give_up(&self) {
        lock(&self.state).fail(self.channel.connection().refine(Error::new(ErrorKind::Closed, "write")));
    }

    /// The peer reads no more. What it has not read is lost, which is an error; and so is what would be written now.
    pub(super) fn stop(&self) {
        let mut state = lock(&self.state);
        state.is_stopped = true;
        if state.filling.length() > HEADER || !state.sending.is_empty() {
            let error = self.stopped();
            state.fail(error);
        }
        drop(state);
        self.wake_waiter();
    }

    fn stopped(&self) -> Error {
        let error =
            Error::new(ErrorKind::PeerClosed, "write").with_detail("the peer has dropped its end of the stream");
        self.channel.connection().refine(error)
    }

    /// Goes on with what is on its way, then tries. Whoever waits is woken when it has gone on.
    fn poll<R>(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(&mut State) -> Poll<Result<R>>,
    ) -> Poll<Result<R>> {
        let mut state = lock(&self.state);
        self.go_on(&mut state);
        let mut attempt = |state: &mut State| {
            let polled = if state.failure.is_none() { attempt(state) } else { Poll::Pending };
            match &state.failure {
                Some(failure) => Poll::Ready(Err(failure.again("write"))),
                None => polled,
            }
        };
        let polled = attempt(&mut state);
        if polled.is_ready() {
            return polled;
        }
        *lock(&self.waiter) = Some(context.waker().clone());
        // What woke nobody, as nobody waited.
        self.go_on(&mut state);
        let polled = attempt(&mut state);
        if polled.is_ready() {
            *lock(&self.waiter) = None;
        }
        polled
    }

    /// Polls what is on its way; answers whether anything has arrived.
    fn go_on(self: &Arc<Self>, state: &mut State) -> bool {
        if state.sending.is_empty() {
            return false;
        }
        let waker = Waker::from(Arc::clone(self));
        let before = state.sending.len();
        let mut failure = None;
        state.sending.retain_mut(|sending| match sending.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => true,
            Poll::Ready(sent) => {
                failure = failure.take().or(sent.err());
                false
            }
        });
        if let Some(failure) = failure {
            state.fail(failure);
        }
        state.sending.len() < before
    }

    /// Sends what was written, if that is anything. Answers whether nothing is left.
    fn dispatch(self: &Arc<Self>, state: &mut State) -> bool {
        if state.filling.length() <= HEADER {
            return true;
        }
        self.send(state, Chunk { sequence: state.sequence, is_end: false, stops: false })
    }

    /// Sends the end, and that nothing more is read; once. Answers whether that is on its way.
    fn end(self: &Arc<Self>, state: &mut State, stops: bool) -> bool {
        let is_end = !state.is_ended;
        if !is_end && !stops {
            return true;
        }
        if state.append(&[]).is_err() {
            return false;
        }
        let is_sent = self.send(state, Chunk { sequence: state.sequence, is_end, stops });
        state.is_ended |= is_sent;
        is_sent
    }

    /// Sends what was filled under a header; answers whether it is on its way. If not, there was no room.
    fn send(self: &Arc<Self>, state: &mut State, chunk: Chunk) -> bool {
        if state.sending.len() >= AT_ONCE || state.failure.is_some() {
            return state.failure.is_some();
        }
        state.filling.written()[..HEADER].copy_from_slice(&chunk.to_bytes());
        if state.sending.is_empty() {
            match self.channel.try_send(state.filling.written()) {
                Ok(()) => {
                    // Short ones are copied, and the memory is filled again.
                    state.sequence = state.sequence.wrapping_add(1);
                    state.filling.clear();
                    return true;
                }
                Err(error) if matches!(error.kind(), ErrorKind::TooLong | ErrorKind::WouldBlock) => {}
                Err(error) => {
                    state.fail(error);
                    return true;
                }
            }
        }
        state.expected = state.filling.length();
        let (channel, buffer) = (self.channel.clone(), std::mem::take(&mut state.filling).into_buffer());
        state.sending.push_back(Box::pin(async move {
            channel.send_owned(buffer).await?;
            Ok(())
        }));
        state.sequence = state.sequence.wrapping_add(1);
        self.go_on(state);
        true
    }

    /// Has the service thread look after what nobody flushes, and what nobody waits for any more.
    fn set_timer(self: &Arc<Self>) {
        if self.is_timer_set.swap(true, Ordering::AcqRel) {
            return;
        }
        let writer = Arc::downgrade(self);
        self.background.run_at(self.background.now() + PATIENCE, move || {
            if let Some(writer) = writer.upgrade() {
                writer.is_timer_set.store(false, Ordering::Release);
                writer.look_after();
            }
        });
    }

    fn look_after(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        let has_gone_on = self.go_on(&mut state);
        self.dispatch(&mut state);
        let has_failed = state.failure.is_some();
        drop(state);
        if has_gone_on || has_failed {
            self.wake_waiter();
        }
    }

    fn wake_waiter(&self) {
        let waiter = lock(&self.waiter).take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl State {
    /// Bytes that the message which is being filled still takes.
    fn room(&self) -> usize {
        LONGEST - self.filling.length().max(HEADER)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.filling.length() == 0 {
            self.filling.reserve(self.expected)?;
            self.filling.append(&[0; HEADER])?;
        }
        self.filling.append(bytes)
    }

    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
        self.sending.clear();
        self.filling = Growing::default();
    }
}

impl Wake for Writer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// Something has arrived, perhaps.
    fn wake_by_ref(self: &Arc<Self>) {
        let waiter = lock(&self.waiter).take();
        if let Some(waiter) = waiter {
            waiter.wake();
            // Its task may have lost interest.
            return self.set_timer();
        }
        let writer = Arc::clone(self);
        self.turn.take(&self.background, move || {
            writer.turn.begin();
            writer.look_after();
        });
    }
}
