//! The seam: what the layers above ask of a transport.
//!
//! It is verbs-shaped. A [`Domain`] registers memory; a [`Queue`] owns the channels of one
//! worker and all that they have in flight, posts batches, and is polled; [`Transport`] opens both and sets
//! connections up. The data path is statically dispatched. Everything here is safe: an operation's memory is
//! owned by the queue from post to completion, so no implementation leaks a lifetime into the layers above.

#[cfg(feature = "verbs")]
pub(crate) mod verbs;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::memory::{Domain, Registration, Transfer};
use crate::{Access, Error, Result};

/// Names a channel of a [`Queue`]. The number of a closed one is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChannelKey(pub(crate) u32);

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The old value of the aligned `u64` comes into the memory of the request.
    CompareSwap {
        address: u64,
        key: u32,
        compare: u64,
        swap: u64,
    },
    FetchAdd {
        address: u64,
        key: u32,
        add: u64,
    },
    Read {
        address: u64,
        key: u32,
    },
    Send,
    Write {
        address: u64,
        key: u32,
    },
}

/// The memory of a request.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// Copied at once; up to [`Capabilities::inline`].
    Inline(&'a [u8]),
    /// Owned by the queue until the completion.
    Owned(Transfer),
}

/// Names a window of a [`Queue`]; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WindowKey(pub(crate) u64);

/// What a window is to open to the peer of its channel, and to nobody else.
#[derive(Clone)]
pub(crate) struct Opening {
    /// Made with [`RegionAccess::Windows`](crate::memory::RegionAccess), and opened whole: not every device looks at the
    /// bounds of a window within its region.
    pub(crate) region: Arc<dyn Registration>,
    pub(crate) access: Access,
}

/// A request to open memory that was not taken. Without an error the channel is full, which polling mends.
#[derive(Debug)]
pub(crate) struct NotBound {
    pub(crate) error: Option<Error>,
    /// Whether the device may carry it out all the same.
    pub(crate) is_doubtful: bool,
}

impl From<Error> for NotBound {
    fn from(error: Error) -> Self {
        Self { error: Some(error), is_doubtful: false }
    }
}

/// A request to send, write or read.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// Comes back with the completion.
    pub(crate) token: u64,
    pub(crate) operation: Operation,
    pub(crate) source: Source<'a>,
    /// Whether success is reported at once, or with the next request that asks for it.
    pub(crate) signaled: bool,
}

/// A request that was not taken. Without an error the channel is full, which polling mends.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: Option<Error>,
    pub(crate) memory: Option<Transfer>,
}

/// The end of a request.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) token: u64,
    pub(crate) channel: ChannelKey,
    pub(crate) is_receive: bool,
    /// Bytes received, or why it failed.
    pub(crate) result: std::result::Result<u32, Failure>,
    pub(crate) memory: Option<Transfer>,
}

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Not by itself: the channel had failed before or was closed.
    Flushed,
    /// By itself, which breaks the channel.
    Broken(Error),
}

/// Sizes of a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChannelSizes {
    pub(crate) segments: u32,
    pub(crate) sends: u32,
    pub(crate) receives: u32,
    pub(crate) inline: u32,
}

/// What a channel can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capabilities {
    /// Bytes that a request carries inline.
    pub(crate) inline: usize,
    /// Requests that can be outstanding.
    pub(crate) sends: usize,
    /// Bytes that one request carries.
    pub(crate) longest: u64,
    /// Pieces of memory that one request gathers or scatters.
    pub(crate) segments: usize,
}

