//! The protocol's rules, without clocks, sockets or threads: bytes and events in, decisions out.

mod credit;
mod frame;
mod handshake;

pub(crate) use credit::{CONTROL_RECEIVES, Credits};
pub(crate) use frame::{Frame, FrameKind, HEADER};
pub(crate) use handshake::{Handshake, Refusal};
