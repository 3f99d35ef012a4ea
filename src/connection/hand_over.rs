//! How those who wait and the device's events hand progress to each other, so that nobody sleeps while there is something to
//! handle. All of it is called with the lock of the worker's engine.
//!
//! Whoever waits registers his waker, asks for an event and only then looks once more: what comes before that look is found by
//! it, what comes after it makes an event. Whoever gets the event asks for the next one if somebody still waits, and looks
//! once more as well.

use std::task::{Poll, Waker};

/// What is driven: the connections of an engine.
pub(crate) trait Driven {
    /// Handles all that is there.
    fn run_dry(&mut self);
    /// Has the device make an event with the next completion; answers whether it will.
    fn request_notification(&mut self) -> bool;
    /// Takes the events that the device has made.
    fn drain_events(&mut self);
    /// Whether an event will come with the next completion.
    fn armed(&mut self) -> &mut bool;
    /// Whether somebody's waker is registered.
    fn is_waited_for(&self) -> bool;
}

/// Registers `waker` by `attempt`, unless that is ready: what comes from then on makes an event.
pub(crate) fn sleep<D: Driven, R>(
    driven: &mut D,
    waker: &Waker,
    mut attempt: impl FnMut(&mut D, Option<&Waker>) -> Poll<R>,
) -> Poll<R> {
    if let Poll::Ready(result) = attempt(driven, Some(waker)) {
        return Poll::Ready(result);
    }
    arm(driven);
    attempt(driven, None)
}

/// The device has made an event.
pub(crate) fn on_event(driven: &mut impl Driven) {
    *driven.armed() = false;
    driven.drain_events();
    driven.run_dry();
    if driven.is_waited_for() {
        arm(driven);
    }
}

fn arm(driven: &mut impl Driven) {
    if !*driven.armed() {
        let is_armed = driven.request_notification();
        *driven.armed() = is_armed;
    }
    driven.run_dry();
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::future::poll_fn;
    use std::task::Context;

    use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
    use loom::thread;

    use super::*;

    #[derive(Default)]
    struct DeviceState {
        completions: usize,
        /// Whether the next completion makes an event.
        is_armed: bool,
        /// Events that nobody has taken.
        events: usize,
        /// Nobody waits for events any more.
        has_ended: bool,
    }

    #[derive(Default)]
    struct Device {
        state: Mutex<DeviceState>,
        event: Condvar,
    }

    impl Device {
        fn lock(&self) -> MutexGuard<'_, DeviceState> {
            self.state.lock().expect("sound")
        }

        fn complete(&self) {
            let mut state = self.lock();
            state.completions += 1;
            if std::mem::take(&mut state.is_armed) {
                state.events += 1;
                self.event.notify_one();
            }
        }

        /// Waits for an event; answers whether there may be one.
        fn wait(&self) -> bool {
            let mut state = self.lock();
            while state.events == 0 && !state.has_ended {
                state = self.event.wait(state).expect("sound");
            }
            !state.has_ended
        }

        fn end(&self) {
            self.lock().has_ended = true;
            self.event.notify_one();
        }
    }

    /// What the lock of an engine keeps: messages that have come, and who waits for one.
    struct Core {
        device: Arc<Device>,
        messages: usize,
        waiting: Vec<Waker>,
        woken: Vec<Waker>,
        armed: bool,
    }

    impl Driven for Core {
        fn run_dry(&mut self) {
            let polled = std::mem::take(&mut self.device.lock().completions);
            self.messages += polled;
            if polled > 0 {
                self.woken.append(&mut self.waiting);
            }
        }

        fn request_notification(&mut self) -> bool {
            self.device.lock().is_armed = true;
            true
        }

        fn drain_events(&mut self) {
            self.device.lock().events = 0;
        }

        fn armed(&mut self) -> &mut bool {
            &mut self.armed
        }

        fn is_waited_for(&self) -> bool {
            !self.waiting.is_empty()
        }
    }

    struct Engine {
        device: Arc<Device>,
        core: Mutex<Core>,
    }

    impl Engine {
        fn new() -> Arc<Self> {
            let device = Arc::<Device>::default();
            let (waiting, woken) = (Vec::new(), Vec::new());
            let core = Core { device: Arc::clone(&device), messages: 0, waiting, woken, armed: false };
            Arc::new(Self { device, core: Mutex::new(core) })
        }

        fn settle(mut core: MutexGuard<'_, Core>) {
            let woken = std::mem::take(&mut core.woken);
            drop(core);
            woken.into_iter().for_each(Waker::wake);
        }

        fn receive(&self, context: &mut Context<'_>) -> Poll<()> {
            let mut core = self.core.lock().expect("sound");
            let received = sleep(&mut *core, context.waker(), |core, waker| {
                if core.messages > 0 {
                    core.messages -= 1;
                    return Poll::Ready(());
                }
                core.waiting.extend(waker.cloned());
                Poll::Pending
            });
            Self::settle(core);
            received
        }

        fn on_event(&self) {
            let mut core = self.core.lock().expect("sound");
            on_event(&mut *core);
            Self::settle(core);
        }
    }

    /// A waiter who receives a message; the last one to end lets the reactor go.
    fn waiter(engine: &Arc<Engine>, left: &Arc<Mutex<usize>>) -> thread::JoinHandle<()> {
        let (engine, left) = (Arc::clone(engine), Arc::clone(left));
        thread::spawn(move || {
            loom::future::block_on(poll_fn(|context| engine.receive(context)));
            let mut left = left.lock().expect("sound");
            *left -= 1;
            if *left == 0 {
                engine.device.end();
            }
        })
    }

    /// Waits for events until nobody is left.
    fn react(engine: &Engine) {
        while engine.device.wait() {
            engine.on_event();
        }
    }

    fn bounded(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        // A third takes twenty times as long, and more than that has no end.
        builder.preemption_bound = Some(builder.preemption_bound.map_or(2, |bound| bound.min(3)));
        builder.check(model);
    }

    #[test]
    fn loom_two_who_wait_each_receive_one_of_two_messages() {
        bounded(|| {
            let (engine, left) = (Engine::new(), Arc::new(Mutex::new(2)));
            let waiters = [waiter(&engine, &left), waiter(&engine, &left)];
            let device = Arc::clone(&engine.device);
            let peer = thread::spawn(move || {
                device.complete();
                device.complete();
            });
            react(&engine);
            waiters.into_iter().chain([peer]).for_each(|thread| thread.join().expect("no panic"));
        });
    }

    #[test]
    fn loom_one_who_gives_up_takes_no_event_from_another() {
        bounded(|| {
            let (engine, left) = (Engine::new(), Arc::new(Mutex::new(1)));
            let gone = {
                let engine = Arc::clone(&engine);
                thread::spawn(move || {
                    // Polled once, and dropped: its waker is told for nothing.
                    let waker = Waker::noop();
                    let received = engine.receive(&mut Context::from_waker(waker));
                    let mut core = engine.core.lock().expect("sound");
                    core.waiting.retain(|waiting| !waiting.will_wake(waker));
                    // What it has received is given back, as a message is that was not taken.
                    core.messages += usize::from(received.is_ready());
                    if received.is_ready() {
                        let woken = std::mem::take(&mut core.waiting);
                        core.woken.extend(woken);
                    }
                    Engine::settle(core);
                })
            };
            let receiver = waiter(&engine, &left);
            let device = Arc::clone(&engine.device);
            let peer = thread::spawn(move || device.complete());
            react(&engine);
            [gone, receiver, peer].into_iter().for_each(|thread| thread.join().expect("no panic"));
        });
    }
}
