//! A device's asynchronous events: logged, and told to the queues whose queue pairs have failed.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::memory::Epoch;
use crate::service::{Service, WatchId};
use crate::verbs::{AsyncEvent, AsyncEventKind, AsyncEventObject, Context};
use crate::{Error, ErrorKind, Result};

/// Reads the events of a device on the service thread. Ends with its domain: they may never come, and their descriptor would
/// stay open.
#[derive(Debug)]
pub(super) struct DeviceEvents {
    listeners: Arc<Mutex<Vec<Weak<Reports>>>>,
    watch: WatchId,
    epoch: Epoch,
}

/// Queue pairs of a device that have failed as the device says, for one queue, which may have them or not.
#[derive(Debug, Default)]
pub(super) struct Reports {
    is_any: AtomicBool,
    /// Whether the device has ever told a failure.
    has_told: AtomicBool,
    numbers: Mutex<Vec<u32>>,
}

impl DeviceEvents {
    pub(super) fn watch(context: &Arc<Context>) -> Result<Self> {
        let descriptor = context
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::new(ErrorKind::ResourceExhausted, "open device").with_source(error))?;
        let listeners: Arc<Mutex<Vec<Weak<Reports>>>> = Arc::default();
        let (context, told) = (Arc::downgrade(context), Arc::clone(&listeners));
        let watch = Service::of_process()?.watch(descriptor, move || {
            let Some(context) = context.upgrade() else { return false };
            loop {
                match context.next_async_event() {
                    Ok(Some(event)) => {
                        let number = event.kind.number();
                        tracing::info!(device = context.name(), %event, number, "device event");
                        if let Some(pair) = failed(event) {
                            lock(&told).iter().filter_map(Weak::upgrade).for_each(|reports| reports.add(pair));
                        }
                    }
                    Ok(None) => return true,
                    Err(error) => {
                        tracing::error!(device = context.name(), %error, "device events can no longer be read");
                        return false;
                    }
                }
            }
        });
        Ok(Self { listeners, watch, epoch: Epoch::current() })
    }

    /// What the device reports from now on.
    pub(super) fn reports(&self) -> Arc<Reports> {
        let reports = Arc::new(Reports::default());
        let mut listeners = lock(&self.listeners);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&reports));
        reports
    }
}

/// The queue pair that the event says has failed.
fn failed(event: AsyncEvent) -> Option<u32> {
    use AsyncEventKind as Kind;
    match (event.kind, event.object) {
        (
            Kind::LastWorkRequestReached
            | Kind::QueuePairAccessError
            | Kind::QueuePairFatal
            | Kind::QueuePairRequestError,
            AsyncEventObject::QueuePair(number),
        ) => Some(number),
        _ => None,
    }
}

impl Reports {
    pub(super) fn add(&self, number: u32) {
        lock(&self.numbers).push(number);
        self.has_told.store(true, Ordering::Relaxed);
        self.is_any.store(true, Ordering::Release);
    }

    /// Whether there are some that were not taken.
    #[inline]
    pub(super) fn are_some(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// Whether the device is one that tells.
    pub(super) fn have_come(&self) -> bool {
        self.has_told.load(Ordering::Relaxed)
    }

    /// The numbers of all that were not taken. They may be of queue pairs that are gone, and in use again.
    pub(super) fn take(&self) -> Vec<u32> {
        self.is_any.swap(false, Ordering::Acquire);
        std::mem::take(&mut *lock(&self.numbers))
    }
}

impl Drop for DeviceEvents {
    fn drop(&mut self) {
        // A forked child's service knows nothing of it.
        if let Some(service) = self.epoch.is_current().then(Service::of_process).and_then(Result::ok) {
            service.unwatch(self.watch);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_of_queue_pairs_are_told() {
        let of = |kind, object| failed(AsyncEvent { kind, object });
        let pair = AsyncEventObject::QueuePair(7);
        for kind in [
            AsyncEventKind::LastWorkRequestReached,
            AsyncEventKind::QueuePairAccessError,
            AsyncEventKind::QueuePairFatal,
            AsyncEventKind::QueuePairRequestError,
        ] {
            assert_eq!(of(kind, pair), Some(7));
        }
        assert_eq!(of(AsyncEventKind::CommunicationEstablished, pair), None);
        assert_eq!(of(AsyncEventKind::SendQueueDrained, pair), None);
        assert_eq!(of(AsyncEventKind::PortError, AsyncEventObject::Port(7)), None);
    }

    #[test]
    fn a_report_is_taken_once() {
        let reports = Reports::default();
        assert!(!reports.are_some() && !reports.have_come());
        reports.add(1);
        reports.add(2);
        assert!(reports.are_some() && reports.have_come());
        assert_eq!(reports.take(), [1, 2]);
        assert!(!reports.are_some() && reports.have_come() && reports.take().is_empty());
    }
}
