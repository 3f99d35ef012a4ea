//! Pages that are shared with a trusted peer: messages that are handed over in them, and memory that the peer's own processor accesses.

#[path = "../common/mod.rs"]
mod common;
mod direct;
mod endings;
mod handing;
mod player;
