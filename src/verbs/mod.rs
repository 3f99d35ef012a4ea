//! A safe, complete layer over libibverbs and librdmacm.
//!
//! Every object is one type in one file. Parents are held by [`Arc`](std::sync::Arc), so objects are
//! destroyed in the order that verbs asks for, in whatever order they are dropped. Both libraries
//! are opened at run time: without them every call answers `ENOSYS`, which [`Error::is_not_installed`] tells.
//!
//! | to | see |
//! |---|---|
//! | find and open a device | [`Device`], [`Context`] |
//! | register memory | [`ProtectionDomain`], [`MemoryRegion`], [`RegisteredBuffer`], [`ExposedRegion`], [`SharedBytes`] |
//! | lend a part of it, and take it back | [`UnboundWindow`], [`BoundWindow`] |
//! | make a queue pair | [`CompletionQueue`], [`QueuePair::builder`], [`SharedReceiveQueue`] |
//! | connect it by rdma_cm | [`EventChannel`], [`ConnectionId`], [`QueuePair::initialize`], [`QueuePair::connect`] |
//! | find a peer for datagrams, or a multicast group | [`PortSpace::Udp`], [`ConnectionEvent::datagram`], [`ConnectionId::join_multicast`], [`QueuePair::attach_multicast`] |
//! | connect it by other means | [`Endpoint`], [`QueuePair::connect_to`], [`AddressHandle`] |
//! | post and poll, safely | [`OwningQueue`] |
//! | post and poll, at the cost of C | [`QueuePair::post_send`], [`CompletionQueue::poll`] |
//! | know what to mind | [`guide`]: threads, destruction, `unsafe` |
//!
//! Posting has two tiers. [`QueuePair::post_send`] and [`QueuePair::post_receive`] are `unsafe` and
//! cost what the C inline functions cost. [`OwningQueue`] is safe: it owns the memory of every
//! operation from post to completion.
//!
//! # A message to ourselves
//!
//! ```
//! use std::time::{Duration, Instant};
//! use zcmi::verbs::*;
//!
//! let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
//! let context = device.open()?;
//! let domain = ProtectionDomain::allocate(&context)?;
//! let mut queue = OwningQueue::new(CompletionQueue::create(&context, 512)?);
//! let mut pair = || queue.add(QueuePair::builder(&domain, &queue.completions().clone()).create()?);
//! let (here, there) = (pair()?, pair()?);
//!
//! // What two hosts would tell each other by any other way.
//! let table = context.gid_table()?;
//! let is_v4 = |entry: &&GidEntry| entry.gid.ip().is_some_and(|ip| ip.is_ipv4());
//! let Some(own) = table.entries().iter().find(is_v4) else { return Ok(()) };
//! let end = || LocalEnd { port: own.port, gid_index: own.index, psn: Psn::random(), access: Access::LOCAL_WRITE, path_mtu: Mtu::Bytes1024 };
//! let ends = [end(), end()];
//! let pairs = [here, there].map(|key| queue.queue_pair(key).expect("just added"));
//! for (pair, end) in pairs.iter().zip(&ends) {
//!     pair.prepare(end)?;
//! }
//! pairs[0].connect_to(&ends[0], &pairs[1].endpoint(&ends[1])?, &Tuning::default())?;
//! pairs[1].connect_to(&ends[1], &pairs[0].endpoint(&ends[0])?, &Tuning::default())?;
//!
//! let mut message = RegisteredBuffer::allocate(&domain, 64)?;
//! message[..5].copy_from_slice(b"hello");
//! message.set_used(0..5);
//! queue.post_receive(there, 1, RegisteredBuffer::allocate(&domain, 64)?).expect("there is room");
//! let request = SendRequest { token: 2, operation: SendOperation::Send, local: Local::Owned(message), flags: SendFlags::SIGNALED };
//! queue.post(here, request).expect("there is room");
//!
//! let (mut done, begun) = (Vec::new(), Instant::now());
//! while done.len() < 2 && begun.elapsed() < Duration::from_secs(5) {
//!     queue.poll(&mut done)?;
//! }
//! let received = done.iter().find(|completed| completed.is_receive).expect("it arrives");
//! assert_eq!(received.result, Ok(5));
//! assert_eq!(&received.memory.as_ref().expect("it was ours")[..5], b"hello");
//! # Ok::<(), zcmi::verbs::Error>(())
//! ```

