//! The protocol's rules, without clocks, sockets or threads: bytes and events in, decisions out.

mod credit;
mod frame;
mod grant_id;
mod handshake;
mod offer;
mod record;
mod revocation;
#[cfg(all(test, not(loom)))]
pub(crate) mod vectors;
mod window;

#[cfg(all(any(test, feature = "internals"), not(loom)))]
pub(crate) use credit::MOST_CREDITS;
pub(crate) use credit::{CONTROL_RECEIVES, Credits};
pub(crate) use frame::{Frame, FrameKind, HEADER, LEAST_FRAME};
pub(crate) use grant_id::{GrantId, GrantSlots, MOST_GRANTS, Scope};
pub(crate) use handshake::{HEARTBEAT, Handshake, REPLY_PRIVATE, REQUEST_PRIVATE, Refusal, SHARES_PAGES};
pub(crate) use offer::Offer;
pub(crate) use record::{
    HANDED, Handed, OFFER, RECORD, RETURNED, Record, SEGMENT, SegmentPlace, TAKEN, returned_tokens, taken_bytes,
    taken_grants,
};
pub(crate) use revocation::{CONTROL_PAYLOAD, Held, Revoking, named};
#[cfg(all(test, not(loom)))]
pub(crate) use vectors::vector;
pub(crate) use window::{ReceiveWindow, SendWindow, cost};