/// The channels of one worker on one device, and their one completion queue.
pub(crate) trait Queue: Send + 'static {
    /// Adds a request to the batch of its channel. A batch of another channel is posted first.
    fn stage(&mut self, channel: ChannelKey, request: Request<'_>) -> std::result::Result<(), Refused>;
    /// Posts the batch, in one call of the device.
    fn flush(&mut self) -> Result<()>;
    /// Requests that still fit.
    fn room(&self, channel: ChannelKey) -> usize;
    fn post_receive(&mut self, channel: ChannelKey, token: u64, memory: Transfer) -> std::result::Result<(), Refused>;
    /// Appends completions; answers whether there may be more at once.
    fn poll(&mut self, done: &mut Vec<Completion>) -> Result<bool>;
    /// Makes the event descriptor readable with the next completion.
    fn request_notification(&mut self) -> Result<()>;
    /// Takes all events off the descriptor.
    fn drain_events(&mut self) -> Result<()>;
    /// A descriptor of its own for the events.
    fn event_descriptor(&self) -> Result<OwnedFd>;
    fn capabilities(&self, channel: ChannelKey) -> Capabilities;
    /// Opens memory to the peer, after what was posted before; answers the window and its key. It is there with the
    /// completion, which is always reported. A failed one breaks the channel. Without an error the channel is full.
    fn bind(
        &mut self,
        channel: ChannelKey,
        token: u64,
        opening: Opening,
    ) -> std::result::Result<(WindowKey, u32), NotBound>;
    /// Makes the window's key invalid, after what was posted before; with the completion no peer can use it. Only once for each
    /// window. Without an error the channel is full.
    fn invalidate(
        &mut self,
        channel: ChannelKey,
        token: u64,
        window: WindowKey,
    ) -> std::result::Result<(), Option<Error>>;
    /// Breaks the channel: everything outstanding is flushed, as far as the driver tells.
    fn fail(&mut self, channel: ChannelKey);
    /// Takes the channel out. The closure ends it, and its windows before it, which may block, and then answers what was
    /// outstanding.
    fn close(&mut self, channel: ChannelKey) -> Option<Box<dyn FnOnce() -> Vec<Completion> + Send>>;
}

/// A way to reach peers.
pub(crate) trait Transport: Sized + Send + Sync + 'static {
    type Queue: Queue;
    type Link: Link;
    type Outgoing: SetUp<Self>;
    type Incoming: SetUp<Self>;
    type Listener: Listen<Self>;

    /// Opens the device `name`: its domain, one per process, and a queue for `completions` outstanding requests.
    fn open(name: &str, completions: u32) -> Result<(Arc<dyn Domain>, Self::Queue)>;
    /// Finds the device that leads to `peer`.
    fn resolve(peer: SocketAddr, deadline: Instant) -> impl Future<Output = Result<Self::Outgoing>> + Send;
    /// Listens at `address`.
    fn listen(address: SocketAddr, backlog: u16) -> Result<Self::Listener>;
}

/// Connect requests as they come in.
pub(crate) trait Listen<T: Transport>: Send + Sync + 'static {
    fn local_address(&self) -> SocketAddr;
    /// The next request.
    fn next(&self) -> impl Future<Output = Result<T::Incoming>> + Send;
}

/// One end of a connection that is being set up.
pub(crate) trait SetUp<T: Transport>: Send + 'static {
    /// The local device.
    fn device(&self) -> &str;
    /// The peer's address.
    fn peer(&self) -> &str;
    /// Makes the channel, ready for receives.
    fn open_channel(&mut self, queue: &mut T::Queue, sizes: ChannelSizes) -> Result<ChannelKey>;
    /// Learns the peer's introduction; an outgoing end tells it ours first.
    fn negotiate(&mut self, ours: &[u8], deadline: Instant) -> impl Future<Output = Result<Vec<u8>>> + Send;
    /// Makes the channel ready to send.
    fn activate(&mut self, queue: &mut T::Queue, channel: ChannelKey) -> Result<()>;
    /// Ends the set-up: both ends can send from here on. An incoming end tells the peer our introduction.
    fn finish(self, ours: &[u8], deadline: Instant) -> impl Future<Output = Result<T::Link>> + Send;
    /// Refuses an incoming request with a reason; drops an outgoing one.
    fn refuse(self, reason: &[u8]);
}

/// The control side of an established connection.
pub(crate) trait Link: Send + Sync + 'static {
    /// Calls `lost` once, soon after the peer, the kernel or we ended the connection. It runs on the service thread.
    fn on_lost(&self, lost: impl FnOnce(Error) + Send + 'static);
    /// Tells the peer that the connection ends. Harmless when it has ended.
    fn disconnect(&self);
}
