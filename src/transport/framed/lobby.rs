//! Listening: peers that have connected say what they want before anybody hears of them.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{Shutdown, SocketAddrAny, SocketFlags};

use super::hello::{HELLO, Hello, Kind, MOST_DATA};
use super::set_up::{Incoming, READS};
use super::socket::Socket;
use super::{Carrier, Framed, device_name};
use crate::memory::Epoch;
use crate::protocol::Refusal;
use crate::service::{Service, TimerId, WatchId};
use crate::sync::lock;
use crate::sync::locks::Mutex;
use crate::transport::Listen;
use crate::{Error, ErrorKind, Result};

/// How long a peer that has connected may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is said, at most, that peers are turned away.
const WARNING: Duration = Duration::from_secs(1);

/// Waits for connect requests.
pub(crate) struct FramedListener<C: Carrier> {
    address: C::Address,
    socket: OwnedFd,
    /// Until it is dropped.
    door: Option<C::Door>,
    lobby: Arc<Lobby<C>>,
    watch: WatchId,
    epoch: Epoch,
}

/// Peers that nobody has heard of yet. All of it runs on the service thread, and waits for nobody.
struct Lobby<C: Carrier> {
    service: Arc<Service>,
    /// Of those that say nothing, and of those that wait.
    most: usize,
    /// What to answer who asks which ways lead here.
    offer: OnceLock<Vec<u8>>,
    state: Mutex<State<C>>,
}

struct State<C: Carrier> {
    is_closed: bool,
    next: u64,
    /// Who has not said all.
    silent: Vec<(u64, WatchId, TimerId)>,
    waiting: VecDeque<Incoming<C>>,
    waker: Option<Waker>,
    /// When it was last said that peers are turned away.
    warned: Option<Instant>,
}

impl<C: Carrier> Default for State<C> {
    fn default() -> Self {
        Self { is_closed: false, next: 0, silent: Vec::new(), waiting: VecDeque::new(), waker: None, warned: None }
    }
}

impl<C: Carrier> State<C> {
    /// Whether it may be said again: peers do not decide how often.
    fn may_warn(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.warned.is_none_or(|last| now.saturating_duration_since(last) >= WARNING);
        if is_due {
            self.warned = Some(now);
        }
        is_due
    }
}

/// A peer that is about to say what it wants.
pub(super) struct Guest {
    socket: Arc<Socket>,
    peer: String,
    said: Vec<u8>,
    gifts: Vec<OwnedFd>,
    /// Whether it has given more than it may.
    is_pushy: bool,
}

impl<C: Carrier> FramedListener<C> {
    pub(super) fn bind(address: C::Address, backlog: u16) -> Result<Self> {
        let (operation, scheme) = ("listen", device_name::<C>());
        let (socket, bound, door) = C::listen(&address, backlog).map_err(|error| error.with_device(scheme))?;
        let service = Service::of_process()?;
        let lobby = Arc::new(Lobby {
            service: Arc::clone(&service),
            most: backlog.into(),
            offer: OnceLock::new(),
            state: Mutex::default(),
        });
        let doorman = Arc::downgrade(&lobby);
        let another = || {
            let failed = |error| Error::new(ErrorKind::ResourceExhausted, operation).with_source(error);
            socket.try_clone().map_err(|error| failed(error).with_device(scheme))
        };
        let (watched, entrance) = (another()?, another()?);
        let watch = service.watch(watched, move || doorman.upgrade().is_some_and(|lobby| lobby.admit(&entrance)));
        Ok(Self { address: bound, socket, door: Some(door), lobby, watch, epoch: Epoch::current() })
    }
}

impl<C: Carrier> FramedListener<C> {
    /// Says `offer`, from now on, to who asks which ways lead here. The first one counts.
    pub(crate) fn offer(&self, offer: Vec<u8>) {
        let _ = self.lobby.offer.set(offer);
    }
}

#[cfg(test)]
impl<C: Carrier> FramedListener<C> {
    /// How many have been let in, how many of them have not said all, and whether a warning was due.
    pub(in crate::transport) fn books(&self) -> (u64, usize, bool) {
        let state = lock(&self.lobby.state);
        (state.next, state.silent.len(), state.warned.is_some())
    }
}