mod access;
mod address_handle;
mod advice;
mod async_event;
mod async_events;
mod completed;
mod completion;
mod completion_channel;
mod completion_queue;
mod completion_room;
mod completion_status;
mod connection_event;
mod connection_id;
mod connection_options;
mod connection_parameters;
mod connection_route;
mod context;
mod detached;
mod device;
mod device_attributes;
mod endpoint;
mod error;
mod event_channel;
mod exposed_region;
mod extended_attributes;
mod flags;
mod fork;
mod gid;
mod gid_selection;
mod gid_table;
pub mod guide;
mod in_flight;
mod interface_address;
mod librdmacm;
mod limits;
mod link;
mod memory_region;
mod memory_window;
mod mtu;
mod multicast;
mod operation_table;
mod owning_queue;
mod polling;
mod port;
mod port_space;
mod post_batch;
mod posting;
mod protection_domain;
mod queue_pair;
mod queue_pair_attributes;
mod queue_pair_builder;
mod queue_pair_change;
mod queue_pair_state;
mod registered_buffer;
mod reject_reason;
mod reregistration;
mod send_list;
mod send_request;
mod shared_bytes;
mod shared_receive_queue;
mod shared_receives;
mod sockaddr;
mod tuning;
mod window_core;
mod window_requests;
mod work_request;

pub use crate::memory::{Registrable, Segment};
pub use access::Access;
pub use address_handle::{AddressHandle, AddressVector, ROUTE_HEADER};
pub use advice::Advice;
pub use async_event::{AsyncEvent, AsyncEventKind, AsyncEventObject};
pub use async_events::AsyncEvents;
pub use completed::Completed;
pub use completion::{Arrival, Completion, WorkOpcode};
pub use completion_channel::CompletionChannel;
pub(crate) use completion_queue::POLL_BATCH;
pub use completion_queue::{CompletionBatch, CompletionQueue, Completions};
pub use completion_status::{CompletionError, CompletionStatus};
pub use connection_event::{ConnectionEvent, ConnectionEventKind, DatagramPeer};
pub use connection_id::{ConnectionId, QueuePairNotice};
pub use connection_options::Ece;
pub use connection_parameters::ConnectionParameters;
pub use connection_route::{PathRecord, Route};
pub use context::Context;
pub use detached::Detached;
pub use device::{Device, Guid, NodeType, TransportType};
pub use device_attributes::{AtomicCapability, DeviceAttributes, DeviceCapabilities};
pub use endpoint::{Endpoint, LocalEnd, Psn};
pub use error::Error;
pub use event_channel::EventChannel;
pub use exposed_region::{ExposedPart, ExposedRegion};
pub use extended_attributes::{
    AtomicSizes, CompletionModeration, ExtendedAttributes, OnDemandPaging, OnDemandPagingCapabilities, PacketPacing,
    PagedOperations, PciAtomics, QueuePairTypes, RawPacketCapabilities, ReceiveSideScaling, SegmentationOffload,
    TagMatching,
};
pub use gid::Gid;
pub use gid_table::{GidEntry, GidKind, GidTable, ScopedIp};
pub use in_flight::InFlight;
pub use link::{LinkLayer, LinkSpeed, LinkWidth, PhysicalState};
pub use memory_region::MemoryRegion;
pub use memory_window::{Binding, BoundWindow, CompletedWindow, NotInvalidated, UnboundWindow, WindowKind};
pub use mtu::Mtu;

pub use multicast::Membership;
pub use owning_queue::{OwningQueue, QueuePairKey};
pub use port::{PartitionKey, PortAttributes, PortCapabilities, PortCapabilities2, PortState};
pub use port_space::PortSpace;
pub use post_batch::PostBatch;
pub use protection_domain::ProtectionDomain;
pub use queue_pair::QueuePair;
pub use queue_pair_attributes::QueuePairAttributes;
pub use queue_pair_builder::{QueuePairBuilder, QueuePairCapabilities, QueuePairKind};
pub use queue_pair_change::QueuePairChange;
pub use queue_pair_state::QueuePairState;
pub use registered_buffer::{Pieces, RegisteredBuffer};
pub use reject_reason::{RejectReason, ResolutionRefusal};
pub use reregistration::{NotReregistered, RegionChange};
pub use send_list::SendList;
pub use send_request::{Local, Refused, SendRequest};
pub use shared_bytes::SharedBytes;
pub use shared_receive_queue::{SharedReceiveAttributes, SharedReceiveQueue};
pub use tuning::Tuning;
pub use window_requests::RefusedWindow;
pub use work_request::{Destination, Remote, SendFlags, SendOperation};

/// The result of a verbs call.
pub type Result<T> = std::result::Result<T, Error>;
