//! Asynchronous events of devices, copied and acknowledged before anyone sees them.

use std::fmt;
use std::mem::MaybeUninit;

use rdma_sys as ffi;

use super::{Context, Error, Result};

impl Context {
    /// The next asynchronous event (`ibv_get_async_event(3)`), or `None` if there is none yet. The
    /// event is acknowledged before it is returned, so no destructor waits for it. Each event goes to one caller.
    ///
    /// # Errors
    /// The kernel's error. That the device is gone is none: after [`DeviceFatal`](AsyncEventKind::DeviceFatal) there are
    /// just no more events.
    pub fn next_async_event(&self) -> Result<Option<AsyncEvent>> {
        AsyncEvent::read(self)
    }
}

/// An asynchronous event of a device (`ibv_get_async_event(3)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AsyncEvent {
    /// What happened.
    pub kind: AsyncEventKind,
    /// What it happened to. It may be destroyed by now, and the number of a queue pair in use again.
    pub object: AsyncEventObject,
}

/// What an [`AsyncEvent`] happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AsyncEventObject {
    /// A completion queue, by its [`key`](super::CompletionQueue::key).
    CompletionQueue(u64),
    /// The device as a whole.
    Device,
    /// A port, counted from 1.
    Port(u8),
    /// A queue pair, by its [`number`](super::QueuePair::number).
    QueuePair(u32),
    /// A shared receive queue, by its [`key`](super::SharedReceiveQueue::key).
    SharedReceiveQueue(u64),
    /// An object of a kind that this version does not know.
    Unknown,
    /// A work queue of `ibv_create_wq(3)`, by its number.
    WorkQueue(u32),
}

/// Kind of an [`AsyncEvent`] (`enum ibv_event_type`; IBTA 1.4, 11.6.3). An unknown kind is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AsyncEventKind {
    /// The subnet manager asks for subscriptions to be made anew.
    ClientReregister,
    /// A queue pair that is not yet ready to send has received its first packet.
    CommunicationEstablished,
    /// A completion queue has been overrun or otherwise broken.
    CompletionQueueError,
    /// The device has failed or is being removed. Nothing but destruction works any more.
    DeviceFatal,
    /// The device changed its speed.
    DeviceSpeedChange,
    /// The GID table of a port changed.
    GidChange,
    /// A queue pair in ERROR takes no more receives from its shared receive queue.
    LastWorkRequestReached,
    /// A port has another local identifier.
    LocalIdentifierChange,
    /// The table of partition keys of a port changed.
    PartitionKeyChange,
    /// A queue pair moved to its alternate path.
    PathMigrated,
    /// A queue pair could not move to its alternate path.
    PathMigrationError,
    /// A port is ready for traffic.
    PortActive,
    /// A port has lost its link.
    PortError,
    /// A peer's request broke a queue pair's access rules.
    QueuePairAccessError,
    /// A queue pair failed, and the failure could not be told by a completion.
    QueuePairFatal,
    /// A peer sent a request that a queue pair cannot serve.
    QueuePairRequestError,
    /// A queue pair in SQD has sent what was begun.
    SendQueueDrained,
    /// A shared receive queue failed.
    SharedReceiveQueueError,
    /// A shared receive queue holds fewer receives than its limit, which is now unset.
    SharedReceiveQueueLimit,
    /// A port has another subnet manager.
    SubnetManagerChange,
    /// A work queue failed.
    WorkQueueFatal,
    /// An `IBV_EVENT_…` number that this version does not name.
    Other(u32),
}

/// What the element of a raw event is, by the event's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    CompletionQueue,
    Device,
    Port,
    QueuePair,
    SharedReceiveQueue,
    Unknown,
    WorkQueue,
}

/// Number, kind, element and text (that of `ibv_event_type_str(3)`) of every event that is known.
const KNOWN: [(u32, AsyncEventKind, Element, &str); 21] = {
    use AsyncEventKind as k;
    use Element as e;
    [
        (0, k::CompletionQueueError, e::CompletionQueue, "completion queue error"),
        (1, k::QueuePairFatal, e::QueuePair, "queue pair fatal error"),
        (2, k::QueuePairRequestError, e::QueuePair, "queue pair request error"),
        (3, k::QueuePairAccessError, e::QueuePair, "queue pair access error"),
        (4, k::CommunicationEstablished, e::QueuePair, "communication established"),
        (5, k::SendQueueDrained, e::QueuePair, "send queue drained"),
        (6, k::PathMigrated, e::QueuePair, "path migrated"),
        (7, k::PathMigrationError, e::QueuePair, "path migration error"),
        (8, k::DeviceFatal, e::Device, "device fatal error"),
        (9, k::PortActive, e::Port, "port active"),
        (10, k::PortError, e::Port, "port error"),
        (11, k::LocalIdentifierChange, e::Port, "local identifier change"),
        (12, k::PartitionKeyChange, e::Port, "partition key change"),
        (13, k::SubnetManagerChange, e::Port, "subnet manager change"),
        (14, k::SharedReceiveQueueError, e::SharedReceiveQueue, "shared receive queue error"),
        (15, k::SharedReceiveQueueLimit, e::SharedReceiveQueue, "shared receive queue limit reached"),
        (16, k::LastWorkRequestReached, e::QueuePair, "last work request reached"),
        (17, k::ClientReregister, e::Port, "client reregistration"),
        (18, k::GidChange, e::Port, "GID table change"),
        (19, k::WorkQueueFatal, e::WorkQueue, "work queue fatal error"),
        (20, k::DeviceSpeedChange, e::Device, "device speed change"),
    ]
};

