//! What only the extended query of a device tells.

use rdma_sys as ffi;

use super::flags::flags;

/// Extended attributes of a device (`ibv_query_device_ex(3)`). What the device does not have is zero or empty.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExtendedAttributes {
    /// Registration without pinning.
    pub on_demand_paging: OnDemandPaging,
    /// Bits of a completion's timestamp that count; 0 if completions have none.
    pub completion_timestamp_mask: u64,
    /// Frequency of the device's clock in kHz, which timestamps count; 0 if it has none.
    pub core_clock_khz: u64,
    /// Offloads of raw packet queue pairs.
    pub raw_packets: RawPacketCapabilities,
    /// Segmentation of large packets.
    pub segmentation: SegmentationOffload,
    /// Spreading of received packets over queues.
    pub receive_side_scaling: ReceiveSideScaling,
    /// Receive work queues (`ibv_create_wq(3)`).
    pub max_receive_work_queues: u32,
    /// Limiting of a queue pair's rate.
    pub packet_pacing: PacketPacing,
    /// Matching of tags by shared receive queues.
    pub tag_matching: TagMatching,
    /// Moderation of completion queues.
    pub moderation: CompletionModeration,
    /// Bytes of memory on the device that can be allocated (`ibv_alloc_dm(3)`).
    pub max_device_memory: u64,
    /// Atomics that the device does towards the host over PCI.
    pub pci_atomics: PciAtomics,
    /// Physical ports, also where they are more than 255; 0 from a libibverbs that does not tell.
    pub ports: u32,
}

impl ExtendedAttributes {
    /// `None` where nothing was filled in: `ibv_query_device_ex(3)` falls back to the plain query without saying so.
    pub(super) fn from_raw(raw: &ffi::ibv_device_attr_ex) -> Option<Self> {
        let filled = [
            raw.odp_caps.general_caps,
            raw.odp_caps.per_transport_caps.rc_odp_caps.into(),
            raw.completion_timestamp_mask,
            raw.hca_core_clock,
            raw.device_cap_flags_ex,
            raw.tso_caps.max_tso.into(),
            raw.rss_caps.supported_qpts.into(),
            raw.max_wq_type_rq.into(),
            raw.packet_pacing_caps.qp_rate_limit_max.into(),
            raw.raw_packet_caps.into(),
            raw.tm_caps.max_num_tags.into(),
            raw.cq_mod_caps.max_cq_count.into(),
            raw.max_dm_size,
            raw.phys_port_cnt_ex.into(),
        ];
        if filled.iter().all(|&value| value == 0) {
            return None;
        }
        let paging = &raw.odp_caps.per_transport_caps;
        Some(Self {
            on_demand_paging: OnDemandPaging {
                general: OnDemandPagingCapabilities::from_bits(raw.odp_caps.general_caps),
                reliable: PagedOperations::from_bits(paging.rc_odp_caps),
                unreliable: PagedOperations::from_bits(paging.uc_odp_caps),
                datagram: PagedOperations::from_bits(paging.ud_odp_caps),
                xrc: PagedOperations::from_bits(raw.xrc_odp_caps),
            },
            completion_timestamp_mask: raw.completion_timestamp_mask,
            core_clock_khz: raw.hca_core_clock,
            raw_packets: RawPacketCapabilities::from_bits(raw.raw_packet_caps),
            segmentation: SegmentationOffload {
                max_bytes: raw.tso_caps.max_tso,
                queue_pairs: QueuePairTypes::from_bits(raw.tso_caps.supported_qpts),
            },
            receive_side_scaling: ReceiveSideScaling {
                queue_pairs: QueuePairTypes::from_bits(raw.rss_caps.supported_qpts),
                max_indirection_tables: raw.rss_caps.max_rwq_indirection_tables,
                max_indirection_table_size: raw.rss_caps.max_rwq_indirection_table_size,
                hash_fields: raw.rss_caps.rx_hash_fields_mask,
                hash_functions: raw.rss_caps.rx_hash_function,
            },
            max_receive_work_queues: raw.max_wq_type_rq,
            packet_pacing: PacketPacing {
                min_kilobits: raw.packet_pacing_caps.qp_rate_limit_min,
                max_kilobits: raw.packet_pacing_caps.qp_rate_limit_max,
                queue_pairs: QueuePairTypes::from_bits(raw.packet_pacing_caps.supported_qpts),
            },
            tag_matching: TagMatching {
                max_rendezvous_header: raw.tm_caps.max_rndv_hdr_size,
                max_tags: raw.tm_caps.max_num_tags,
                max_operations: raw.tm_caps.max_ops,
                max_segments: raw.tm_caps.max_sge,
                reliable: raw.tm_caps.flags & ffi::ibv_tm_cap_flags::IBV_TM_CAP_RC.0 != 0,
            },
            moderation: CompletionModeration {
                max_completions: raw.cq_mod_caps.max_cq_count,
                max_microseconds: raw.cq_mod_caps.max_cq_period,
            },
            max_device_memory: raw.max_dm_size,
            pci_atomics: PciAtomics {
                fetch_add: AtomicSizes::from_bits(raw.pci_atomic_caps.fetch_add),
                swap: AtomicSizes::from_bits(raw.pci_atomic_caps.swap),
                compare_swap: AtomicSizes::from_bits(raw.pci_atomic_caps.compare_swap),
            },
            ports: raw.phys_port_cnt_ex,
        })
    }
}

