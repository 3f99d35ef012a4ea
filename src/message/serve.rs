//! The answering side of requests and responses.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::alarm::Alarm;
use super::application_error::{ApplicationError, travelling};
#[cfg(feature = "bincode")]
use super::bincode::Bincode;
use super::call::say;
use super::call_frame::{Frame, Kind, Refusal, Side};
use super::codec::{Codec, decode};
use super::growing::Growing;
use super::handling::{Handling, Outcome};
use super::taken::Taken;
use crate::background::Background;
use crate::memory::Epoch;
use crate::{Buffer, Channel, Error, ErrorKind, Message, Result};

/// How long the channel's end is tried to be sent.
const LINGER: Duration = Duration::from_secs(2);
/// How often it is looked whether the client's connection is gone, when it sends no more and handlers still run.
const LOOK: Duration = Duration::from_millis(100);
/// Messages that are handled in one go; then other tasks of the thread get their turn.
const TURN: usize = 64;

/// Serves a channel: calls `handler` with each request that a [`Client`](crate::Client) at the peer sends, and sends
/// back what it answers. Up to `limit` handlers run at once, all within this future: it needs no runtime, and a handler
/// that blocks holds up the others. Resolves when the client is gone and the last handler has ended.
///
/// ```no_run
/// use zcmi::{ApplicationError, Channel, serve};
///
/// # async fn example(channel: Channel) -> zcmi::Result<()> {
/// serve(channel, 100, |text: String| async move {
///     match text.as_str() {
///         "" => Err(ApplicationError::new(1, "nothing to measure")),
///         text => Ok(text.len() as u64),
///     }
/// })
/// .await
/// # }
/// ```
///
/// - A client that has as many calls open as are taken waits. Were more to come all the same, they would not be
///   received.
/// - A call that the client gives up, or whose time is over, is no longer polled: the handler's future is dropped.
/// - A handler's error goes to the client as a value: a code and a text. A panic goes there as
///   [`Panicked`](ErrorKind::Panicked), and the server goes on.
/// - Dropping this future drops the handlers and tells the client, whose calls fail.
///
/// # Errors
/// Whatever ended the connection, unless the client has closed it. [`Protocol`](ErrorKind::Protocol) if the peer sends
/// what no client does: the connection lives on.
#[cfg(feature = "bincode")]
pub fn serve<Q, R, E, H, F>(channel: Channel, limit: usize, handler: H) -> impl Future<Output = Result<()>>
where
    Q: DeserializeOwned,
    R: Serialize,
    E: Into<ApplicationError>,
    H: Fn(Q) -> F,
    F: Future<Output = std::result::Result<R, E>>,
{
    serve_with(channel, Bincode::default(), limit, handler)
}

/// As [`serve`], with a codec of one's own.
///
/// # Errors
/// As [`serve`].
pub fn serve_with<Q, R, E, H, F>(
    channel: Channel,
    codec: impl Codec,
    limit: usize,
    handler: H,
) -> impl Future<Output = Result<()>>
where
    Q: DeserializeOwned,
    R: Serialize,
    E: Into<ApplicationError>,
    H: Fn(Q) -> F,
    F: Future<Output = std::result::Result<R, E>>,
{
    // The client is to hear that nobody serves it also from a future that is never polled.
    let farewell = Farewell { channel, text: Some(String::new()), epoch: Epoch::current() };
    serve_until(farewell, codec, limit, handler)
}

