//! A pair of rings as a carrier.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketAddrAny};

use super::address::ShmAddress;
use super::courier::ShmCourier;
use super::credentials::Credentials;
use super::door::{self, SocketFile};
use super::pages::{Ours, Theirs};
use super::rights;
use super::ring::{Nonsense, Rings};
use crate::memory::{Registrable, volatile};
use crate::transport::framed::{Carrier, Halt, Interest, Socket, ended, failed};
use crate::transport::{Courier, Kind};
use crate::{Error, ErrorKind, Result, failpoint};

/// Bytes of the ring that we send through.
const CAPACITY: usize = 256 << 10;
/// Bytes that are copied at once between a ring and memory that others may access.
const CHUNK: usize = 4096;
/// Bytes after which the peer is shown how far a copy is, so that both copy at once.
const STEP: usize = 32 << 10;
/// If so much of a ring has come, its sender may be waiting for room.
const MUCH: usize = CAPACITY / 4;
/// Doorbells that are taken off the socket at once.
const BELLS: usize = 64;

pub(crate) struct ShmCarrier {
    socket: Arc<Socket>,
    /// Until the peer's are there.
    ours: Option<Ours>,
    pub(super) rings: Option<Rings<Ours, Theirs>>,
    /// Whether the peer's end of the socket is gone: what it has sent is in the ring.
    is_ended: bool,
    /// Bytes that were taken without a look at whether the peer waits for their room.
    unrung: usize,
    /// What it has rung, if it makes no sense.
    nonsense: Option<Nonsense>,
    /// Where both ends share pages.
    courier: Option<Arc<ShmCourier>>,
}

impl Carrier for ShmCarrier {
    const KIND: Kind = Kind::Shm;
    const IS_FREE_TO_LOOK: bool = true;
    const FEW: usize = 4;
    const DRY_POLLS: u32 = 32;

    type Address = ShmAddress;
    type Door = Option<SocketFile>;
    type Gift = Theirs;

    fn listen(address: &ShmAddress, backlog: u16) -> Result<(OwnedFd, ShmAddress, Option<SocketFile>)> {
        let address = address.chosen();
        let (socket, file) = door::listen(&address, backlog)?;
        Ok((socket, address, file))
    }

    async fn connect(address: &ShmAddress, deadline: Instant) -> Result<OwnedFd> {
        door::connect(address, deadline).await
    }

    fn admit(socket: &OwnedFd) -> Result<()> {
        // A byte out of band is a bell as any other: else it would make the socket readable, and not be found there.
        let made = rustix::net::sockopt::set_socket_oobinline(socket, true);
        made.map_err(|errno| failed("set up", errno))?;
        Credentials::check(socket)
    }

    fn peer(socket: &OwnedFd, _from: Option<SocketAddrAny>) -> String {
        match Credentials::of_peer(socket) {
            Ok(Credentials { process, .. }) if process > 0 => format!("process {process}"),
            _ => "a process of another namespace".to_owned(),
        }
    }

    fn new(socket: &Arc<Socket>) -> Result<(Self, Option<OwnedFd>)> {
        let failed = |error| Error::new(ErrorKind::ResourceExhausted, "make a ring").with_source(error);
        let (ours, file) = Ours::new(CAPACITY).map_err(failed)?;
        let socket = Arc::clone(socket);
        let this =
            Self { socket, ours: Some(ours), rings: None, is_ended: false, unrung: 0, nonsense: None, courier: None };
        Ok((this, Some(file)))
    }

    fn unwrap(gifts: Vec<OwnedFd>) -> std::result::Result<Theirs, String> {
        match &gifts[..] {
            [file] => Theirs::new(file),
            others => Err(format!("it has given {} descriptors, not one", others.len())),
        }
    }

    fn attach(&mut self, theirs: Theirs) {
        // An older kernel does not know it, and throws them away.
        let _ = rights::take(&self.socket, false);
        failpoint::reach("ring.unattached");
        self.rings = self.ours.take().map(|ours| Rings::new(ours, theirs));
    }

    fn courier(&mut self) -> Option<Arc<dyn Courier>> {
        let socket = &self.socket;
        let courier = self.courier.get_or_insert_with(|| {
            // An older kernel takes them anyway.
            let _ = rights::take(socket, true);
            ShmCourier::new(socket)
        });
        Some(Arc::clone(courier) as Arc<dyn Courier>)
    }

    fn read(&mut self, bytes: &mut [u8]) -> std::result::Result<usize, Halt> {
        let rings = self.rings_to_read()?;
        let mut done = 0;
        for step in bytes.chunks_mut(STEP) {
            let read = rings.receive(step)?;
            done += read;
            if read < step.len() {
                break;
            }
        }
        self.has_read(done)
    }

    fn read_to(&mut self, memory: &dyn Registrable, offset: usize, length: usize) -> std::result::Result<usize, Halt> {
        let rings = self.rings_to_read()?;
        let (mut chunk, mut done) = ([0; CHUNK], 0);
        while done < length {
            let wanted = CHUNK.min(length - done);
            let read = rings.receive(&mut chunk[..wanted])?;
            volatile::in_turn(memory, true, || volatile::store(memory, offset + done, &chunk[..read]));
            done += read;
            if read < wanted {
                break;
            }
        }
        self.has_read(done)
    }

    fn write(&mut self, slices: &[IoSlice<'_>], _goes_on: bool) -> std::result::Result<usize, Halt> {
        let rings = self.rings_to_write()?;
        let mut done = 0;
        'all: for slice in slices {
            for step in slice.chunks(STEP) {
                let taken = rings.put(step)?;
                done += taken;
                if taken < step.len() {
                    break 'all;
                }
                if step.len() == STEP {
                    rings.publish();
                }
            }
        }
        self.has_written(done)
    }

