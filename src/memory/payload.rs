//! What operations take: memory by value, which comes back when the device is done with it.

#![allow(private_interfaces, reason = "the trait is sealed: nobody outside calls its methods")]

use std::fmt;

use bytes::Bytes;

use super::registered::RegisteredCore;
use super::registration_cache::Lease;
use super::{Buffer, Place, RegionAccess, Registered, Segment, SharedBuffer, SharedMemory};
use crate::{Error, ErrorKind, Failed, Result};

/// What [`Connection::write`](crate::Connection::write) can send: a [`Buffer`], a [`SharedBuffer`], a [`Registered`],
/// [`SharedMemory`], [`Bytes`], or a list of such, which is gathered in order.
///
/// `SharedMemory` and `Bytes` go through the registration cache: what was sent before, or a part of it, is not registered
/// again.
///
/// An operation owns it until the device is done with it, and then gives it back.
pub trait Source: sealed::Payload {}

/// What [`Connection::read`](crate::Connection::read) can fill: a [`Buffer`], a [`Registered`], or a list of such, over which
/// the bytes are scattered in order.
pub trait Destination: sealed::Fill {}

pub(crate) use sealed::{Fill, Payload};

mod sealed {
    use super::{Failed, Held, Place, Segment, fmt};

    /// Memory that can be in an operation.
    pub trait Payload: fmt::Debug + Send + Sized + 'static {
        /// Bytes.
        fn length(&self) -> usize;
        /// Makes it usable in `place`, appends its pieces and answers its form in an operation; gives it back if that fails.
        fn hold(self, place: Place<'_>, pieces: &mut dyn FnMut(Segment)) -> std::result::Result<Held, Failed<Self>>;
        /// The same again.
        fn release(held: Held) -> Option<Self>;
    }

    /// Memory that can be written.
    pub trait Fill: Payload {
        /// Copies as much of `bytes` as fits to its beginning; answers how much that is.
        fn fill(&mut self, bytes: &[u8]) -> usize;
    }
}

/// Memory in an operation, whatever it was before.
#[derive(Debug)]
pub(crate) enum Held {
    Buffer(Buffer),
    Bytes(Bytes, #[expect(dead_code, reason = "it keeps the registration")] Lease),
    Frozen(SharedBuffer),
    List(Vec<Held>),
    Registered(Box<RegisteredCore>),
    Shared(SharedMemory, #[expect(dead_code, reason = "it keeps the registration")] Lease),
}

#[cfg(not(loom))]
impl Held {
    /// Whether a device may write it.
    pub(crate) fn is_writable(&self) -> bool {
        match self {
            Self::Buffer(_) | Self::Registered(_) => true,
            Self::Bytes(..) | Self::Frozen(_) | Self::Shared(..) => false,
            Self::List(list) => list.iter().all(Self::is_writable),
        }
    }
}

impl Source for Buffer {}
impl Destination for Buffer {}

impl Fill for Buffer {
    fn fill(&mut self, bytes: &[u8]) -> usize {
        fill(self, bytes)
    }
}

impl Payload for Buffer {
    fn length(&self) -> usize {
        self.len()
    }

    fn hold(mut self, place: Place<'_>, pieces: &mut dyn FnMut(Segment)) -> std::result::Result<Held, Failed<Self>> {
        let bound = place.make_room(|domain| self.bind(domain));
        let piece = bound.and_then(|local_key| segment(self.address(), self.len(), local_key));
        one_piece(self, piece, pieces, Held::Buffer)
    }

    fn release(held: Held) -> Option<Self> {
        match held {
            Held::Buffer(buffer) => Some(buffer),
            _ => None,
        }
    }
}

impl<T: Send + 'static> Source for Registered<T> {}
impl<T: Send + 'static> Destination for Registered<T> {}

impl<T: Send + 'static> Fill for Registered<T> {
    fn fill(&mut self, bytes: &[u8]) -> usize {
        fill(self, bytes)
    }
}

impl<T: Send + 'static> Payload for Registered<T> {
    fn length(&self) -> usize {
        self.len()
    }

    fn hold(self, place: Place<'_>, pieces: &mut dyn FnMut(Segment)) -> std::result::Result<Held, Failed<Self>> {
        let core = self.core();
        let bound = place.make_room(|domain| core.local_key(domain));
        let piece = bound.and_then(|local_key| segment(core.address(), core.length(), local_key));
        one_piece(self, piece, pieces, |registered| Held::Registered(registered.into_core()))
    }

    fn release(held: Held) -> Option<Self> {
        match held {
            Held::Registered(core) => Self::from_core(core),
            _ => None,
        }
    }
}

impl Source for SharedBuffer {}

impl Payload for SharedBuffer {
    fn length(&self) -> usize {
        self.len()
    }