/// What can be done with memory that is registered for on-demand paging, by transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnDemandPaging {
    /// Whether there is any.
    pub general: OnDemandPagingCapabilities,
    /// With reliable connections.
    pub reliable: PagedOperations,
    /// With unreliable connections.
    pub unreliable: PagedOperations,
    /// With unreliable datagrams.
    pub datagram: PagedOperations,
    /// With extended reliable connections.
    pub xrc: PagedOperations,
}

flags! {
    /// Kinds of on-demand paging (`enum ibv_odp_general_caps`).
    pub struct OnDemandPagingCapabilities(u64) {
        /// Of a range.
        EXPLICIT = ffi::ibv_odp_general_caps::IBV_ODP_SUPPORT.0,
        /// Of the whole address space at once.
        IMPLICIT = ffi::ibv_odp_general_caps::IBV_ODP_SUPPORT_IMPLICIT.0,
    }
}

use ffi::ibv_odp_transport_cap_bits as odp;

flags! {
    /// Operations that on-demand paging serves (`enum ibv_odp_transport_cap_bits`).
    pub struct PagedOperations(u32) {
        /// Atomics.
        ATOMIC = odp::IBV_ODP_SUPPORT_ATOMIC.0,
        /// Atomic writes.
        ATOMIC_WRITE = odp::IBV_ODP_SUPPORT_ATOMIC_WRITE.0,
        /// Flushes.
        FLUSH = odp::IBV_ODP_SUPPORT_FLUSH.0,
        /// RDMA reads.
        READ = odp::IBV_ODP_SUPPORT_READ.0,
        /// Receives.
        RECEIVE = odp::IBV_ODP_SUPPORT_RECV.0,
        /// Sends.
        SEND = odp::IBV_ODP_SUPPORT_SEND.0,
        /// Receives of a shared receive queue.
        SHARED_RECEIVE = odp::IBV_ODP_SUPPORT_SRQ_RECV.0,
        /// RDMA writes.
        WRITE = odp::IBV_ODP_SUPPORT_WRITE.0,
    }
}

use ffi::ibv_raw_packet_caps as raw_packet;

flags! {
    /// Offloads of raw packet queue pairs (`enum ibv_raw_packet_caps`).
    pub struct RawPacketCapabilities(u32) {
        /// Packets may wait for a receive instead of being dropped.
        DELAY_DROP = raw_packet::IBV_RAW_PACKET_CAP_DELAY_DROP.0,
        /// IP checksums.
        IP_CHECKSUM = raw_packet::IBV_RAW_PACKET_CAP_IP_CSUM.0,
        /// The frame check sequence can be left on received packets.
        SCATTER_FRAME_CHECK = raw_packet::IBV_RAW_PACKET_CAP_SCATTER_FCS.0,
        /// The VLAN tag can be taken off received packets.
        VLAN_STRIPPING = raw_packet::IBV_RAW_PACKET_CAP_CVLAN_STRIPPING.0,
    }
}

flags! {
    /// Types of queue pairs that a capability is for: bit n stands for the number n of `enum ibv_qp_type`.
    pub struct QueuePairTypes(u32) {
        /// Raw packets.
        RAW_PACKET = 1u32 << ffi::ibv_qp_type::IBV_QPT_RAW_PACKET,
        /// Reliable connections.
        RELIABLE = 1u32 << ffi::ibv_qp_type::IBV_QPT_RC,
        /// Unreliable connections.
        UNRELIABLE = 1u32 << ffi::ibv_qp_type::IBV_QPT_UC,
        /// Unreliable datagrams.
        UNRELIABLE_DATAGRAM = 1u32 << ffi::ibv_qp_type::IBV_QPT_UD,
        /// Receiving end of extended reliable connections.
        XRC_RECEIVE = 1u32 << ffi::ibv_qp_type::IBV_QPT_XRC_RECV,
        /// Sending end of extended reliable connections.
        XRC_SEND = 1u32 << ffi::ibv_qp_type::IBV_QPT_XRC_SEND,
    }
}

/// Segmentation of large packets by the device (`struct ibv_tso_caps`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentationOffload {
    /// Bytes of the largest packet that is segmented; 0 if none is.
    pub max_bytes: u32,
    /// Where it can be used.
    pub queue_pairs: QueuePairTypes,
}

/// Spreading of received packets over queues by a hash (`struct ibv_rss_caps`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiveSideScaling {
    /// Where it can be used; empty if nowhere.
    pub queue_pairs: QueuePairTypes,
    /// Indirection tables.
    pub max_indirection_tables: u32,
    /// Entries of one indirection table.
    pub max_indirection_table_size: u32,
    /// Fields that can be hashed: the bits of `enum ibv_rx_hash_fields`.
    pub hash_fields: u64,
    /// Hash functions: the bits of `enum ibv_rx_hash_function_flags`.
    pub hash_functions: u8,
}