impl<C: Carrier> Listen<Framed<C>> for FramedListener<C> {
    fn local_address(&self) -> C::Address {
        self.address.clone()
    }

    async fn next(&self) -> Result<Incoming<C>> {
        std::future::poll_fn(|context| {
            let mut state = lock(&self.lobby.state);
            match state.waiting.pop_front() {
                Some(incoming) => Poll::Ready(Ok(incoming)),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl<C: Carrier> Lobby<C> {
    /// Lets in who knocks; more than the backlog later, so that the service gets to something else.
    fn admit(self: &Arc<Self>, listener: &OwnedFd) -> bool {
        for _ in 0..self.most.max(1) {
            match rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok((descriptor, from)) => self.receive(descriptor, from),
                Err(Errno::AGAIN) => return !lock(&self.state).is_closed,
                // It has gone again.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => {}
                Err(_) if lock(&self.state).is_closed => return false,
                Err(errno) => {
                    if lock(&self.state).may_warn() {
                        tracing::warn!(%errno, "a peer could not be accepted");
                    }
                    // Without descriptors it stays readable: another look follows, after a pause.
                    std::thread::sleep(Duration::from_millis(1));
                    return !lock(&self.state).is_closed;
                }
            }
        }
        !lock(&self.state).is_closed
    }

    fn receive(self: &Arc<Self>, descriptor: OwnedFd, from: Option<SocketAddrAny>) {
        let peer = C::peer(&descriptor, from);
        let mut state = lock(&self.state);
        if state.is_closed || state.silent.len() >= self.most {
            if state.may_warn() {
                tracing::warn!(peer, "more peers in set-up than the backlog; they are refused");
            }
            drop(state);
            return refuse(&descriptor, &Refusal::Busy.to_bytes());
        }
        if let Err(error) = C::admit(&descriptor) {
            if state.may_warn() {
                tracing::warn!(peer, %error, "a peer could not be accepted");
            }
            let is_stranger = error.kind() == ErrorKind::PermissionDenied;
            let why = if is_stranger { Refusal::Stranger } else { Refusal::Busy };
            return refuse(&descriptor, &why.to_bytes());
        }
        let watched = descriptor.try_clone();
        let (Ok(watched), Ok(socket)) = (watched, Socket::new(descriptor)) else {
            if state.may_warn() {
                tracing::warn!(peer, "a peer could not be accepted: there are no more descriptors");
            }
            return;
        };
        let id = state.next;
        state.next += 1;
        let mut guest = Some(Guest::new(socket, peer));
        let lobby: Weak<Self> = Arc::downgrade(self);
        let watch = self.service.watch(watched, move || {
            let Some(lobby) = lobby.upgrade() else { return false };
            let has_said_all = guest.as_mut().is_none_or(Guest::hear);
            if has_said_all && let Some(guest) = guest.take() {
                lobby.announce(id, guest);
            }
            !has_said_all
        });
        let lobby = Arc::downgrade(self);
        let timer = self.service.run_at(Instant::now() + PATIENCE, move || {
            if let Some(lobby) = lobby.upgrade() {
                lobby.show_out(id);
            }
        });
        state.silent.push((id, watch, timer));
    }

    /// A peer has said what it wants, or something else.
    fn announce(&self, id: u64, guest: Guest) {
        for (.., timer) in lock(&self.state).silent.extract_if(.., |(silent, ..)| *silent == id) {
            self.service.cancel(timer);
        }
        let Guest { socket, peer, said, gifts, is_pushy } = guest;
        if said[..] == Kind::Ask.say(READS, &[])[..]
            && let Some(offer) = self.offer.get()
        {
            return answer(socket.descriptor(), Kind::Offer, offer);
        }
        // Who only looks whether somebody listens here.
        if said.is_empty() && !is_pushy {
            return;
        }
        // Mapped, or closed, while nobody waits for the lock.
        let (hello, gift) = match wish::<C>(&said, gifts, is_pushy) {
            Ok(heard) => heard,
            Err(reason) => {
                if lock(&self.state).may_warn() {
                    tracing::warn!(peer, reason, "a peer could not be accepted");
                }
                return refuse(socket.descriptor(), &Refusal::Incompatible.to_bytes());
            }
        };
        let data = said[HELLO..].to_vec();
        let mut state = lock(&self.state);
        if state.is_closed || state.waiting.len() >= self.most {
            if state.may_warn() {
                tracing::warn!(peer, "more connect requests than the backlog; they are refused");
            }
            drop(state);
            return refuse(socket.descriptor(), &Refusal::Busy.to_bytes());
        }
        state.waiting.push_back(Incoming::new(socket, peer, hello.reads, data, gift));
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Who has said nothing for so long has to go.
    fn show_out(&self, id: u64) {
        let mut state = lock(&self.state);
        for (_, watch, _) in state.silent.extract_if(.., |(silent, ..)| *silent == id) {
            self.service.unwatch(watch);
        }
    }
}

/// What who has said that wants, if it is a connection, and gives.
///
/// # Errors
/// What is wrong with it.
fn wish<C: Carrier>(said: &[u8], gifts: Vec<OwnedFd>, is_pushy: bool) -> std::result::Result<(Hello, C::Gift), String> {
    match said.first_chunk().map(|head| Hello::parse(*head)) {
        Some(Ok(hello)) if hello.kind == Kind::Request && said.len() == HELLO + hello.length => {
            C::unwrap(gifts).map(|gift| (hello, gift))
        }
        _ if is_pushy => Err("it gives more descriptors than an introduction has".to_owned()),
        Some(Ok(_)) => Err("it does not ask for a connection".to_owned()),
        Some(Err(reason)) => Err(reason),
        None => Err("it has gone".to_owned()),
    }
}

/// Turns a peer away.
fn refuse(socket: &OwnedFd, reason: &[u8]) {
    answer(socket, Kind::Refuse, reason);
}

/// Says something that fits the empty buffer of the socket.
fn answer(socket: &OwnedFd, kind: Kind, data: &[u8]) {
    let _ = rustix::net::send(socket, &kind.say(0, data), rustix::net::SendFlags::NOSIGNAL);
}

impl Guest {
    pub(super) fn new(socket: Arc<Socket>, peer: String) -> Self {
        Self { socket, peer, said: Vec::with_capacity(HELLO + MOST_DATA), gifts: Vec::new(), is_pushy: false }
    }

    /// See [`wish`].
    #[cfg(any(test, feature = "internals"))]
    pub(super) fn wish<C: Carrier>(self) -> std::result::Result<(Hello, C::Gift), String> {
        wish::<C>(&self.said, self.gifts, self.is_pushy)
    }

    /// Reads what it says, and not more; answers whether that is all.
    pub(super) fn hear(&mut self) -> bool {
        let mut bytes = [0; HELLO + MOST_DATA];
        loop {
            let wanted = match self.said.first_chunk().map(|head| Hello::parse(*head)) {
                None => HELLO,
                Some(Ok(hello)) => HELLO + hello.length,
                Some(Err(_)) => return true,
            };
            let left = wanted - self.said.len();
            if left == 0 {
                return true;
            }
            match self.socket.hear(&mut bytes[..left], &mut self.gifts) {
                Ok(0) => return true,
                Ok(read) => self.said.extend_from_slice(&bytes[..read]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(errno) => {
                    self.is_pushy = errno == Errno::TOOMANYREFS;
                    return true;
                }
            }
        }
    }
}

impl<C: Carrier> Drop for FramedListener<C> {
    fn drop(&mut self) {
        // A forked child has the same socket: it would end the listening of its parent.
        if !self.epoch.is_current() {
            return;
        }
        drop(self.door.take());
        let service = &self.lobby.service;
        service.unwatch(self.watch);
        let mut state = lock(&self.lobby.state);
        state.is_closed = true;
        // The service thread closes its descriptors soon; the port is free now.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        for (_, watch, timer) in state.silent.drain(..) {
            service.unwatch(watch);
            service.cancel(timer);
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for incoming in waiting {
            crate::transport::SetUp::<Framed<C>>::refuse(incoming, &Refusal::Declined.to_bytes());
        }
    }
}
