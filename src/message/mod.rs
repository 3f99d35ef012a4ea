//! Values in messages, and calls: what is built on channels.

#[cfg(feature = "verbs")]
mod alarm;
#[cfg(feature = "verbs")]
mod application_error;
#[cfg(feature = "bincode")]
mod bincode;
#[cfg(feature = "verbs")]
mod call;
mod call_frame;
#[cfg(feature = "verbs")]
mod calls;
mod codec;
#[cfg(feature = "verbs")]
mod growing;
#[cfg(feature = "bincode")]
mod guarded;
#[cfg(feature = "verbs")]
mod handling;
#[cfg(feature = "verbs")]
mod pump;
#[cfg(feature = "verbs")]
mod serve;
#[cfg(feature = "verbs")]
mod taken;
#[cfg(feature = "verbs")]
mod typed;

#[cfg(feature = "bincode")]
pub use self::bincode::Bincode;
#[cfg(feature = "verbs")]
pub use application_error::ApplicationError;
#[cfg(feature = "verbs")]
pub use call::{CallOptions, Client};
#[cfg(all(any(test, feature = "internals"), feature = "bincode", not(loom)))]
pub(crate) use codec::decode;
pub use codec::{Codec, CodecError};
#[cfg(feature = "verbs")]
pub(crate) use growing::Growing;
#[cfg(feature = "verbs")]
pub(crate) use pump::Pump;
#[cfg(all(feature = "bincode", feature = "verbs"))]
pub use serve::serve;
#[cfg(feature = "verbs")]
pub use serve::serve_with;
