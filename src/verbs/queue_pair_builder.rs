//! How a queue pair is made.

use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::{CompletionQueue, Error, ProtectionDomain, QueuePair, Result, SharedReceiveQueue};

/// Transport service of a queue pair (IBTA 1.4, 9.7 and 9.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueuePairKind {
    /// Reliable connection: all operations, in order, exactly once.
    Rc,
    /// Unreliable connection: messages and writes; what is lost is lost silently.
    Uc,
    /// Unreliable datagram: messages of one path MTU to and from any other of its kind.
    Ud,
}

impl QueuePairKind {
    fn raw(self) -> ffi::ibv_qp_type::Type {
        match self {
            Self::Rc => ffi::ibv_qp_type::IBV_QPT_RC,
            Self::Uc => ffi::ibv_qp_type::IBV_QPT_UC,
            Self::Ud => ffi::ibv_qp_type::IBV_QPT_UD,
        }
    }
}

/// Sizes of a queue pair (`struct ibv_qp_cap`). The device may give more than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePairCapabilities {
    /// Bytes that a request can carry inline.
    pub inline: u32,
    /// Receives that fit the receive queue; with a shared one, 0.
    pub receives: u32,
    /// Segments of one request, either queue.
    pub segments: u32,
    /// Requests that fit the send queue.
    pub sends: u32,
}

impl Default for QueuePairCapabilities {
    /// 64 requests each way, of one segment.
    fn default() -> Self {
        Self { inline: 0, receives: 64, segments: 1, sends: 64 }
    }
}

/// The settings of a queue pair to be created; see [`QueuePair::builder`].
#[derive(Clone, Debug)]
#[must_use = "call `create`"]
pub struct QueuePairBuilder {
    pub(super) domain: Arc<ProtectionDomain>,
    pub(super) kind: QueuePairKind,
    pub(super) send_completions: Arc<CompletionQueue>,
    pub(super) receive_completions: Arc<CompletionQueue>,
    pub(super) shared_receives: Option<Arc<SharedReceiveQueue>>,
    wanted: QueuePairCapabilities,
    signals_all: bool,
    atomic_write: bool,
}

impl QueuePairBuilder {
    pub(super) fn new(domain: &Arc<ProtectionDomain>, completions: &Arc<CompletionQueue>) -> Self {
        Self {
            domain: Arc::clone(domain),
            kind: QueuePairKind::Rc,
            send_completions: Arc::clone(completions),
            receive_completions: Arc::clone(completions),
            shared_receives: None,
            wanted: QueuePairCapabilities::default(),
            signals_all: false,
            atomic_write: false,
        }
    }

    /// The transport service; reliable connection unless set.
    pub fn kind(mut self, kind: QueuePairKind) -> Self {
        self.kind = kind;
        self
    }

    /// The sizes. If the device cannot carry as many bytes inline, it is asked again for none.
    pub fn capabilities(mut self, wanted: QueuePairCapabilities) -> Self {
        self.wanted = wanted;
        self
    }

    /// Lets receives complete to a queue of their own.
    pub fn receive_completions(mut self, completions: &Arc<CompletionQueue>) -> Self {
        self.receive_completions = Arc::clone(completions);
        self
    }

    /// Takes receives from a queue that others take from too.
    pub fn shared_receives(mut self, queue: &Arc<SharedReceiveQueue>) -> Self {
        self.shared_receives = Some(Arc::clone(queue));
        self
    }

    /// Makes a completion for every request, whatever its flags say.
    pub fn signal_all(mut self) -> Self {
        self.signals_all = true;
        self
    }

    /// Prepares the queue pair for [`post_atomic_write`](QueuePair::post_atomic_write).
    pub fn atomic_write(mut self) -> Self {
        self.atomic_write = true;
        self
    }

