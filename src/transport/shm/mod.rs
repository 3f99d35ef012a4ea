//! Shared memory between processes of one host, in mode `isolated`: frames through a pair of rings, each in memory that one side
//! writes and the other can only read.
//!
//! The ends find each other over a unix socket, which carries nothing afterwards but doorbells for who sleeps, and whose end is the
//! end of the peer's process.

#[cfg(not(loom))]
mod address;
#[cfg(not(loom))]
mod carrier;
#[cfg(not(loom))]
mod courier;
#[cfg(not(loom))]
mod credentials;
#[cfg(not(loom))]
mod door;
#[cfg(all(any(test, feature = "internals"), not(loom)))]
pub(crate) mod fuzzed;
#[cfg(all(any(test, feature = "internals"), not(loom)))]
pub(crate) mod fuzzed_set_up;
#[cfg(not(loom))]
mod pages;
#[cfg(not(loom))]
mod rights;
mod ring;
#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(not(loom))]
pub(crate) use self::{address::ShmAddress, carrier::ShmCarrier};

/// Connections through shared memory.
#[cfg(not(loom))]
pub(crate) type Shm = super::framed::Framed<ShmCarrier>;