async fn serve_until<Q, R, E, H, F>(mut farewell: Farewell, codec: impl Codec, limit: usize, handler: H) -> Result<()>
where
    Q: DeserializeOwned,
    R: Serialize,
    E: Into<ApplicationError>,
    H: Fn(Q) -> F,
    F: Future<Output = std::result::Result<R, E>>,
{
    let channel = farewell.channel.clone();
    let bell = Arc::new(Bell::default());
    let background = Background::of(channel.connection());
    let alarm = Alarm::new(background.clone());
    let mut taken = Taken::new(limit);
    let mut working = FuturesUnordered::new();
    let mut receiving = pin!(None);
    let mut is_open = true;
    let window = Kind::Window { calls: u32::try_from(taken.window()).unwrap_or(u32::MAX) };
    working.push(work(&channel, &codec, 0, Work::Say(window, String::new())));

    let served = poll_fn(|context| {
        bell.waker.register(context.waker());
        if bell.has_rung.swap(false, Ordering::AcqRel) {
            alarm.has_rung();
            let (overdue, next) = taken.time_out(background.now());
            for id in overdue {
                working.push(work(&channel, &codec, id, Work::refuse(Refusal::OutOfTime)));
            }
            if let Some(next) = next {
                bell.set(&alarm, next);
            }
        }
        for _ in 0..TURN {
            let mut has_gone_on = false;
            while let Poll::Ready(Some(done)) = Pin::new(&mut working).poll_next(context) {
                let done: Done = done;
                taken.end(done.call, done.was_handled);
                has_gone_on = true;
                if done.is_lost && !is_open {
                    // Nobody hears the others either.
                    return Poll::Ready(Ok(()));
                }
            }
            while let Some((id, request, stop)) = taken.next() {
                // Within a future, so that what panics there is caught with the rest.
                let handler = &handler;
                let handling = Handling::new(async move { handler(request).await }, stop);
                working.push(work(&channel, &codec, id, Work::Handle(handling)));
                has_gone_on = true;
            }
            if !is_open {
                if working.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                if channel.connection().ending().is_some() {
                    return Poll::Ready(Ok(()));
                }
                bell.set(&alarm, background.now() + LOOK);
            } else if working.len() + taken.waiting() <= taken.window() {
                // A client that keeps to the window can only cancel now, which must be heard.
                if receiving.is_none() {
                    receiving.set(Some(channel.recv()));
                }
                if let Some(being_received) = receiving.as_mut().as_pin_mut()
                    && let Poll::Ready(received) = being_received.poll(context)
                {
                    receiving.set(None);
                    has_gone_on = true;
                    match received {
                        Ok(message) => {
                            match take(&mut taken, &codec, &message, &background, |when| bell.set(&alarm, when)) {
                                Ok(None) => {}
                                Ok(Some((id, refusal))) => working.push(work(&channel, &codec, id, refusal)),
                                Err(error) => return Poll::Ready(Err(error)),
                            }
                        }
                        Err(error) if error.kind() == ErrorKind::PeerClosed => is_open = false,
                        Err(error) => return Poll::Ready(Err(error.within("serve"))),
                    }
                }
            }
            if !has_gone_on {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    });
    let served = served.await;
    farewell.text = served.as_ref().err().map(ToString::to_string);
    if served.is_ok() {
        let channel = channel.clone();
        background.run(async move { drop(channel.finish().await) }, LINGER);
    }
    served.map_err(|error| channel.connection().refine(error))
}

/// Takes a message of the client. Answers what is to be said at once, or what is wrong with it.
fn take<Q: DeserializeOwned, F>(
    taken: &mut Taken<Q>,
    codec: &impl Codec,
    message: &Message,
    background: &Background,
    set_alarm: impl FnOnce(Instant),
) -> Result<Option<(u64, Work<F>)>> {
    let protocol = |reason: &str| Error::new(ErrorKind::Protocol, "serve").with_detail(reason);
    let (frame, payload) = Frame::parse(message, Side::Client).map_err(protocol)?;
    let id = frame.call;
    match frame.kind {
        Kind::Request { remaining } => {
            let deadline = (remaining > 0).then(|| background.now() + Duration::from_millis(remaining.into()));
            if !taken.insert(id, deadline) {
                return Err(protocol(&format!("call {id} twice")));
            }
            if let Some(deadline) = deadline {
                set_alarm(deadline);
            }
            // What a type does while it is being decoded is the application's too.
            match catch_unwind(AssertUnwindSafe(|| decode(codec, payload, "serve"))) {
                Ok(Ok(request)) => taken.enqueue(id, request),
                Ok(Err(error)) => {
                    return Ok(Some((id, Work::Say(Kind::Refused(Refusal::Undecodable), reason(&error)))));
                }
                Err(_) => return Ok(Some((id, Work::refuse(Refusal::Panicked)))),
            }
            Ok(None)
        }
        _ => Ok(taken.cancel(id).then(|| (id, Work::refuse(Refusal::Cancelled)))),
    }
}

/// What a codec says, without what the client knows anyway.
fn reason(error: &Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| source.to_string())
}

/// One answer to be sent.
enum Work<F> {
    Handle(Handling<F>),
    Say(Kind, String),
}

impl<F> Work<F> {
    fn refuse(refusal: Refusal) -> Self {
        Self::Say(Kind::Refused(refusal), String::new())
    }
}

/// An answer that was sent, or is lost with the connection.
struct Done {
    call: u64,
    was_handled: bool,
    is_lost: bool,
}

async fn work<R, E, F>(channel: &Channel, codec: &impl Codec, call: u64, work: Work<F>) -> Done
where
    R: Serialize,
    E: Into<ApplicationError>,
    F: Future<Output = std::result::Result<R, E>>,
{
    let was_handled = matches!(work, Work::Handle(_));
    let answer = match work {
        Work::Handle(handling) => match handling.await {
            Outcome::Answered(Ok(response)) => encode(codec, call, &response),
            Outcome::Answered(Err(error)) => {
                let error: ApplicationError = error.into();
                Err((Kind::Failed { code: error.code() }, error.text().to_owned()))
            }
            Outcome::Refused(refusal) => Err((Kind::Refused(refusal), String::new())),
        },
        Work::Say(kind, text) => Err((kind, text)),
    };
    let sent = match answer {
        Ok(response) => channel.send_owned(response).await.map(drop).map_err(Error::from),
        Err((kind, text)) => channel.send(&[&Frame { kind, call }.to_bytes(), travelling(&text)].concat()).await,
    };
    Done { call, was_handled, is_lost: sent.is_err() }
}

fn encode<R: Serialize>(codec: &impl Codec, call: u64, response: &R) -> std::result::Result<Buffer, (Kind, String)> {
    let mut message = Growing::default();
    let encoded = catch_unwind(AssertUnwindSafe(|| {
        message.append(&Frame { kind: Kind::Response, call }.to_bytes())?;
        message.append_value(codec, response, "serve")
    }));
    match encoded {
        Ok(Ok(())) => Ok(message.into_buffer()),
        Ok(Err(error)) => Err((Kind::Refused(Refusal::Unencodable), reason(&error))),
        Err(_) => Err((Kind::Refused(Refusal::Panicked), String::new())),
    }
}

/// Wakes the server at a deadline.
#[derive(Default)]
struct Bell {
    waker: AtomicWaker,
    has_rung: AtomicBool,
}

impl Bell {
    fn set(self: &Arc<Self>, alarm: &Alarm, when: Instant) {
        let bell = Arc::downgrade(self);
        alarm.set(when, move || {
            if let Some(bell) = bell.upgrade() {
                bell.has_rung.store(true, Ordering::Release);
                bell.waker.wake();
            }
        });
    }
}

/// Tells the client when the server stops, unless the client has stopped before.
struct Farewell {
    channel: Channel,
    text: Option<String>,
    epoch: Epoch,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(text) = self.text.take().filter(|_| self.epoch.is_current()) {
            say(&self.channel, Frame { kind: Kind::Gone, call: 0 }, &text);
        }
    }
}