/// Limiting of a queue pair's rate (`struct ibv_packet_pacing_caps`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PacketPacing {
    /// The lowest limit, in kbit/s.
    pub min_kilobits: u32,
    /// The highest limit, in kbit/s; 0 if there is no limiting.
    pub max_kilobits: u32,
    /// Where it can be used.
    pub queue_pairs: QueuePairTypes,
}

/// Matching of tags by shared receive queues (`struct ibv_tm_caps`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagMatching {
    /// Bytes of the header of a rendezvous message.
    pub max_rendezvous_header: u32,
    /// Tagged buffers of one queue; 0 if there is no matching.
    pub max_tags: u32,
    /// Outstanding operations on the list of tags.
    pub max_operations: u32,
    /// Segments of one tagged buffer.
    pub max_segments: u32,
    /// Whether it can be used with reliable connections.
    pub reliable: bool,
}

/// Moderation of completion queues (`struct ibv_cq_moderation_caps`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompletionModeration {
    /// Completions that one event can stand for; 0 if there is no moderation.
    pub max_completions: u16,
    /// The longest that an event can wait, in microseconds.
    pub max_microseconds: u16,
}

/// Atomics that the device does towards the host over PCI (`struct ibv_pci_atomic_caps`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PciAtomics {
    /// Sizes of fetch-and-add.
    pub fetch_add: AtomicSizes,
    /// Sizes of swap.
    pub swap: AtomicSizes,
    /// Sizes of compare-and-swap.
    pub compare_swap: AtomicSizes,
}

use ffi::ibv_pci_atomic_op_size as pci;

flags! {
    /// Sizes of an atomic (`enum ibv_pci_atomic_op_size`).
    pub struct AtomicSizes(u16) {
        /// 4 bytes.
        BYTES_4 = pci::IBV_PCI_ATOMIC_OPERATION_4_BYTE_SIZE_SUP.0,
        /// 8 bytes.
        BYTES_8 = pci::IBV_PCI_ATOMIC_OPERATION_8_BYTE_SIZE_SUP.0,
        /// 16 bytes.
        BYTES_16 = pci::IBV_PCI_ATOMIC_OPERATION_16_BYTE_SIZE_SUP.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeroed() -> ffi::ibv_device_attr_ex {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        unsafe { std::mem::zeroed() }
    }

    #[test]
    fn an_empty_answer_is_no_extension() {
        assert!(ExtendedAttributes::from_raw(&zeroed()).is_none());
    }

    #[test]
    fn fields_go_where_they_belong() {
        let mut raw = zeroed();
        raw.odp_caps.general_caps = 1;
        raw.odp_caps.per_transport_caps =
            ffi::ibv_odp_caps__bindgen_ty_1 { rc_odp_caps: 4, uc_odp_caps: 8, ud_odp_caps: 3 };
        raw.xrc_odp_caps = 32;
        raw.tm_caps = ffi::ibv_tm_caps { max_rndv_hdr_size: 1, max_num_tags: 2, flags: 1, max_ops: 3, max_sge: 4 };
        raw.packet_pacing_caps =
            ffi::ibv_packet_pacing_caps { qp_rate_limit_min: 5, qp_rate_limit_max: 6, supported_qpts: 1 << 8 };
        raw.pci_atomic_caps = ffi::ibv_pci_atomic_caps { fetch_add: 1, swap: 2, compare_swap: 4 };
        raw.cq_mod_caps = ffi::ibv_cq_moderation_caps { max_cq_count: 7, max_cq_period: 8 };
        let extended = ExtendedAttributes::from_raw(&raw).expect("filled");
        let paging = extended.on_demand_paging;
        assert_eq!(paging.general, OnDemandPagingCapabilities::EXPLICIT);
        assert_eq!(
            [paging.reliable, paging.unreliable, paging.datagram, paging.xrc],
            [
                PagedOperations::WRITE,
                PagedOperations::READ,
                PagedOperations::SEND | PagedOperations::RECEIVE,
                PagedOperations::SHARED_RECEIVE
            ]
        );
        let tags = extended.tag_matching;
        assert_eq!(
            (tags.max_rendezvous_header, tags.max_tags, tags.max_operations, tags.max_segments, tags.reliable),
            (1, 2, 3, 4, true)
        );
        let pacing = extended.packet_pacing;
        assert_eq!((pacing.min_kilobits, pacing.max_kilobits), (5, 6));
        assert_eq!(pacing.queue_pairs, QueuePairTypes::RAW_PACKET);
        let atomics = extended.pci_atomics;
        assert_eq!(
            [atomics.fetch_add, atomics.swap, atomics.compare_swap],
            [AtomicSizes::BYTES_4, AtomicSizes::BYTES_8, AtomicSizes::BYTES_16]
        );
        assert_eq!((extended.moderation.max_completions, extended.moderation.max_microseconds), (7, 8));
    }
}