impl AsyncEventKind {
    /// The `IBV_EVENT_…` number.
    pub fn number(self) -> u32 {
        match self {
            Self::Other(number) => number,
            known => KNOWN.iter().find(|(_, kind, ..)| *kind == known).map_or(u32::MAX, |(number, ..)| *number),
        }
    }

    fn from_number(number: u32) -> Self {
        KNOWN.iter().find(|(known, ..)| *known == number).map_or(Self::Other(number), |(_, kind, ..)| *kind)
    }

    fn element(self) -> Element {
        KNOWN.iter().find(|(_, kind, ..)| *kind == self).map_or(Element::Unknown, |(_, _, element, _)| *element)
    }
}

impl fmt::Display for AsyncEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match KNOWN.iter().find(|(_, kind, ..)| kind == self) {
            Some((.., text)) => f.write_str(text),
            None => write!(f, "unknown event {}", self.number()),
        }
    }
}

impl fmt::Display for AsyncEventObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CompletionQueue(key) => write!(f, "completion queue of key {key}"),
            Self::Device => f.write_str("the device"),
            Self::Port(port) => write!(f, "port {port}"),
            Self::QueuePair(number) => write!(f, "queue pair {number}"),
            Self::SharedReceiveQueue(key) => write!(f, "shared receive queue of key {key}"),
            Self::Unknown => f.write_str("an unknown object"),
            Self::WorkQueue(number) => write!(f, "work queue {number}"),
        }
    }
}

impl fmt::Display for AsyncEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.object)
    }
}

impl AsyncEvent {
    fn read(context: &Context) -> Result<Option<Self>> {
        let mut raw = MaybeUninit::<ffi::ibv_async_event>::zeroed();
        // SAFETY: the context is open and the structure is writable for the call.
        let answer = unsafe { ffi::ibv_get_async_event(context.raw(), raw.as_mut_ptr()) };
        if answer != 0 {
            let error = Error::last("ibv_get_async_event");
            return match error.io().kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        let pending = Pending(raw);
        let kind = AsyncEventKind::from_number(pending.number());
        Ok(Some(Self { kind, object: pending.object(kind.element()) }))
    }
}

/// An event that has been read and is acknowledged on drop. Until then libibverbs does not free the object that it is for:
/// the object's destructor waits.
struct Pending(MaybeUninit<ffi::ibv_async_event>);

impl Pending {
    fn number(&self) -> u32 {
        // The field is a C enum that may hold a number the binding does not know: it is read as an
        // integer and never becomes a Rust enum.
        // SAFETY: the field lies within the structure.
        let field = unsafe { &raw const (*self.0.as_ptr()).event_type };
        // SAFETY: the structure was zeroed and then filled, so these four bytes are initialised.
        unsafe { field.cast::<u32>().read() }
    }

    /// What the event happened to; `element` must be that of the event's number.
    fn object(&self, element: Element) -> AsyncEventObject {
        match element {
            Element::CompletionQueue => {
                let queue = self.element::<*mut ffi::ibv_cq>();
                // SAFETY: the queue cannot be freed before the event is acknowledged.
                AsyncEventObject::CompletionQueue(unsafe { (*queue).cq_context } as u64)
            }
            Element::Device => AsyncEventObject::Device,
            Element::Port => AsyncEventObject::Port(self.element::<i32>().clamp(0, 255) as u8),
            Element::QueuePair => {
                let pair = self.element::<*mut ffi::ibv_qp>();
                // SAFETY: the queue pair cannot be freed before the event is acknowledged.
                AsyncEventObject::QueuePair(unsafe { (*pair).qp_num })
            }
            Element::SharedReceiveQueue => {
                let queue = self.element::<*mut ffi::ibv_srq>();
                // SAFETY: the queue cannot be freed before the event is acknowledged.
                AsyncEventObject::SharedReceiveQueue(unsafe { (*queue).srq_context } as u64)
            }
            Element::Unknown => AsyncEventObject::Unknown,
            Element::WorkQueue => {
                let queue = self.element::<*mut ffi::ibv_wq>();
                // SAFETY: the queue cannot be freed before the event is acknowledged.
                AsyncEventObject::WorkQueue(unsafe { (*queue).wq_num })
            }
        }
    }

