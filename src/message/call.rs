//! The calling side of requests and responses.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::alarm::Alarm;
#[cfg(feature = "bincode")]
use super::bincode::Bincode;
use super::call_frame::{Frame, HEADER, Kind};
use super::calls::{Calls, GivenUp};
use super::codec::{Codec, decode};
use super::growing::Growing;
use super::pump::Pump;
use crate::background::Background;
use crate::memory::Epoch;
use crate::sync::lock;
use crate::sync::locks::Mutex;
use crate::{Channel, Error, ErrorKind, Message, Result};

/// How long what is left to say is tried when nobody waits for it.
const LINGER: Duration = Duration::from_secs(2);
/// How long a task that was woken to receive has before another is woken.
const LATE: Duration = Duration::from_millis(25);
/// Messages that are received in one go; then other tasks of the thread get their turn.
const TURN: usize = 64;

/// Calls a peer that [serves](crate::serve()) the same channel: each request gets its own response, many at once, in
/// any order.
///
/// ```no_run
/// use std::time::Duration;
/// use zcmi::{Channel, Client, ErrorKind};
///
/// # async fn example(channel: Channel) -> zcmi::Result<()> {
/// let client = Client::new(channel);
/// let length: u64 = client.call("a text").await?;
/// match client.call_timeout::<str, u64>("another", Duration::from_millis(50)).await {
///     Ok(length) => println!("{length}"),
///     Err(error) if error.kind() == ErrorKind::Application => {
///         let reason = error.application().expect("the handler's error");
///         println!("{}: {}", reason.code(), reason.text());
///     }
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
///
/// Clones are handles to the same client, for many tasks. It needs no task of its own: one of the calls receives for
/// all, and when its future is dropped another goes on. When the last clone is dropped it finishes the channel, and
/// `serve` returns at the peer. The channel carries nothing else.
///
/// # Cancellation
///
/// Dropping the future of a call tells the server, which drops the handler's future. What the handler has done until
/// then is done. A response that comes later is ignored.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// How a call is made.
///
/// ```
/// use std::time::Duration;
/// let options = zcmi::CallOptions::default().timeout(Duration::from_secs(1));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CallOptions {
    limit: Option<Limit>,
}

/// Until when a call is waited for.
#[derive(Clone, Copy, Debug)]
enum Limit {
    At(Instant),
    Within(Duration),
}

impl CallOptions {
    /// Gives the call up at `deadline`. The server learns how much time is left, and then drops the handler's future by
    /// itself.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.limit = Some(Limit::At(deadline));
        self
    }

    /// As [`deadline`](Self::deadline), so long after the call has begun.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limit = Some(Limit::Within(timeout));
        self
    }
}

impl CallOptions {
    /// The limit that is set, or else that of `timeout`.
    pub(crate) fn or_timeout(self, timeout: Option<Duration>) -> Self {
        Self { limit: self.limit.or(timeout.map(Limit::Within)) }
    }

    /// The deadline of a call that begins now.
    fn from(self, now: Instant) -> Option<Instant> {
        match self.limit? {
            Limit::At(deadline) => Some(deadline),
            // One that lies beyond what the clock can tell is none.
            Limit::Within(timeout) => now.checked_add(timeout),
        }
    }
}

impl Client {
    /// A client on `channel`.
    pub fn new(channel: Channel) -> Self {
        let background = Background::of(channel.connection());
        let shared = Arc::new_cyclic(|shared| Shared {
            pump: Mutex::new(Pump::new(channel.clone(), Waker::from(Arc::new(Bell(Weak::clone(shared)))))),
            channel,
            calls: Mutex::new(Calls::new()),
            alarm: Alarm::new(background.clone()),
            background,
            is_awaited: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            epoch: Epoch::current(),
        });
        Self { shared }
    }

    /// Its channel.
    pub fn channel(&self) -> &Channel {
        &self.shared.channel
    }

