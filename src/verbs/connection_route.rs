//! Where an identifier leads: addresses, device and path.

use std::net::SocketAddr;

use rdma_sys as ffi;

use super::{ConnectionId, Gid, device, sockaddr};

/// The two ends of an identifier and the device between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name of the local device.
    pub device: String,
    /// The device's port, counted from 1.
    pub port: u8,
    /// Our address.
    pub local: Option<SocketAddr>,
    /// The peer's address.
    pub peer: Option<SocketAddr>,
}

/// A path between two ports (`struct ibv_sa_path_rec`), as the subnet manager, or on RoCE the kernel, describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathRecord {
    /// The GID at the far end.
    pub destination: Gid,
    /// The GID at our end.
    pub source: Gid,
    /// Local identifier at the far end; 0 on RoCE.
    pub destination_lid: u16,
    /// Local identifier at our end; 0 on RoCE.
    pub source_lid: u16,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Hops that it may take.
    pub hop_limit: u8,
    /// Traffic class; on RoCE the type of service.
    pub traffic_class: u8,
    /// Partition key.
    pub partition_key: u16,
    /// Service level.
    pub service_level: u8,
    /// Path MTU in bytes: 256 to 4096.
    pub mtu: u32,
    /// Rate, a code of `enum ibv_rate`.
    pub rate: u8,
    /// Time that a packet may take: 4.096 µs times 2 to this power.
    pub packet_life_time: u8,
}

impl ConnectionId {
    /// Our address with its port; after [`bind`](Self::bind), [`listen`](Self::listen) or when the peer's has been resolved.
    pub fn local_address(&self) -> Option<SocketAddr> {
        let _quiet = self.channel().lock();
        // SAFETY: the identifier exists; no event is under way to change it.
        let address = unsafe { &raw const (*self.raw()).route.addr.src_addr_union.src_addr };
        // SAFETY: the storage is as large as any address, and zero until it is filled.
        unsafe { sockaddr::parse(address) }
    }

    /// The peer's address with its port; once it is to be resolved, and from the start for a connect request.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        let _quiet = self.channel().lock();
        // SAFETY: as for the local address.
        let address = unsafe { &raw const (*self.raw()).route.addr.dst_addr_union.dst_addr };
        // SAFETY: as above.
        unsafe { sockaddr::parse(address) }
    }

    /// The name of the device; `None` until the address has been resolved, or bound to an address of a device. (A
    /// listener at all addresses never has one.)
    pub fn device(&self) -> Option<String> {
        self.route().map(|route| route.device)
    }

    /// Device, port and addresses; `None` as long as there is no [`device`](Self::device).
    pub fn route(&self) -> Option<Route> {
        let _quiet = self.channel().lock();
        // SAFETY: the identifier exists, and the channel is locked.
        unsafe { Route::read(self.raw()) }
    }

    /// The paths to the peer; none until the route has been resolved or the request has come.
    pub fn paths(&self) -> Vec<PathRecord> {
        let _quiet = self.channel().lock();
        // SAFETY: the identifier exists; no event is under way to change it.
        let route = unsafe { &raw const (*self.raw()).route };
        // SAFETY: as above.
        let records = unsafe { (*route).path_rec };
        // SAFETY: as above.
        let count = usize::try_from(unsafe { (*route).num_paths }).unwrap_or(0);
        if records.is_null() {
            return Vec::new();
        }
        // SAFETY: librdmacm has so many records there, and keeps them as long as the identifier.
        unsafe { std::slice::from_raw_parts(records, count) }.iter().map(PathRecord::from_raw).collect()
    }
}

impl Route {
    /// Device and addresses of an identifier; `None` before it has a device.
    ///
    /// # Safety
    /// `id` exists and its channel is locked for the duration of the call.
    pub(super) unsafe fn read(id: *const ffi::rdma_cm_id) -> Option<Self> {
        // SAFETY: the caller promises that the identifier may be read.
        let id = unsafe { &*id };
        if id.verbs.is_null() {
            return None;
        }
        // SAFETY: the storage is as large as any address.
        let local = unsafe { sockaddr::parse(&raw const id.route.addr.src_addr_union.src_addr) };
        // SAFETY: as above, for the peer's.
        let peer = unsafe { sockaddr::parse(&raw const id.route.addr.dst_addr_union.dst_addr) };
        // SAFETY: the context is librdmacm's own and open as long as the identifier.
        let device = unsafe { device::context_name(id.verbs) };
        Some(Self { device, port: id.port_num, local, peer })
    }
}

impl PathRecord {
    fn from_raw(raw: &ffi::ibv_sa_path_rec) -> Self {
        // SAFETY: every bit pattern is a valid array of bytes.
        let destination = unsafe { raw.dgid.raw };
        // SAFETY: as above.
        let source = unsafe { raw.sgid.raw };
        Self {
            destination: Gid(destination),
            source: Gid(source),
            destination_lid: u16::from_be(raw.dlid),
            source_lid: u16::from_be(raw.slid),
            flow_label: u32::from_be(raw.flow_label),
            hop_limit: raw.hop_limit,
            traffic_class: raw.traffic_class,
            partition_key: u16::from_be(raw.pkey),
            service_level: raw.sl,
            mtu: 128 << raw.mtu.min(5),
            rate: raw.rate,
            packet_life_time: raw.packet_life_time,
        }
    }
}
