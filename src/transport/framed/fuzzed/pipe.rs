//! A carrier in memory, of which a fuzzer has the other end.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::net::SocketAddrAny;

use super::super::carrier::{Carrier, Halt};
use super::super::channel::Interest;
use super::super::socket::{Socket, ended};
use super::take_front;
use crate::memory::{Registrable, volatile};
use crate::sync::lock;
use crate::sync::locks::{Mutex, MutexGuard};
use crate::transport::Kind;
use crate::{Error, ErrorKind, Result};

/// What is between both ends.
#[derive(Default)]
pub(super) struct Wire {
    /// What the peer has sent and nobody has read.
    pub(super) incoming: VecDeque<u8>,
    /// What was written and the peer has not heard.
    pub(super) outgoing: Vec<u8>,
    /// Bytes that are still taken, all in all.
    pub(super) room: usize,
    /// Bytes that one read gives, at most.
    pub(super) most: usize,
    pub(super) is_ended: bool,
}

#[derive(Clone)]
pub(super) struct Pipe(Arc<Mutex<Wire>>);

impl Pipe {
    pub(super) fn of(wire: Wire) -> Self {
        Self(Arc::new(Mutex::new(wire)))
    }

    pub(super) fn wire(&self) -> MutexGuard<'_, Wire> {
        lock(&self.0)
    }

    fn unused() -> Error {
        Error::new(ErrorKind::Unsupported, "fuzz")
    }
}

impl Carrier for Pipe {
    const KIND: Kind = Kind::Sim;
    const IS_FREE_TO_LOOK: bool = true;
    const FEW: usize = 4;
    const DRY_POLLS: u32 = 2;

    type Address = String;
    type Door = ();
    type Gift = ();

    fn listen(_: &String, _: u16) -> Result<(OwnedFd, String, ())> {
        Err(Self::unused())
    }

    async fn connect(_: &String, _: Instant) -> Result<OwnedFd> {
        Err(Self::unused())
    }

    fn admit(_: &OwnedFd) -> Result<()> {
        Ok(())
    }

    fn peer(_: &OwnedFd, _: Option<SocketAddrAny>) -> String {
        String::new()
    }

    fn new(_: &Arc<Socket>) -> Result<(Self, Option<OwnedFd>)> {
        Err(Self::unused())
    }

    fn unwrap(_: Vec<OwnedFd>) -> std::result::Result<(), String> {
        Ok(())
    }

    fn attach(&mut self, (): ()) {}

    fn read(&mut self, bytes: &mut [u8]) -> std::result::Result<usize, Halt> {
        let mut wire = self.wire();
        let count = bytes.len().min(wire.most).min(wire.incoming.len());
        if count == 0 {
            return Err(if wire.is_ended { Halt::Lost(ended()) } else { Halt::Later });
        }
        bytes[..count].copy_from_slice(&take_front(&mut wire.incoming, count));
        Ok(count)
    }

    fn read_to(&mut self, memory: &dyn Registrable, offset: usize, length: usize) -> std::result::Result<usize, Halt> {
        let mut bytes = vec![0; length.min(self.wire().incoming.len().max(1))];
        let read = self.read(&mut bytes)?;
        volatile::in_turn(memory, true, || volatile::store(memory, offset, &bytes[..read]));
        Ok(read)
    }

    fn write(&mut self, slices: &[IoSlice<'_>], _: bool) -> std::result::Result<usize, Halt> {
        let (mut wire, mut done) = (self.wire(), 0);
        for slice in slices {
            let taken = slice.len().min(wire.room);
            wire.outgoing.extend_from_slice(&slice[..taken]);
            wire.room -= taken;
            done += taken;
        }
        match done {
            0 if wire.is_ended => Err(Halt::Lost(ended())),
            0 => Err(Halt::Later),
            done => Ok(done),
        }
    }

    fn write_from(
        &mut self,
        memory: &dyn Registrable,
        offset: usize,
        length: usize,
    ) -> std::result::Result<usize, Halt> {
        let mut bytes = vec![0; length];
        volatile::in_turn(memory, false, || volatile::load(memory, offset, &mut bytes));
        self.write(&[IoSlice::new(&bytes)], false)
    }

    fn peek(&mut self, offset: usize, bytes: &mut [u8]) -> usize {
        let wire = self.wire();
        let there = wire.incoming.iter().skip(offset);
        bytes.iter_mut().zip(there).map(|(to, from)| *to = *from).count()
    }

    fn skip(&mut self, length: usize) {
        self.wire().incoming.drain(..length);
    }

    fn has_something(&mut self) -> bool {
        let wire = self.wire();
        !wire.incoming.is_empty() || wire.is_ended
    }

    fn events(_: Interest) -> EventFlags {
        EventFlags::empty()
    }

    fn host_answers(&self) -> bool {
        true
    }
}