    /// Sends a request and waits for its response; both are encoded by [`Bincode`].
    ///
    /// # Errors
    /// [`Application`](ErrorKind::Application) if the handler answered an error: [`Error::application`] has it.
    /// [`Panicked`](ErrorKind::Panicked) if it panicked. [`Encode`](ErrorKind::Encode) and
    /// [`Decode`](ErrorKind::Decode) if the types are not what the other side takes them for.
    /// [`PeerClosed`](ErrorKind::PeerClosed) if the server has stopped serving; whatever ended the connection;
    /// [`Protocol`](ErrorKind::Protocol) if the peer is no server. After these three all calls of the client fail.
    #[cfg(feature = "bincode")]
    pub async fn call<Q: Serialize + ?Sized, R: DeserializeOwned>(&self, request: &Q) -> Result<R> {
        self.call_with(&Bincode::default(), request, CallOptions::default()).await
    }

    /// As [`call`](Self::call), and gives up after `timeout`.
    ///
    /// # Errors
    /// As [`call`](Self::call), and [`TimedOut`](ErrorKind::TimedOut).
    #[cfg(feature = "bincode")]
    pub async fn call_timeout<Q: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        request: &Q,
        timeout: Duration,
    ) -> Result<R> {
        self.call_with(&Bincode::default(), request, CallOptions::default().timeout(timeout)).await
    }

    /// As [`call`](Self::call), with a codec of one's own and options.
    ///
    /// # Errors
    /// As [`call`](Self::call), and [`TimedOut`](ErrorKind::TimedOut) at the deadline.
    pub async fn call_with<Q: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        codec: &impl Codec,
        request: &Q,
        options: CallOptions,
    ) -> Result<R> {
        let deadline = options.from(self.shared.background.now());
        let answered = async {
            let mut message = Growing::default();
            message.append(&[0; HEADER])?;
            message.append_value(codec, request, "call")?;
            let response = self.exchange(message, deadline).await?;
            decode(codec, response.get(HEADER..).unwrap_or_default(), "call")
        };
        answered.await.map_err(|error| self.channel().connection().refine(error))
    }

    async fn exchange(&self, message: Growing, deadline: Option<Instant>) -> Result<Message> {
        let shared = &self.shared;
        let call = OpenCall::new(shared, deadline)?;
        let mut unsent = Some(message);
        let mut sending = pin!(None);
        let answered = poll_fn(|context| {
            if let Some(answer) = lock(&shared.calls).poll(call.id, context.waker()) {
                return Poll::Ready(answer);
            }
            // Behind the registration: who rings the alarm wakes us.
            let remaining = deadline.map(|deadline| deadline.saturating_duration_since(shared.background.now()));
            if remaining.is_some_and(|remaining| remaining.is_zero()) {
                return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "call").with_detail("no answer in time")));
            }
            if unsent.is_some()
                && lock(&shared.calls).begin_to_send(call.id)
                && let Some(mut message) = unsent.take()
            {
                let kind = Kind::Request { remaining: remaining.map_or(0, milliseconds) };
                message.written()[..HEADER].copy_from_slice(&Frame { kind, call: call.id }.to_bytes());
                sending.set(Some(shared.channel.send_owned(message.into_buffer())));
            }
            if let Some(being_sent) = sending.as_mut().as_pin_mut()
                && let Poll::Ready(sent) = being_sent.poll(context)
            {
                sending.set(None);
                if let Err(failed) = sent {
                    return Poll::Ready(Err(failed.error.within("call")));
                }
            }
            // Also while it is being sent: the server may have no room before it gets rid of its answers.
            shared.receive(call.id, context);
            lock(&shared.calls).poll(call.id, context.waker()).map_or(Poll::Pending, Poll::Ready)
        });
        answered.await
    }
}

/// At least one: none is for ever.
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}

struct Shared {
    channel: Channel,
    calls: Mutex<Calls<Message>>,
    pump: Mutex<Pump>,
    background: Background,
    alarm: Alarm,
    /// Whether the receiver was woken and has not received.
    is_awaited: AtomicBool,
    is_watched: AtomicBool,
    epoch: Epoch,
}

