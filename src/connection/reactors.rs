//! Who hears of an engine's events: a task on each runtime that waits, and the service thread for those who wait outside of one.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, Weak};

use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, Id};
use tokio::task::AbortHandle;

use super::engine::Engine;
use crate::service::{Service, WatchId};
use crate::transport::Transport;
use crate::{Error, ErrorKind};

/// Who waits for the event descriptor: a task on each runtime that waits, or the service thread.
#[derive(Default)]
pub(super) struct Reactors {
    tasks: Vec<(Id, AbortHandle)>,
    /// Runtimes without I/O, which the service thread serves.
    without_io: Vec<Id>,
    on_service: Option<WatchId>,
}

impl Reactors {
    /// Nobody waits any more.
    pub(super) fn end(&mut self, service: &Service) {
        if let Some(watch) = self.on_service {
            service.unwatch(watch);
        }
        for (_, task) in &self.tasks {
            task.abort();
        }
    }
}

impl<T: Transport> Engine<T> {
    /// Has somebody wait for the event descriptor on this runtime.
    pub(super) fn watch_events(self: &Arc<Self>) {
        if self.events.is_none() {
            return;
        }
        let mut reactors = self.reactors.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose thread is blocked runs no task.
        let runtime = Handle::try_current().ok();
        let runtime = runtime.filter(|_| !crate::blocking::is_blocking());
        if let Some(runtime) = runtime.filter(|runtime| !reactors.without_io.contains(&runtime.id())) {
            reactors.tasks.retain(|(_, task)| !task.is_finished());
            if reactors.tasks.iter().any(|(id, _)| *id == runtime.id()) {
                return;
            }
            if let Some(events) = self.async_events() {
                let engine = Arc::downgrade(self);
                let task = runtime.spawn(react(engine, events)).abort_handle();
                reactors.tasks.push((runtime.id(), task));
                return;
            }
            reactors.without_io.push(runtime.id());
        }
        drop(reactors);
        self.watch_on_service();
    }

    fn watch_on_service(self: &Arc<Self>) {
        let mut reactors = self.reactors.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(events) = self.events.as_ref().filter(|_| reactors.on_service.is_none()) else { return };
        match events.try_clone() {
            Ok(events) => {
                let engine = Arc::downgrade(self);
                reactors.on_service = Some(self.service.watch(events, move || {
                    let Some(engine) = engine.upgrade() else { return false };
                    engine.on_event();
                    true
                }));
            }
            Err(error) => {
                drop(reactors);
                let error = Error::new(ErrorKind::ResourceExhausted, "wait").with_source(error);
                self.with(|core| core.fail_all(&error));
            }
        }
    }

    /// The event descriptor for tokio; `None` on a runtime without I/O.
    #[allow(deprecated, reason = "its unsafe successor asks that the descriptor never changes, which OwnedFd's cannot")]
    fn async_events(&self) -> Option<AsyncFd<OwnedFd>> {
        let events = self.events.as_ref()?.try_clone().ok()?;
        // tokio has no other way to tell that I/O is not enabled than to panic.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| AsyncFd::new(events))).ok()?.ok()
    }
}

async fn react<T: Transport>(engine: Weak<Engine<T>>, events: AsyncFd<OwnedFd>) {
    let _successor = Successor(Weak::clone(&engine));
    while let Ok(mut ready) = events.readable().await {
        // Before the events are read: one that comes in between makes it ready again.
        ready.clear_ready();
        let Some(engine) = engine.upgrade() else { return };
        engine.on_event();
    }
}

/// When a runtime goes away, those who wait outside of it must still be woken: the service thread takes over.
struct Successor<T: Transport>(Weak<Engine<T>>);

impl<T: Transport> Drop for Successor<T> {
    fn drop(&mut self) {
        if let Some(engine) = self.0.upgrade().filter(|engine| engine.is_ours()) {
            engine.watch_on_service();
        }
    }
}
