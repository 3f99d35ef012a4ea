//! Address handles: the way of datagrams.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::{Completion, CompletionStatus, Error, Gid, ProtectionDomain, Result};

/// Bytes of the route header that a datagram's buffer begins with (`struct ibv_grh`; on RoCE v2 with IPv4 the last 20 of
/// them are the IP header).
pub const ROUTE_HEADER: usize = 40;

/// The way to a peer's port (`struct ibv_ah_attr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressVector {
    /// Our port, counted from 1.
    pub port: u8,
    /// The entry of our GID table that the peer sees.
    pub gid_index: u32,
    /// The peer's port.
    pub gid: Gid,
    /// The peer's local id; 0 on RoCE.
    pub lid: u16,
    /// Routers it may pass.
    pub hop_limit: u8,
    /// Type of service, for the network's queues.
    pub traffic_class: u8,
    /// Names the flow to routers; 20 bits.
    pub flow_label: u32,
    /// Service level; at most 15.
    pub service_level: u8,
}

impl AddressVector {
    /// The way from a port to a GID, with 64 hops and the default class.
    pub fn to(port: u8, gid_index: u32, gid: Gid) -> Self {
        Self { port, gid_index, gid, lid: 0, hop_limit: 64, traffic_class: 0, flow_label: 0, service_level: 0 }
    }

    pub(super) fn from_raw(raw: &ffi::ibv_ah_attr) -> Self {
        // SAFETY: every bit pattern is a valid array of bytes.
        let gid = unsafe { raw.grh.dgid.raw };
        Self {
            port: raw.port_num,
            gid_index: raw.grh.sgid_index.into(),
            gid: Gid(gid),
            lid: raw.dlid,
            hop_limit: raw.grh.hop_limit,
            traffic_class: raw.grh.traffic_class,
            flow_label: raw.grh.flow_label,
            service_level: raw.sl,
        }
    }

    /// The C layout; `None` if the GID index is above 255, the most that it can name.
    pub(super) fn to_raw(self) -> Option<ffi::ibv_ah_attr> {
        Some(ffi::ibv_ah_attr {
            grh: ffi::ibv_global_route {
                dgid: ffi::ibv_gid { raw: self.gid.0 },
                flow_label: self.flow_label,
                sgid_index: u8::try_from(self.gid_index).ok()?,
                hop_limit: self.hop_limit,
                traffic_class: self.traffic_class,
            },
            dlid: self.lid,
            sl: self.service_level,
            src_path_bits: 0,
            static_rate: 0,
            is_global: 1,
            port_num: self.port,
        })
    }
}

/// An address handle (`ibv_create_ah(3)`). [`OwningQueue`](super::OwningQueue) keeps it until the datagram's completion.
///
/// ```
/// use zcmi::verbs::{AddressHandle, AddressVector, Device, ProtectionDomain};
///
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let context = device.open()?;
/// let domain = ProtectionDomain::allocate(&context)?;
/// // To ourselves, by the first entry of the table.
/// let vector = AddressVector::to(1, 0, context.gid(1, 0)?);
/// let handle = AddressHandle::create(&domain, &vector)?;
/// # drop(handle);
/// # Ok::<(), zcmi::verbs::Error>(())
/// ```
pub struct AddressHandle {
    raw: NonNull<ffi::ibv_ah>,
    creator: Creator,
    domain: Arc<ProtectionDomain>,
}

// SAFETY: an address handle is an immutable handle; verbs calls on it are thread-safe.
unsafe impl Send for AddressHandle {}
// SAFETY: as above.
unsafe impl Sync for AddressHandle {}

impl AddressHandle {
    /// Creates a handle.
    ///
    /// # Errors
    /// `EINVAL` if port or GID index are not there; `ENETUNREACH`, `ETIMEDOUT` or another errno if there is no way to
    /// the peer's GID.
    pub fn create(domain: &Arc<ProtectionDomain>, vector: &AddressVector) -> Result<Arc<Self>> {
        let call = "ibv_create_ah";
        let table = domain.context().port(vector.port)?.gid_table_length;
        let attributes = vector.to_raw().filter(|_| vector.gid_index < table);
        let Some(mut attributes) = attributes else {
            return Err(Error::invalid(call, format!("GID index {}; the table has {table}", vector.gid_index)));
        };
        // SAFETY: the domain exists and the structure is valid for the call.
        let raw = unsafe { ffi::ibv_create_ah(domain.raw(), &mut attributes) };
        Self::own(domain, raw, call)
    }

    /// A handle that leads back to the sender of a datagram, for an answer (`ibv_create_ah_from_wc(3)`).
    ///
    /// # Errors
    /// `EINVAL`, `EPROTONOSUPPORT` or another errno if the completion is not that of a datagram that came in, or its header
    /// names no way back.
    pub fn to_sender(
        domain: &Arc<ProtectionDomain>,
        port: u8,
        completion: &Completion<'_>,
        header: &[u8; ROUTE_HEADER],
    ) -> Result<Arc<Self>> {
        let call = "ibv_create_ah_from_wc";
        if completion.status() != CompletionStatus::Success || !completion.opcode().is_receive() {
            return Err(Error::invalid(call, "the completion is no message that came in"));
        }
        let mut raw = *completion.raw();
        let mut header = header_to_raw(header);
        // SAFETY: the domain exists and both structures are valid for the call.
        let handle = unsafe { ffi::ibv_create_ah_from_wc(domain.raw(), &mut raw, &mut header, port) };
        Self::own(domain, handle, call)
    }

    fn own(domain: &Arc<ProtectionDomain>, raw: *mut ffi::ibv_ah, call: &'static str) -> Result<Arc<Self>> {
        let raw = NonNull::new(raw).ok_or_else(|| Error::last(call))?;
        Ok(Arc::new(Self { raw, creator: Creator::here(), domain: Arc::clone(domain) }))
    }

    /// The domain it belongs to.
    pub fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    pub(super) fn raw(&self) -> *mut ffi::ibv_ah {
        self.raw.as_ptr()
    }
}

/// The header as C names its fields; they stay in network order.
fn header_to_raw(bytes: &[u8; ROUTE_HEADER]) -> ffi::ibv_grh {
    let array = |range: std::ops::Range<usize>| bytes[range].try_into().expect("ranges of the right length");
    ffi::ibv_grh {
        version_tclass_flow: u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        paylen: u16::from_ne_bytes([bytes[4], bytes[5]]),
        next_hdr: bytes[6],
        hop_limit: bytes[7],
        sgid: ffi::ibv_gid { raw: array(8..24) },
        dgid: ffi::ibv_gid { raw: array(24..40) },
    }
}

impl fmt::Debug for AddressHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressHandle").field("device", &self.domain.context().name()).finish_non_exhaustive()
    }
}

impl Drop for AddressHandle {
    fn drop(&mut self) {
        if self.creator.may_destroy("address handle") {
            // SAFETY: destroyed once; requests that name it hold an `Arc` of it, or their poster promised to.
            fork::destroyed("ibv_destroy_ah", unsafe { ffi::ibv_destroy_ah(self.raw()) });
        }
    }
}