impl Shared {
    /// Receives for all, if that is for this call to do.
    fn receive(&self, id: u64, context: &Context<'_>) {
        if !lock(&self.calls).is_receiver(id) {
            return;
        }
        self.is_awaited.store(false, Ordering::Release);
        let mut woken = Vec::new();
        let mut pump = lock(&self.pump);
        for turn in 0..=TURN {
            if turn == TURN {
                context.waker().wake_by_ref();
                break;
            }
            let Some(received) = pump.next() else { break };
            let accepted = received.and_then(|message| lock(&self.calls).accept(message, &mut woken));
            if let Err(error) = accepted {
                woken.append(&mut lock(&self.calls).end(error.within("call")));
                break;
            }
        }
        drop(pump);
        woken.into_iter().for_each(Waker::wake);
    }

    /// A message has come, perhaps.
    fn ring(self: &Arc<Self>) {
        let (receiver, are_several) = {
            let calls = lock(&self.calls);
            (calls.receiver(), calls.are_several())
        };
        let Some(receiver) = receiver else { return };
        self.is_awaited.store(true, Ordering::Release);
        receiver.wake();
        if are_several {
            self.watch();
        }
    }

    /// Sees to it that somebody receives: a future that is kept and not polled must not keep the others waiting.
    fn watch(self: &Arc<Self>) {
        if self.is_watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::downgrade(self);
        self.background.run_at(self.background.now() + LATE, move || {
            let Some(shared) = shared.upgrade() else { return };
            shared.is_watched.store(false, Ordering::Release);
            if shared.is_awaited.load(Ordering::Acquire) {
                let next = lock(&shared.calls).replace_receiver();
                if let Some(next) = next {
                    next.wake();
                    shared.watch();
                }
            }
        });
    }

    fn set_alarm(self: &Arc<Self>, when: Instant) {
        let shared = Arc::downgrade(self);
        self.alarm.set(when, move || {
            let Some(shared) = shared.upgrade() else { return };
            shared.alarm.has_rung();
            let (woken, next) = lock(&shared.calls).overdue(shared.background.now());
            if let Some(next) = next {
                shared.set_alarm(next);
            }
            woken.into_iter().for_each(Waker::wake);
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.epoch.is_current() {
            let channel = self.channel.clone();
            let are_answers_due = lock(&self.calls).are_answers_due();
            let farewell = async move {
                let mut is_open = channel.finish().await.is_ok() && are_answers_due;
                while is_open {
                    // Answers to what was given up: unless somebody takes them, the server waits for room and does not end.
                    is_open = channel.recv().await.is_ok();
                }
            };
            self.background.run(farewell, LINGER);
        }
    }
}

/// Wakes who is to receive.
struct Bell(Weak<Shared>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(shared) = self.0.upgrade() {
            shared.ring();
        }
    }
}

/// A call whose future lives.
struct OpenCall<'a> {
    shared: &'a Arc<Shared>,
    id: u64,
}

impl<'a> OpenCall<'a> {
    fn new(shared: &'a Arc<Shared>, deadline: Option<Instant>) -> Result<Self> {
        let (opened, woken) = lock(&shared.calls).open(deadline);
        woken.into_iter().for_each(Waker::wake);
        let call = Self { shared, id: opened? };
        if let Some(deadline) = deadline {
            shared.set_alarm(deadline);
        }
        Ok(call)
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        if !self.shared.epoch.is_current() {
            // A forked child: the call is its parent's.
            return;
        }
        let (given_up, woken) = lock(&self.shared.calls).give_up(self.id);
        woken.into_iter().for_each(Waker::wake);
        if given_up == GivenUp::TellServer {
            say(&self.shared.channel, Frame { kind: Kind::Cancel, call: self.id }, "");
        }
    }
}

/// Sends what nobody waits for: now if there is room, else in the background.
pub(super) fn say(channel: &Channel, frame: Frame, text: &str) {
    let message = [&frame.to_bytes(), text.as_bytes()].concat();
    if let Err(error) = channel.try_send(&message)
        && error.kind() == ErrorKind::WouldBlock
    {
        let (background, channel) = (Background::of(channel.connection()), channel.clone());
        background.run(async move { drop(channel.send(&message).await) }, LINGER);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Calls that are given up are open until the server has answered them.
        let (open, unanswered) = lock(&self.shared.calls).count();
        let mut fields = f.debug_struct("Client");
        fields.field("open", &open).field("unanswered", &unanswered);
        fields.field("channel", self.channel()).finish_non_exhaustive()
    }
}