    /// Creates the queue pair in state RESET.
    ///
    /// # Errors
    /// `EINVAL` if domain, queues and shared queue are not of one device or a size is too large,
    /// `ENOMEM` if the device has no queue pair left or RLIMIT_MEMLOCK is too low, `EOPNOTSUPP` if the device has no
    /// atomic write.
    pub fn create(self) -> Result<QueuePair> {
        let call = "ibv_create_qp";
        let context = self.domain.context();
        let mut contexts = vec![self.send_completions.context(), self.receive_completions.context()];
        contexts.extend(self.shared_receives.as_ref().map(|queue| queue.domain().context()));
        if !contexts.into_iter().all(|other| Arc::ptr_eq(other, context)) {
            return Err(Error::invalid(call, "domain, completion queues and shared receive queue are of one device"));
        }
        let (raw, given) = self.create_raw(self.wanted).or_else(|error| match self.wanted.inline {
            0 => Err(error),
            _ => self.create_raw(QueuePairCapabilities { inline: 0, ..self.wanted }),
        })?;
        let wants_writes = self.atomic_write;
        let pair = QueuePair::from_raw(raw, self, given);
        if wants_writes && !pair.has_atomic_write() {
            return Err(Error::returned("ibv_create_qp_ex", libc::EOPNOTSUPP)
                .with_detail("the device's driver has no atomic write"));
        }
        Ok(pair)
    }

    fn create_raw(&self, wanted: QueuePairCapabilities) -> Result<(NonNull<ffi::ibv_qp>, QueuePairCapabilities)> {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut attributes: ffi::ibv_qp_init_attr_ex = unsafe { std::mem::zeroed() };
        attributes.send_cq = self.send_completions.raw();
        attributes.recv_cq = self.receive_completions.raw();
        attributes.srq = self.shared_receives.as_ref().map_or(std::ptr::null_mut(), |queue| queue.raw());
        attributes.qp_type = self.kind.raw();
        attributes.sq_sig_all = self.signals_all.into();
        let has_own_receives = self.shared_receives.is_none();
        attributes.cap = ffi::ibv_qp_cap {
            max_send_wr: wanted.sends,
            max_recv_wr: if has_own_receives { wanted.receives } else { 0 },
            max_send_sge: wanted.segments,
            max_recv_sge: if has_own_receives { wanted.segments } else { 0 },
            max_inline_data: wanted.inline,
        };
        attributes.comp_mask = ffi::ibv_qp_init_attr_mask::IBV_QP_INIT_ATTR_PD.0;
        attributes.pd = self.domain.raw();
        if self.atomic_write {
            attributes.comp_mask |= ffi::ibv_qp_init_attr_mask::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.0;
            attributes.send_ops_flags = u64::from(ffi::ibv_qp_create_send_ops_flags::IBV_QP_EX_WITH_ATOMIC_WRITE.0);
        }
        // SAFETY: all that the structure names exists, and the queue pair will keep it alive.
        let raw = unsafe { ffi::ibv_create_qp_ex(self.domain.context().raw(), &mut attributes) };
        let raw = NonNull::new(raw).ok_or_else(|| self.explain(Error::last("ibv_create_qp"), wanted))?;
        let given = attributes.cap;
        let segments = if has_own_receives { given.max_send_sge.min(given.max_recv_sge) } else { given.max_send_sge };
        let given = QueuePairCapabilities {
            // Zero bytes asked for must stay zero bytes used.
            inline: if wanted.inline == 0 { 0 } else { given.max_inline_data },
            receives: if has_own_receives { given.max_recv_wr } else { 0 },
            segments,
            sends: given.max_send_wr,
        };
        Ok((raw, given))
    }

    /// Adds which size the device cannot give, if that is it.
    fn explain(&self, error: Error, wanted: QueuePairCapabilities) -> Error {
        let Ok(limits) = self.domain.context().attributes() else { return error };
        let sizes = [
            ("sends", wanted.sends, limits.max_queue_pair_requests),
            ("receives", wanted.receives, limits.max_queue_pair_requests),
            ("segments", wanted.segments, limits.max_segments),
        ];
        match sizes.into_iter().find(|(_, wanted, most)| wanted > most) {
            Some((what, wanted, most)) => error.with_detail(format!("{wanted} {what}; the device has at most {most}")),
            None => error,
        }
    }
}
