//! Pages to read once: threads, the order of destruction, what `unsafe` asks.

#[doc = include_str!("threading.md")]
pub mod threading {}

#[doc = include_str!("destruction.md")]
pub mod destruction {}

#[doc = include_str!("safety.md")]
pub mod safety {}
