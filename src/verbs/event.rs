//! Asynchronous events of devices, copied and acknowledged before anyone sees them.

use std::mem::MaybeUninit;

use rdma_sys as ffi;

use super::{Context, Error, Result};

impl Context {
    /// The next asynchronous event (`ibv_get_async_event(3)`), or `None` if there is none yet. The
    /// event is acknowledged before it is returned, so no destructor waits for it.
    pub fn next_async_event(&self) -> Result<Option<AsyncEvent>> {
        AsyncEvent::read(self)
    }
}

/// An asynchronous event of a device (`ibv_get_async_event(3)`), by its number: an unknown one is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncEvent {
    /// The `IBV_EVENT_…` number.
    pub number: u32,
}

impl AsyncEvent {
    /// The name of `ibv_event_type_str(3)`'s list, or `unknown`.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 20] = [
            "completion queue error",
            "queue pair fatal",
            "queue pair request error",
            "queue pair access error",
            "communication established",
            "send queue drained",
            "path migrated",
            "path migration error",
            "device fatal",
            "port active",
            "port error",
            "local id change",
            "partition key change",
            "subnet manager change",
            "shared receive queue error",
            "shared receive queue limit reached",
            "last work request reached",
            "client reregister",
            "GID change",
            "work queue fatal",
        ];
        NAMES.get(self.number as usize).copied().unwrap_or("unknown")
    }

    pub(super) fn read(context: &Context) -> Result<Option<Self>> {
        let mut raw = MaybeUninit::<ffi::ibv_async_event>::zeroed();
        // SAFETY: the context is open and the structure is writable for the call.
        let answer = unsafe { ffi::ibv_get_async_event(context.raw(), raw.as_mut_ptr()) };
        if answer != 0 {
            let error = Error::last("ibv_get_async_event");
            return if error.io().kind() == std::io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
        }
        // The field is a C enum that may hold a number the binding does not know: it is read as an
        // integer and never becomes a Rust enum.
        // SAFETY: the field lies within the structure.
        let field = unsafe { &raw const (*raw.as_ptr()).event_type };
        // SAFETY: the structure was zeroed and then filled, so these four bytes are initialised.
        let number = unsafe { field.cast::<u32>().read() };
        // SAFETY: the event was just read and is acknowledged once.
        unsafe { ffi::ibv_ack_async_event(raw.as_mut_ptr()) };
        Ok(Some(Self { number }))
    }
}