    /// The event's union, as the member of type `T`.
    fn element<T: Copy>(&self) -> T {
        const { assert!(size_of::<T>() <= size_of::<ffi::ibv_async_event_element_t>()) };
        // SAFETY: the field lies within the structure.
        let field = unsafe { &raw const (*self.0.as_ptr()).element };
        // SAFETY: `T` is a pointer or an integer, no larger than the union, all of whose bytes are initialised.
        unsafe { field.cast::<T>().read() }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // SAFETY: the event was read and is acknowledged once.
        unsafe { ffi::ibv_ack_async_event(self.0.as_mut_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_kind_and_comes_back() {
        for number in (0..100).chain([u32::MAX]) {
            let kind = AsyncEventKind::from_number(number);
            assert_eq!(kind.number(), number);
            assert_eq!(matches!(kind, AsyncEventKind::Other(_)), number > 20, "{number}");
        }
    }

    #[test]
    fn the_table_agrees_with_the_binding() {
        use ffi::ibv_event_type as t;
        for (raw, kind) in [
            (t::IBV_EVENT_CQ_ERR, AsyncEventKind::CompletionQueueError),
            (t::IBV_EVENT_QP_FATAL, AsyncEventKind::QueuePairFatal),
            (t::IBV_EVENT_QP_REQ_ERR, AsyncEventKind::QueuePairRequestError),
            (t::IBV_EVENT_QP_ACCESS_ERR, AsyncEventKind::QueuePairAccessError),
            (t::IBV_EVENT_COMM_EST, AsyncEventKind::CommunicationEstablished),
            (t::IBV_EVENT_SQ_DRAINED, AsyncEventKind::SendQueueDrained),
            (t::IBV_EVENT_PATH_MIG, AsyncEventKind::PathMigrated),
            (t::IBV_EVENT_PATH_MIG_ERR, AsyncEventKind::PathMigrationError),
            (t::IBV_EVENT_DEVICE_FATAL, AsyncEventKind::DeviceFatal),
            (t::IBV_EVENT_PORT_ACTIVE, AsyncEventKind::PortActive),
            (t::IBV_EVENT_PORT_ERR, AsyncEventKind::PortError),
            (t::IBV_EVENT_LID_CHANGE, AsyncEventKind::LocalIdentifierChange),
            (t::IBV_EVENT_PKEY_CHANGE, AsyncEventKind::PartitionKeyChange),
            (t::IBV_EVENT_SM_CHANGE, AsyncEventKind::SubnetManagerChange),
            (t::IBV_EVENT_SRQ_ERR, AsyncEventKind::SharedReceiveQueueError),
            (t::IBV_EVENT_SRQ_LIMIT_REACHED, AsyncEventKind::SharedReceiveQueueLimit),
            (t::IBV_EVENT_QP_LAST_WQE_REACHED, AsyncEventKind::LastWorkRequestReached),
            (t::IBV_EVENT_CLIENT_REREGISTER, AsyncEventKind::ClientReregister),
            (t::IBV_EVENT_GID_CHANGE, AsyncEventKind::GidChange),
            (t::IBV_EVENT_WQ_FATAL, AsyncEventKind::WorkQueueFatal),
            (t::IBV_EVENT_DEVICE_SPEED_CHANGE, AsyncEventKind::DeviceSpeedChange),
        ] {
            assert_eq!(AsyncEventKind::from_number(raw as u32), kind);
        }
    }

    #[test]
    fn an_unknown_number_has_no_element_that_would_be_followed() {
        // Its union may hold a pointer to anything, or none.
        assert_eq!(AsyncEventKind::from_number(21).element(), Element::Unknown);
        assert_eq!(AsyncEventKind::from_number(u32::MAX).element(), Element::Unknown);
        assert_eq!(AsyncEventKind::PortError.element(), Element::Port);
    }

    #[test]
    fn they_say_what_they_are() {
        let event = AsyncEvent { kind: AsyncEventKind::PortError, object: AsyncEventObject::Port(1) };
        assert_eq!(event.to_string(), "port error: port 1");
        let event = AsyncEvent { kind: AsyncEventKind::Other(77), object: AsyncEventObject::Unknown };
        assert_eq!(event.to_string(), "unknown event 77: an unknown object");
    }
}
