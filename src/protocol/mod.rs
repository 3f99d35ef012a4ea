//! The protocol's rules, without clocks, sockets or threads: bytes and events in, decisions out.

mod credit;
mod frame;
mod grant_id;
mod handshake;
mod revocation;
#[cfg(all(test, not(loom)))]
mod vectors;

pub(crate) use credit::{CONTROL_RECEIVES, Credits};
pub(crate) use frame::{Frame, FrameKind, HEADER};
pub(crate) use grant_id::{GrantId, GrantSlots, MOST_GRANTS, Scope};
pub(crate) use handshake::{Handshake, Refusal};
pub(crate) use revocation::{CONTROL_PAYLOAD, Held, Revoking};
