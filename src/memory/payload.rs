//! What operations take: memory by value, which comes back when the device is done with it.

#![allow(private_interfaces, reason = "the trait is sealed: nobody outside calls its methods")]

use std::fmt;

use super::registered::RegisteredCore;
use super::{Buffer, Domain, Registered, Segment};
use crate::{Error, ErrorKind, Result};

/// What [`Connection::write`](crate::Connection::write) can send: a [`Buffer`], a [`Registered`], or a list of such, which
/// is gathered in order.
///
/// An operation owns it until the device is done with it, and then gives it back.
pub trait Source: sealed::Payload {}

/// What [`Connection::read`](crate::Connection::read) can fill: a [`Buffer`], a [`Registered`], or a list of such, over which
/// the bytes are scattered in order.
pub trait Destination: sealed::Payload {}

pub(crate) use sealed::Payload;

mod sealed {
    use super::{Domain, Held, Result, Segment, fmt};

    /// Memory that can be in an operation.
    pub trait Payload: fmt::Debug + Send + Sized + 'static {
        /// Bytes.
        fn length(&self) -> usize;
        /// Makes it usable in `domain`, and appends its pieces.
        fn prepare(&mut self, domain: &dyn Domain, pieces: &mut dyn FnMut(Segment)) -> Result<()>;
        /// Its form in an operation.
        fn hold(self) -> Held;
        /// The same again.
        fn release(held: Held) -> Option<Self>;
    }
}

/// Memory in an operation, whatever it was before.
#[derive(Debug)]
pub(crate) enum Held {
    Buffer(Buffer),
    List(Vec<Held>),
    Registered(Box<RegisteredCore>),
}

impl Source for Buffer {}
impl Destination for Buffer {}

impl Payload for Buffer {
    fn length(&self) -> usize {
        self.len()
    }

    fn prepare(&mut self, domain: &dyn Domain, pieces: &mut dyn FnMut(Segment)) -> Result<()> {
        let local_key = self.bind(domain)?;
        pieces(segment(self.address(), self.len(), local_key)?);
        Ok(())
    }

    fn hold(self) -> Held {
        Held::Buffer(self)
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

impl<T: Send + 'static> Payload for Registered<T> {
    fn length(&self) -> usize {
        self.len()
    }

    fn prepare(&mut self, domain: &dyn Domain, pieces: &mut dyn FnMut(Segment)) -> Result<()> {
        let core = self.core();
        pieces(segment(core.address(), core.length(), core.local_key(domain)?)?);
        Ok(())
    }

    fn hold(self) -> Held {
        Held::Registered(self.into_core())
    }

    fn release(held: Held) -> Option<Self> {
        match held {
            Held::Registered(core) => Self::from_core(core),
            _ => None,
        }
    }
}

impl<P: Source> Source for Vec<P> {}
impl<P: Destination> Destination for Vec<P> {}

impl<P: Payload> Payload for Vec<P> {
    fn length(&self) -> usize {
        self.iter().map(Payload::length).fold(0, usize::saturating_add)
    }

    fn prepare(&mut self, domain: &dyn Domain, pieces: &mut dyn FnMut(Segment)) -> Result<()> {
        self.iter_mut().try_for_each(|each| each.prepare(domain, pieces))
    }

    fn hold(self) -> Held {
        Held::List(self.into_iter().map(Payload::hold).collect())
    }

    fn release(held: Held) -> Option<Self> {
        match held {
            Held::List(list) => list.into_iter().map(P::release).collect(),
            _ => None,
        }
    }
}

pub(super) fn segment(address: *const u8, length: usize, local_key: u32) -> Result<Segment> {
    let too_long = |_| {
        Error::new(ErrorKind::TooLong, "prepare")
            .with_detail(format!("a piece of {length} bytes; at most {}", u32::MAX))
    };
    Ok(Segment { address: address.addr() as u64, length: u32::try_from(length).map_err(too_long)?, local_key })
}
