//! Which sockets have something, and who is woken when they have.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use super::channel::{Channel, Interest};
use super::{Carrier, device_name, failed};
use crate::{Error, ErrorKind, Result};

/// Sockets that one poll looks at.
pub(super) const EVENTS: usize = 32;
/// Event data of the wake-up, which no channel has.
const KICK: u64 = u64::MAX;
/// The descriptors of a queue.
pub(super) struct Events {
    /// Has the sockets, and `kick`.
    sockets: OwnedFd,
    /// Each has `sockets`, and is readable once after it was armed.
    events: OwnedFd,
    idle: OwnedFd,
    /// Readable when something is ready that came from no socket.
    kick: OwnedFd,
    is_armed: bool,
    is_idle_armed: bool,
    is_kicked: bool,
}

impl Events {
    pub(super) fn open<C: Carrier>() -> Result<Self> {
        let told = |errno| failed("open device", errno).with_device(device_name::<C>());
        let epoll = || epoll::create(CreateFlags::CLOEXEC).map_err(told);
        let (sockets, events, idle) = (epoll()?, epoll()?, epoll()?);
        let kick = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(told)?;
        epoll::add(&sockets, &kick, EventData::new_u64(KICK), EventFlags::IN).map_err(told)?;
        for outer in [&events, &idle] {
            epoll::add(outer, &sockets, EventData::new_u64(0), EventFlags::ONESHOT).map_err(told)?;
        }
        Ok(Self { sockets, events, idle, kick, is_armed: false, is_idle_armed: false, is_kicked: false })
    }

    /// Has the kernel look for what the channel waits for, and the peer ring for it where nobody else looks; answers whether it is there
    /// already, of a channel that nobody looks at.
    pub(super) fn watch<C: Carrier>(&mut self, channel: &mut Channel<C>) -> bool {
        let wanted = channel.wanted();
        if wanted != channel.interest {
            self.change(channel, wanted);
        }
        // Always of one that is not awake, and of all while somebody sleeps.
        let must_ring = !channel.is_listed_awake || self.is_waited_for();
        let is_there = must_ring && channel.carrier.doze(wanted);
        if is_there {
            self.kick();
        }
        is_there && !channel.is_listed_awake
    }

    fn change<C: Carrier>(&self, channel: &mut Channel<C>, wanted: Interest) {
        let flags = C::events(wanted);
        let (sockets, socket, data) = (&self.sockets, channel.socket.as_fd(), EventData::new_u64(channel.key.0.into()));
        let done = match (channel.interest == Interest::default(), flags.is_empty()) {
            (true, _) => epoll::add(sockets, socket, data, flags),
            // Without it even what is always looked for is not.
            (false, true) => epoll::delete(sockets, socket),
            (false, false) if flags == C::events(channel.interest) => Ok(()),
            (false, false) => epoll::modify(sockets, socket, data, flags),
        };
        match done {
            Ok(()) => channel.interest = wanted,
            Err(errno) => channel.socket.lost(failed("wait", errno)),
        }
    }

    /// Whether somebody sleeps until there is something, or is about to.
    pub(super) fn is_waited_for(&self) -> bool {
        self.is_armed || self.is_idle_armed
    }

    /// The places of channels whose sockets have something, and how many these are.
    pub(super) fn ready(&self) -> ([u32; EVENTS], usize) {
        let nothing = Event { flags: EventFlags::empty(), data: EventData::new_u64(KICK) };
        let mut events = [nothing; EVENTS];
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = epoll::wait(&self.sockets, &mut events[..], Some(&zero)).unwrap_or_default();
        let (mut places, mut found) = ([0; EVENTS], 0);
        for place in events[..count].iter().map(|event| { event.data }.u64()).filter(|place| *place != KICK) {
            places[found] = place as u32;
            found += 1;
        }
        (places, found)
    }

    /// If `is_ready`, something is that came from no socket: who sleeps is to look.
    pub(super) fn note(&mut self, is_ready: bool) {
        if is_ready && self.is_armed {
            self.kick();
        }
    }

    /// Who sleeps is to look, and who serves the peers meanwhile.
    pub(super) fn kick(&mut self) {
        if !self.is_kicked {
            self.is_kicked = rustix::io::write(&self.kick, &1u64.to_ne_bytes()).is_ok();
        }
    }

    /// What was noted is looked at.
    pub(super) fn looked(&mut self) {
        if std::mem::take(&mut self.is_kicked) {
            let _ = rustix::io::read(&self.kick, &mut [0; 8]);
        }
    }

    pub(super) fn arm(&mut self, is_ready: bool) -> Result<()> {
        self.is_armed = true;
        self.note(is_ready);
        arm(&self.events, &self.sockets)
    }

    pub(super) fn drain(&mut self) -> Result<()> {
        self.is_armed = false;
        drain(&self.events)
    }

    pub(super) fn arm_idle(&mut self) -> Result<()> {
        self.is_idle_armed = true;
        arm(&self.idle, &self.sockets)
    }

    pub(super) fn drain_idle(&mut self) -> Result<()> {
        self.is_idle_armed = false;
        drain(&self.idle)
    }

    pub(super) fn descriptor(&self) -> Result<OwnedFd> {
        another(&self.events)
    }

    pub(super) fn idle_descriptor(&self) -> Result<OwnedFd> {
        another(&self.idle)
    }
}

/// Has `outer` become readable, once, when something is in `sockets`.
fn arm(outer: &OwnedFd, sockets: &OwnedFd) -> Result<()> {
    let armed = epoll::modify(outer, sockets, EventData::new_u64(0), EventFlags::IN | EventFlags::ONESHOT);
    armed.map_err(|errno| failed("arm", errno))
}

fn drain(outer: &OwnedFd) -> Result<()> {
    let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 1];
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    epoll::wait(outer, &mut events[..], Some(&zero)).map(drop).map_err(|errno| failed("read events", errno))
}

fn another(descriptor: &OwnedFd) -> Result<OwnedFd> {
    descriptor
        .try_clone()
        .map_err(|error| Error::new(ErrorKind::ResourceExhausted, "duplicate a descriptor").with_source(error))
}
