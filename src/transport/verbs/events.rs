//! rdma_cm's events, read by the service thread and handed to the identifier they are for.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Instant;

use super::wrap;
use crate::service::Service;
use crate::verbs::{ConnectionEvent, ConnectionId, EventChannel};
use crate::{Error, ErrorKind, Result};

/// The event channel of this process and who listens on it.
pub(super) struct Events {
    channel: Arc<EventChannel>,
    service: Arc<Service>,
    process: u32,
    routes: Mutex<HashMap<u64, Arc<Inbox>>>,
}

/// What has happened to one identifier and was not yet looked at.
#[derive(Default)]
pub(super) struct Inbox(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    events: VecDeque<(ConnectionEvent, Option<Endpoint>)>,
    waker: Option<Waker>,
    observer: Option<Observer>,
    /// Connect requests that may wait.
    limit: usize,
}

type Observer = Box<dyn FnMut(ConnectionEvent) + Send>;

/// Where the events of an identifier can be waited for, without holding it.
pub(super) struct EventSource {
    inbox: Arc<Inbox>,
    service: Arc<Service>,
}

/// An identifier whose events are routed to it. Destroyed on the service thread.
pub(super) struct Endpoint {
    id: Option<ConnectionId>,
    key: u64,
    inbox: Arc<Inbox>,
    events: Arc<Events>,
}

static EVENTS: Mutex<Option<Arc<Events>>> = Mutex::new(None);

impl Events {
    /// The events of this process; the channel is opened on first use.
    pub(super) fn of_process(operation: &'static str) -> Result<Arc<Self>> {
        let mut current = lock(&EVENTS);
        if let Some(events) = current.as_ref().filter(|events| events.process == std::process::id()) {
            return Ok(Arc::clone(events));
        }
        let channel = EventChannel::create().map_err(|error| wrap(operation, error))?;
        let service = Service::of_process()?;
        let descriptor = channel
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::new(ErrorKind::ResourceExhausted, operation).with_source(error))?;
        let process = std::process::id();
        let events = Arc::new(Self { channel, service: Arc::clone(&service), process, routes: Mutex::default() });
        let reader = Arc::clone(&events);
        service.watch(descriptor, move || reader.deliver_all());
        if let Some(parents) = current.replace(Arc::clone(&events)) {
            std::mem::forget(parents);
        }
        Ok(events)
    }

    /// A new identifier.
    pub(super) fn endpoint(self: &Arc<Self>, operation: &'static str) -> Result<Endpoint> {
        let id = ConnectionId::create(&self.channel).map_err(|error| wrap(operation, error))?;
        Ok(self.route(id))
    }

    fn route(self: &Arc<Self>, id: ConnectionId) -> Endpoint {
        let (key, inbox) = (id.key(), Arc::new(Inbox::default()));
        lock(&self.routes).insert(key, Arc::clone(&inbox));
        Endpoint { id: Some(id), key, inbox, events: Arc::clone(self) }
    }

    fn deliver_all(self: &Arc<Self>) -> bool {
        loop {
            match self.channel.next_event() {
                Ok(Some(mut event)) => {
                    tracing::debug!(kind = ?event.kind, status = event.status, key = event.key, "rdma_cm event");
                    // Routed before the next event is read, which may be for the new identifier.
                    let request = event.request.take().map(|id| self.route(id));
                    let inbox = lock(&self.routes).get(&event.key).cloned();
                    // Without a listener the request is dropped here, which refuses it.
                    if let Some(inbox) = inbox {
                        inbox.deliver(event, request);
                    }
                }
                Ok(None) => return true,
                Err(error) => {
                    tracing::error!(%error, "rdma_cm events can no longer be read");
                    return false;
                }
            }
        }
    }
}

impl Inbox {
    fn deliver(&self, event: ConnectionEvent, request: Option<Endpoint>) {
        let mut pending = lock(&self.0);
        if let Some(mut observer) = pending.observer.take() {
            drop(pending);
            observer(event);
            lock(&self.0).observer = Some(observer);
            return;
        }
        if request.is_some() && pending.events.len() >= pending.limit {
            drop(pending);
            tracing::warn!("more connect requests than the backlog; one is refused");
            // Dropping its identifier refuses it.
            return drop(request);
        }
        pending.events.push_back((event, request));
        let waker = pending.waker.take();
        drop(pending);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Endpoint {
    pub(super) fn id(&self) -> &ConnectionId {
        self.id.as_ref().expect("taken only by drop")
    }

    /// The next event; `None` when the deadline passes first.
    pub(super) fn next_event(&self, deadline: Option<Instant>) -> impl Future<Output = Arrival> + Send + use<> {
        self.event_source().next(deadline)
    }

    pub(super) fn event_source(&self) -> EventSource {
        EventSource { inbox: Arc::clone(&self.inbox), service: Arc::clone(&self.events.service) }
    }

    /// Refuses connect requests when so many wait.
    pub(super) fn limit_requests(&self, limit: usize) {
        lock(&self.inbox.0).limit = limit;
    }

    /// From now on `observer` is called with every event, those that wait included, on the service thread.
    pub(super) fn observe(&self, mut observer: impl FnMut(ConnectionEvent) + Send + 'static) {
        let inbox = Arc::clone(&self.inbox);
        // On the service thread, where events are delivered, so that none slips in between.
        self.events.service.run_job(move || {
            let waiting = std::mem::take(&mut lock(&inbox.0).events);
            for (event, _) in waiting {
                observer(event);
            }
            lock(&inbox.0).observer = Some(Box::new(observer));
        });
    }

    /// Destroys the identifier now, which frees its port.
    pub(super) fn destroy(mut self) {
        lock(&self.events.routes).remove(&self.key);
        drop(self.id.take());
    }
}

/// An event and, for a connect request, its identifier.
pub(super) type Arrival = Option<(ConnectionEvent, Option<Endpoint>)>;

impl EventSource {
    pub(super) fn next(&self, deadline: Option<Instant>) -> impl Future<Output = Arrival> + Send + use<> {
        let (inbox, service) = (Arc::clone(&self.inbox), Arc::clone(&self.service));
        let mut timer_set = false;
        std::future::poll_fn(move |context| {
            let mut pending = lock(&inbox.0);
            if let Some(event) = pending.events.pop_front() {
                return Poll::Ready(Some(event));
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Poll::Ready(None);
            }
            pending.waker = Some(context.waker().clone());
            drop(pending);
            if let Some(deadline) = deadline.filter(|_| !timer_set) {
                timer_set = true;
                let inbox: Weak<Inbox> = Arc::downgrade(&inbox);
                service.run_at(deadline, move || {
                    let waker = inbox.upgrade().and_then(|inbox| lock(&inbox.0).waker.take());
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                });
            }
            Poll::Pending
        })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        lock(&self.events.routes).remove(&self.key);
        if let Some(id) = self.id.take() {
            // It can wait for an event that the service thread is about to acknowledge.
            self.events.service.run_job(move || drop(id));
        }
        // What the observer holds goes with it.
        let observer = lock(&self.inbox.0).observer.take();
        drop(observer);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
