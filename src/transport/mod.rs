//! The seam: what the layers above ask of a transport.
//!
//! It is verbs-shaped. A [`Domain`] registers memory; a [`Queue`] owns the channels of one
//! worker and all that they have in flight, posts batches, and is polled; [`Transport`] opens both and sets
//! connections up. The data path is statically dispatched. Everything here is safe: an operation's memory is
//! owned by the queue from post to completion, so no implementation leaks a lifetime into the layers above.

#[cfg(not(loom))]
pub(crate) mod any;
#[cfg(not(loom))]
pub(crate) mod framed;
pub(crate) mod shm;
#[cfg(all(any(test, feature = "internals"), not(loom)))]
#[cfg_attr(not(feature = "internals"), allow(unreachable_pub, unused_imports))]
#[allow(missing_docs, reason = "what is public is so for our own tests")]
pub(crate) mod sim;
#[cfg(not(loom))]
pub(crate) mod tcp;
#[cfg(feature = "verbs")]
pub(crate) mod verbs;

use std::fmt;
use std::io::IoSlice;
use std::net::Ipv6Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::memory::{Domain, Registration, Transfer};
use crate::service::Service;
use crate::{Access, Error, Result};

/// Which transport it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Shm,
    #[cfg(all(any(test, feature = "internals"), not(loom)))]
    Sim,
    Tcp,
    #[cfg(feature = "verbs")]
    Verbs,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            #[cfg(feature = "verbs")]
            Self::Verbs => "verbs",
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Self::Sim => "sim",
        }
    }

    /// Whether it is the peer's process that carries out what is asked of its memory.
    pub(crate) fn needs_progress(self) -> bool {
        match self {
            Self::Shm | Self::Tcp => true,
            #[cfg(feature = "verbs")]
            Self::Verbs => false,
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Self::Sim => false,
        }
    }

    /// The clock that connections of the transport go by.
    pub(crate) fn clock(self) -> Clock {
        match self {
            Self::Shm | Self::Tcp => Clock::real(),
            #[cfg(feature = "verbs")]
            Self::Verbs => Clock::real(),
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Self::Sim => sim::clock(),
        }
    }
}

/// Names a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) transport: Kind,
    pub(crate) name: String,
}

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
    /// A write of nothing, with [`Source::Inline`] of nothing: it needs no key and touches no memory. Its completion proves that
    /// the peer's device answers.
    Probe,
    Read {
        address: u64,
        key: u32,
    },
    Send,
    Write {
        address: u64,
        key: u32,
    },
    /// As a write; when the bytes are placed, a receive completes at the peer with `value`, and without data.
    WriteNotify {
        address: u64,
        key: u32,
        value: u32,
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
    #[cfg_attr(not(feature = "verbs"), allow(dead_code, reason = "tcp tells of each"))]
    pub(crate) signaled: bool,
    /// Whether it is begun only when the earlier reads and atomics of its channel have ended.
    pub(crate) fence: bool,
}

/// A request that was not taken. Without an error the channel is full, which polling mends.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: Option<Error>,
    pub(crate) memory: Option<Transfer>,
}

/// The end of a request. As a receive without memory that failed, it tells that a channel has broken by itself, or, of no channel,
/// that a receive was lost and another can be posted in its place. As one that succeeded, without an immediate, a message has come
/// that needed no receive: the queue lends it by the token.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) token: u64,
    /// Of a receive: where its message came in; names none if that was closed meanwhile.
    pub(crate) channel: ChannelKey,
    pub(crate) is_receive: bool,
    /// Bytes received, or why it failed. With an immediate, the bytes were written elsewhere, not to the receive's memory.
    pub(crate) result: std::result::Result<u32, Failure>,
    /// Of a receive: the value of the peer's [`WriteNotify`](Operation::WriteNotify).
    pub(crate) immediate: Option<u32>,
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
    #[cfg_attr(not(feature = "verbs"), allow(dead_code, reason = "tcp carries nothing inline"))]
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
    /// Reads and atomics that may be outstanding towards the peer. One more than that stalls all that is behind it.
    pub(crate) reads: usize,
}

/// Segments of shared pages that an end may have of the other's at once.
pub(crate) const MOST_SEGMENTS: usize = 256;
/// Gifts that may wait until they are spoken of, behind all that is on its way: those segments, and as many that are given up before
/// they have arrived.
pub(crate) const MOST_GIFTS: usize = 2 * MOST_SEGMENTS;