    fn write_from(
        &mut self,
        memory: &dyn Registrable,
        offset: usize,
        length: usize,
    ) -> std::result::Result<usize, Halt> {
        let rings = self.rings_to_write()?;
        let (mut chunk, mut done) = ([0; CHUNK], 0);
        while done < length {
            let wanted = CHUNK.min(length - done);
            let count = rings.room(wanted)?.min(wanted);
            if count == 0 {
                break;
            }
            volatile::in_turn(memory, false, || volatile::load(memory, offset + done, &mut chunk[..count]));
            done += rings.put(&chunk[..count])?;
            if done.is_multiple_of(STEP) {
                rings.publish();
            }
        }
        self.has_written(done)
    }

    #[inline]
    fn takes_whole(&mut self, length: usize) -> bool {
        !self.is_ended && self.rings.as_mut().is_some_and(|rings| rings.room(length).is_ok_and(|room| room >= length))
    }

    #[inline]
    fn write_whole(&mut self, heads: [&[u8]; 2], slices: &[IoSlice<'_>]) {
        let Some(rings) = &mut self.rings else { return };
        for bytes in heads.into_iter().chain(slices.iter().map(|slice| &**slice)) {
            if !bytes.is_empty() {
                // There is room for all of it.
                let _ = rings.put(bytes);
            }
        }
        rings.publish();
        self.flush();
    }

    #[inline]
    fn peek(&mut self, offset: usize, bytes: &mut [u8]) -> usize {
        // What makes no sense is told to who reads.
        self.rings.as_ref().map_or(0, |rings| rings.peek(offset, bytes).unwrap_or_default())
    }

    #[inline]
    fn skip(&mut self, length: usize) {
        self.rings.iter_mut().for_each(|rings| rings.skip(length));
        self.unrung += length;
        // Who waits for room is not left waiting until the next poll.
        if self.unrung >= MUCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.unrung = 0;
        let Some(rings) = self.rings.as_mut().filter(|_| !self.is_ended) else { return };
        if rings.must_ring() {
            failpoint::reach("ring.unrung");
            match rustix::net::send(&self.socket, &[0], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                // If it takes no more there are enough that it has not heard; if it has ended that is learned by reading.
                Ok(_) | Err(Errno::AGAIN | Errno::PIPE | Errno::CONNRESET) => {}
                Err(_) => rings.was_not_rung(),
            }
        }
    }

    #[inline]
    fn has_something(&mut self) -> bool {
        let Some(rings) = &self.rings else { return false };
        let must_doze_again = || self.courier.as_ref().is_some_and(|courier| courier.is_rung());
        if rings.has_bytes() || self.is_ended || self.nonsense.is_some() || must_doze_again() {
            return true;
        }
        if rings.has_news() {
            self.flush();
        }
        false
    }

    fn doze(&mut self, interest: Interest) -> bool {
        self.flush();
        if self.courier.as_ref().is_some_and(|courier| courier.was_rung()) {
            // What has rung for the last doze is no longer on the socket.
            self.rouse();
        }
        let rings = self.rings.as_mut();
        rings.is_some_and(|rings| rings.doze(interest.reading, interest.writing))
    }

    fn rouse(&mut self) {
        self.rings.iter_mut().for_each(Rings::rouse);
    }

    fn heed(&mut self) {
        self.rouse();
        if let Some(courier) = &self.courier {
            self.is_ended |= courier.hear();
            return;
        }
        // Descriptors that come along are thrown away by the kernel, since there is no room for them.
        match rustix::net::recv(&self.socket, &mut [0; BELLS][..], RecvFlags::DONTWAIT) {
            Ok((_, bells @ 1..)) => {
                let rung = self.rings.as_mut().map_or(Ok(()), |rings| rings.was_rung(bells));
                self.nonsense = rung.err().or(self.nonsense.take());
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => self.is_ended = true,
        }
    }

    fn events(interest: Interest) -> EventFlags {
        // The peer rings for either.
        if interest.reading || interest.writing { EventFlags::IN } else { EventFlags::empty() }
    }

    fn host_answers(&self) -> bool {
        true
    }
}

impl ShmCarrier {
    fn rings_to_read(&mut self) -> std::result::Result<&mut Rings<Ours, Theirs>, Halt> {
        if let Some(nonsense) = self.nonsense.take() {
            return Err(nonsense.into());
        }
        self.rings.as_mut().ok_or(Halt::Later)
    }

    fn rings_to_write(&mut self) -> std::result::Result<&mut Rings<Ours, Theirs>, Halt> {
        if self.is_ended {
            return Err(Halt::Lost(ended()));
        }
        self.rings.as_mut().ok_or(Halt::Later)
    }

    fn has_read(&mut self, read: usize) -> std::result::Result<usize, Halt> {
        if read >= MUCH {
            self.flush();
        }
        match read {
            // The end was learned before the ring was found empty.
            0 if self.is_ended => Err(Halt::Lost(ended())),
            0 => Err(Halt::Later),
            read => Ok(read),
        }
    }

    fn has_written(&mut self, written: usize) -> std::result::Result<usize, Halt> {
        if written == 0 {
            return Err(Halt::Later);
        }
        self.rings.iter_mut().for_each(Rings::publish);
        Ok(written)
    }
}

impl From<Nonsense> for Halt {
    fn from(nonsense: Nonsense) -> Self {
        Self::Protocol(nonsense.to_string())
    }
}
