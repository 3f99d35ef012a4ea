//! Values in messages, and calls: what is built on channels.

#[cfg(not(loom))]
mod alarm;
#[cfg(not(loom))]
mod application_error;
#[cfg(feature = "bincode")]
mod bincode;
#[cfg(not(loom))]
mod call;
mod call_frame;
#[cfg(not(loom))]
mod calls;
mod codec;
#[cfg(not(loom))]
mod growing;
#[cfg(feature = "bincode")]
mod guarded;
#[cfg(not(loom))]
mod handling;
#[cfg(not(loom))]
mod pump;
#[cfg(not(loom))]
mod serve;
#[cfg(not(loom))]
mod taken;
#[cfg(not(loom))]
mod typed;

#[cfg(feature = "bincode")]
pub use self::bincode::Bincode;
#[cfg(not(loom))]
pub use application_error::ApplicationError;
#[cfg(not(loom))]
pub use call::{CallOptions, Client};
#[cfg(all(any(test, feature = "internals"), feature = "bincode", not(loom)))]
pub(crate) use codec::decode;
pub use codec::{Codec, CodecError};
#[cfg(not(loom))]
pub(crate) use growing::Growing;
#[cfg(not(loom))]
pub(crate) use pump::Pump;
#[cfg(all(feature = "bincode", not(loom)))]
pub use serve::serve;
#[cfg(not(loom))]
pub use serve::serve_with;