/// Gives the peer's process descriptors, beside what is posted. Those of one gift stay together, and gifts in order.
pub(crate) trait Courier: Send + Sync + 'static {
    /// Gives some. What is posted later arrives after them.
    fn give(&self, files: &[BorrowedFd<'_>]) -> std::io::Result<()>;
    /// Takes the next gift, which the peer has spoken of.
    ///
    /// # Errors
    /// What is wrong: above all, that there is none.
    fn take(&self) -> std::result::Result<Vec<OwnedFd>, &'static str>;
}

/// The channels of one worker on one device, their one completion queue and the receives that they share.
pub(crate) trait Queue: Send + 'static {
    /// Adds a request to the batch of its channel. A batch of another channel is posted first.
    fn stage(&mut self, channel: ChannelKey, request: Request<'_>) -> std::result::Result<(), Refused>;
    /// Posts the batch, in one call of the device.
    fn flush(&mut self) -> Result<()>;
    /// Where messages are copied anyway: whether one of so many bytes can be [sent now](Self::send_now), because nothing that was posted
    /// waits before it and there is room.
    fn takes_now(&mut self, channel: ChannelKey, length: usize) -> bool {
        let _ = (channel, length);
        false
    }
    /// Sends a message of these bytes at once, which [can be](Self::takes_now). The peer needs no receive for it, and nothing completes.
    fn send_now(&mut self, channel: ChannelKey, head: &[u8], pieces: &[IoSlice<'_>]) {
        let _ = (channel, head, pieces);
    }
    /// Where looking costs next to nothing: takes what has come next on a channel, if it is a message that needs no receive, without a
    /// poll; answers its token and length.
    fn receive_now(&mut self, channel: ChannelKey) -> Option<(u64, usize)> {
        let _ = channel;
        None
    }
    /// What has come in a message that needed no receive, until the next poll, or the next that is received now.
    fn lent(&self, token: u64, length: usize) -> &[u8] {
        let _ = (token, length);
        &[]
    }
    /// Requests that still fit.
    fn room(&self, channel: ChannelKey) -> usize;
    /// Posts a receive for the next message on any channel.
    fn post_receive(&mut self, token: u64, memory: Transfer) -> std::result::Result<(), Refused>;
    /// Receives that still fit. One that completes makes room for one.
    fn receive_room(&self) -> usize;
    /// Looks after channels whose failure makes no completion; to be called some forty times a second, from outside the data
    /// path. What it finds comes with the next poll.
    fn tend(&mut self, now: Instant);
    /// Appends completions; answers whether there may be more at once.
    fn poll(&mut self, done: &mut Vec<Completion>) -> Result<bool>;
    /// Makes the event descriptor readable with the next completion.
    fn request_notification(&mut self) -> Result<()>;
    /// Takes all events off the descriptor.
    fn drain_events(&mut self) -> Result<()>;
    /// A descriptor of its own for the events. `None` where there is none and [`call_on_event`](Self::call_on_event) takes its
    /// place.
    fn event_descriptor(&self) -> Result<Option<OwnedFd>>;
    /// Has the service of the queue call `on_event` where the event descriptor would become readable.
    fn call_on_event(&mut self, on_event: Box<dyn FnMut() + Send>) {
        drop(on_event);
    }
    /// Where no device serves the peers: a descriptor for who polls while the application does not. What peers ask for is done
    /// only by a poll there, and so are probes answered.
    fn idle_descriptor(&self) -> Result<Option<OwnedFd>> {
        Ok(None)
    }
    /// Makes that descriptor readable, once, as soon as there is something to poll for.
    fn watch_idle(&mut self) -> Result<()> {
        Ok(())
    }
    /// Takes the event off that descriptor.
    fn drain_idle(&mut self) -> Result<()> {
        Ok(())
    }
    /// Where the transport of a peer is its process: has peers given up that do nothing for so long of what is posted to them.
    fn give_up_after(&mut self, patience: Duration) {
        let _ = patience;
    }
    /// Where a probe does not tell: whether the peer's host answers, though its process may not.
    fn host_answers(&self, channel: ChannelKey) -> Option<bool> {
        let _ = channel;
        None
    }
    /// Where the transport is this process: whether all that was posted has left it.
    fn has_left(&self, channel: ChannelKey) -> bool {
        let _ = channel;
        true
    }
    fn capabilities(&self, channel: ChannelKey) -> Capabilities;
    /// Has the channel carry descriptors too, if it can. Without it, those that a peer gives are closed unseen.
    fn courier(&mut self, channel: ChannelKey) -> Option<Arc<dyn Courier>> {
        let _ = channel;
        None
    }
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
    type Address: fmt::Display + Clone + Send + Sync;
    type Queue: Queue;
    type Link: Link;
    type Outgoing: SetUp<Self>;
    type Incoming: SetUp<Self>;
    type Listener: Listen<Self>;

    /// Opens a device: its domain, one per process, and a queue for `completions` outstanding requests.
    fn open(device: &Device, completions: u32) -> Result<(Arc<dyn Domain>, Self::Queue)>;
    /// Who runs what a device's connections have to do in the background, and whose time they go by.
    fn service(device: &Device) -> Result<Arc<Service>> {
        let _ = device;
        Service::of_process()
    }
    /// Finds the device that leads to `peer`.
    fn resolve(peer: Self::Address, deadline: Instant) -> impl Future<Output = Result<Self::Outgoing>> + Send;
    /// Listens at `address`.
    fn listen(address: Self::Address, backlog: u16) -> Result<Self::Listener>;
}

/// Connect requests as they come in.
pub(crate) trait Listen<T: Transport>: Send + Sync + 'static {
    fn local_address(&self) -> T::Address;
    /// The next request.
    fn next(&self) -> impl Future<Output = Result<T::Incoming>> + Send;
}

/// One end of a connection that is being set up.
pub(crate) trait SetUp<T: Transport>: Send + 'static {
    /// The local device.
    fn device(&self) -> Device;
    /// The peer's address.
    fn peer(&self) -> &str;
    /// The GID of the local port, if it has one.
    fn gid(&self) -> Option<Ipv6Addr> {
        None
    }
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

/// What is known where requests come back flushed, and none says why.
pub(crate) const ENDED_BY_DEVICE: &str = "the device has ended it, as it does after a refused access";
/// What helps then.
pub(crate) const OTHER_END: Option<&str> =
    Some("the first failure tells more, at the other end too: an access was refused there, or its process has ended");

/// The control side of an established connection.
pub(crate) trait Link: Send + Sync + 'static {
    /// Calls `lost` once, soon after the peer, the kernel or we ended the connection. The service runs it.
    fn on_lost(&self, lost: impl FnOnce(Error) + Send + 'static);
    /// Tells the peer that the connection ends. Harmless when it has ended.
    fn disconnect(&self);
}
