//! The end of a channel: what says why is still written, if the peer takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData};

use super::Carrier;
use super::access::Accesses;
use super::channel::{Channel, Interest};
use crate::failpoint;
use crate::service::{Service, TimerId};
use crate::sync::lock;
use crate::sync::locks::Mutex;

/// How long the peer has for that.
const PATIENCE: Duration = Duration::from_millis(500);
/// Channels that may be at it at once, each with as much as it may keep.
const MOST: usize = 64;

static ENDING: AtomicUsize = AtomicUsize::new(0);

/// A channel that has last words; dropping it ends its stream.
struct Ending<C: Carrier> {
    channel: Box<Channel<C>>,
    accesses: Accesses,
}

/// What it waits for.
const ROOM: Interest = Interest { reading: false, writing: true };

impl<C: Carrier> Ending<C> {
    /// Writes what the peer takes; answers whether there is more.
    fn goes_on(&mut self) -> bool {
        self.channel.carrier.heed();
        while self.channel.has_last_words() && self.channel.write(&self.accesses).is_ok() {
            // If there is room again by now, nobody says so.
            if !self.channel.has_last_words() || !self.channel.carrier.doze(ROOM) {
                return self.channel.has_last_words();
            }
        }
        false
    }
}

impl<C: Carrier> Drop for Ending<C> {
    fn drop(&mut self) {
        ENDING.fetch_sub(1, Ordering::Relaxed);
        self.channel.socket.has_last_words.store(false, Ordering::Release);
        failpoint::reach("close.unshut");
        self.channel.socket.shut();
    }
}

/// Ends the stream of a channel that was taken out of its queue: at once, or when what it has left is written.
pub(super) fn end<C: Carrier>(channel: Box<Channel<C>>, accesses: Accesses) {
    let before = ENDING.fetch_add(1, Ordering::Relaxed);
    let mut ending = Ending { channel, accesses };
    if ending.goes_on() && before < MOST {
        linger(ending);
    }
}

/// Has the service write the rest when the peer takes it.
fn linger<C: Carrier>(ending: Ending<C>) {
    let socket = Arc::clone(&ending.channel.socket);
    // The service waits for what can be read, and this can when there is room.
    let Ok(events) = epoll::create(CreateFlags::CLOEXEC) else { return };
    if epoll::add(&events, &*socket, EventData::new_u64(0), C::events(ROOM)).is_err() {
        return;
    }
    let service: Arc<Service> = Arc::clone(&socket.service);
    let shared = Arc::new(Mutex::new((Some(ending), None::<TimerId>)));
    let mut state = lock(&shared);
    let (watched, canceller) = (Arc::clone(&shared), Arc::clone(&service));
    let watch = service.watch(events, move || {
        let mut state = lock(&watched);
        if state.0.as_mut().is_some_and(Ending::goes_on) {
            return true;
        }
        let (ended, timer) = (state.0.take(), state.1.take());
        drop(state);
        drop(ended);
        timer.into_iter().for_each(|timer| canceller.cancel(timer));
        false
    });
    let (late, unwatcher) = (Arc::clone(&shared), Arc::clone(&service));
    state.1 = Some(service.run_at(Instant::now() + PATIENCE, move || {
        let ended = lock(&late).0.take();
        if ended.is_some() {
            unwatcher.unwatch(watch);
        }
        drop(ended);
    }));
}
