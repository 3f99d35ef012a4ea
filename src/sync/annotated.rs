//! Locks whose order ThreadSanitizer sees.
//!
//! The standard library is not instrumented: what it puts in order where a lock was contended, a condition variable was
//! waited for or a `OnceLock` was set looks like a race. These say it again by an atomic, stored to before the standard
//! library's lets go and loaded after it was taken: that puts nothing in order that was not.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

/// What ThreadSanitizer sees of a lock.
#[derive(Debug, Default)]
struct Order(AtomicBool);

impl Order {
    const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    fn taken(&self) {
        self.0.load(Ordering::Acquire);
    }

    fn let_go(&self) {
        self.0.store(true, Ordering::Release);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T: ?Sized> {
    order: Order,
    mutex: std::sync::Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { order: Order::new(), mutex: std::sync::Mutex::new(value) }
    }
}

impl<T: ?Sized> Mutex<T> {
    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let guarded = |guard| MutexGuard::taken(&self.order, guard);
        self.mutex.lock().map(guarded).map_err(|poisoned| PoisonError::new(guarded(poisoned.into_inner())))
    }

    pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let guarded = |guard| MutexGuard::taken(&self.order, guard);
        self.mutex.try_lock().map(guarded).map_err(|error| match error {
            TryLockError::Poisoned(poisoned) => PoisonError::new(guarded(poisoned.into_inner())).into(),
            TryLockError::WouldBlock => TryLockError::WouldBlock,
        })
    }

    pub(crate) fn get_mut(&mut self) -> LockResult<&mut T> {
        self.mutex.get_mut()
    }
}

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T: ?Sized> {
    order: &'a Order,
    // Taken while a condition variable waits.
    guard: Option<std::sync::MutexGuard<'a, T>>,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    fn taken(order: &'a Order, guard: std::sync::MutexGuard<'a, T>) -> Self {
        order.taken();
        Self { order, guard: Some(guard) }
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("held")
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("held")
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.guard.is_some() {
            self.order.let_go();
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    pub(crate) fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while condition(&mut guard) {
            let order = guard.order;
            order.let_go();
            let inner = guard.guard.take().expect("held");
            let inner = self.0.wait(inner).unwrap_or_else(PoisonError::into_inner);
            guard = MutexGuard::taken(order, inner);
        }
        Ok(guard)
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    order: Order,
    lock: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(crate) const fn new() -> Self {
        Self { order: Order::new(), lock: std::sync::OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        let value = self.lock.get()?;
        self.order.taken();
        Some(value)
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.get_or_init(|| value.take().expect("made once"));
        value.map_or(Ok(()), Err)
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let value = self.lock.get_or_init(|| {
            let value = make();
            self.order.let_go();
            value
        });
        self.order.taken();
        value
    }
    pub(crate) fn take(&mut self) -> Option<T> {
        self.lock.take()
    }
}