    fn hold(self, place: Place<'_>, pieces: &mut dyn FnMut(Segment)) -> std::result::Result<Held, Failed<Self>> {
        let bound = place.make_room(|domain| self.bind(domain));
        let piece = bound.and_then(|local_key| segment(self.address(), self.len(), local_key));
        one_piece(self, piece, pieces, Held::Frozen)
    }

    fn release(held: Held) -> Option<Self> {
        match held {
            Held::Frozen(buffer) => Some(buffer),
            _ => None,
        }
    }
}

impl Source for SharedMemory {}

impl Payload for SharedMemory {
    fn length(&self) -> usize {
        self.len()
    }

    fn hold(self, place: Place<'_>, pieces: &mut dyn FnMut(Segment)) -> std::result::Result<Held, Failed<Self>> {
        match leased(&self, place) {
            Ok((piece, lease)) => {
                pieces(piece);
                Ok(Held::Shared(self, lease))
            }
            Err(error) => Err(Failed { error, buffer: Some(self) }),
        }
    }

    fn release(held: Held) -> Option<Self> {
        match held {
            Held::Shared(memory, _) => Some(memory),
            _ => None,
        }
    }
}

impl Source for Bytes {}

impl Payload for Bytes {
    fn length(&self) -> usize {
        self.len()
    }

    fn hold(self, place: Place<'_>, pieces: &mut dyn FnMut(Segment)) -> std::result::Result<Held, Failed<Self>> {
        let memory = SharedMemory::from(self);
        match leased(&memory, place) {
            Ok((piece, lease)) => {
                pieces(piece);
                Ok(Held::Bytes(memory.into(), lease))
            }
            Err(error) => Err(Failed { error, buffer: Some(memory.into()) }),
        }
    }

    fn release(held: Held) -> Option<Self> {
        match held {
            Held::Bytes(bytes, _) => Some(bytes),
            _ => None,
        }
    }
}

/// Memory that is one piece, or the reason why not and the memory.
fn one_piece<P: Payload>(
    payload: P,
    piece: Result<Segment>,
    pieces: &mut dyn FnMut(Segment),
    hold: impl FnOnce(P) -> Held,
) -> std::result::Result<Held, Failed<P>> {
    match piece {
        Ok(piece) => {
            pieces(piece);
            Ok(hold(payload))
        }
        Err(error) => Err(Failed { error, buffer: Some(payload) }),
    }
}

/// The piece that is all of `memory`, and what keeps it registered.
fn leased(memory: &SharedMemory, place: Place<'_>) -> Result<(Segment, Lease)> {
    let lease = place.make_room(|domain| place.cache.get(memory, 0..memory.len(), domain, RegionAccess::LocalRead))?;
    Ok((segment(memory.as_ptr(), memory.len(), lease.local_key())?, lease))
}

impl<P: Source> Source for Vec<P> {}
impl<P: Destination> Destination for Vec<P> {}

impl<P: Destination> Fill for Vec<P> {
    fn fill(&mut self, bytes: &[u8]) -> usize {
        self.iter_mut().fold(0, |at, part| at + part.fill(&bytes[at..]))
    }
}

impl<P: Payload> Payload for Vec<P> {
    fn length(&self) -> usize {
        self.iter().map(Payload::length).fold(0, usize::saturating_add)
    }

    fn hold(self, place: Place<'_>, pieces: &mut dyn FnMut(Segment)) -> std::result::Result<Held, Failed<Self>> {
        let mut held = Vec::with_capacity(self.len());
        let mut rest = self.into_iter();
        while let Some(each) = rest.next() {
            match each.hold(place, pieces) {
                Ok(each) => held.push(each),
                Err(Failed { error, buffer }) => {
                    let before = held.into_iter().filter_map(P::release);
                    return Err(Failed { error, buffer: Some(before.chain(buffer).chain(rest).collect()) });
                }
            }
        }
        Ok(Held::List(held))
    }

    fn release(held: Held) -> Option<Self> {
        match held {
            Held::List(list) => list.into_iter().map(P::release).collect(),
            _ => None,
        }
    }
}

fn fill(memory: &mut [u8], bytes: &[u8]) -> usize {
    let length = bytes.len().min(memory.len());
    memory[..length].copy_from_slice(&bytes[..length]);
    length
}

pub(super) fn segment(address: *const u8, length: usize, local_key: u32) -> Result<Segment> {
    let too_long = |_| {
        Error::new(ErrorKind::TooLong, "prepare")
            .with_detail(format!("a piece of {length} bytes; at most {}", u32::MAX))
    };
    Ok(Segment {
        address: address.expose_provenance() as u64,
        length: u32::try_from(length).map_err(too_long)?,
        local_key,
    })
}
