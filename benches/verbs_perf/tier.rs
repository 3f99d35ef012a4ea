//! What the three ways to post have in common, so that the measured loops are the same.

use std::sync::Arc;

use zcmi::verbs::{Access, Context, Endpoint, Gid, LocalEnd, Psn, Remote};

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Read,
    Send,
    Write,
}

/// Sizes of one end.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Requests that can be outstanding.
    pub(crate) sends: u32,
    /// Receives that can be posted.
    pub(crate) receives: u32,
}

/// Bytes that are sent inline at most, as perftest does.
pub(crate) const INLINE: u32 = 220;

/// What one look at the completion queue found.
#[derive(Clone, Copy, Default)]
pub(crate) struct Polled {
    /// Send requests that are done, those without a completion of their own included.
    pub(crate) sends: u32,
    /// Messages that came in.
    pub(crate) receives: u32,
}

/// One end: a queue pair, its completion queue, `size` bytes to move and `size` bytes that the peer may access.
pub(crate) trait Tier: Sized {
    /// A queue pair in INIT.
    fn create(place: &Place, sizes: Sizes) -> Self;
    /// What the peer must know.
    fn endpoint(&self) -> Endpoint;
    /// The memory that the peer may access.
    fn exposed(&self) -> Remote;
    /// Connects to the peer, whose memory is `remote`.
    fn connect(&mut self, peer: &Endpoint, remote: Remote);
    /// The last byte of the exposed memory.
    fn mailbox(&self) -> u8;
    /// Posts a receive.
    fn post_receive(&mut self);
    /// Posts `bytes` inline. If `completes` is not 0, there is a completion, for so many requests.
    fn post_inline(&mut self, work: Work, bytes: &[u8], completes: u32);
    /// Posts a request with the end's memory; `completes` as above.
    fn post(&mut self, work: Work, completes: u32);
    /// Posts so many requests with the end's memory in one call; the last has a completion.
    fn post_list(&mut self, work: Work, count: u32);
    /// Looks at the completion queue once.
    fn poll(&mut self) -> Polled;
}

/// Where the ends are.
pub(crate) struct Place {
    pub(crate) context: Arc<Context>,
    pub(crate) local: LocalEnd,
    /// Reads that a queue pair can have outstanding.
    pub(crate) reads: u8,
}

impl Place {
    /// The first device, with a GID that stands for an IPv4 address if there is one.
    pub(crate) fn find() -> Option<Self> {
        let context = zcmi::verbs::Device::list().ok()?.into_iter().next()?.open().expect("opens");
        let port = context.port(1).expect("a port");
        let gid = |index: u32| context.gid(1, index).ok();
        let is_ipv4 = |gid: Gid| gid.ip().is_some_and(|ip| ip.is_ipv4());
        let gid_index = (0..port.gid_table_length).find(|&index| gid(index).is_some_and(is_ipv4)).unwrap_or(0);
        let access = Access::REMOTE_READ | Access::REMOTE_WRITE;
        let local = LocalEnd { port: 1, gid_index, psn: Psn::random(), access, path_mtu: port.active_mtu };
        let attributes = context.attributes().expect("attributes");
        let reads = attributes.max_reads_as_target.min(attributes.max_reads_as_initiator).min(128);
        Some(Self { context, local, reads })
    }
}
