//! Codecs: how values become bytes.

use std::error::Error as StdError;
use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// Why a codec failed: any error will do.
pub type CodecError = Box<dyn StdError + Send + Sync>;

/// Longest encoding that is decoded if a codec sets no other limit: 64 MiB.
const LIMIT: usize = 64 << 20;

/// How values become bytes and bytes values. The default is [`Bincode`](crate::Bincode); others are made like this:
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use zcmi::{Codec, CodecError};
///
/// struct Json;
///
/// impl Codec for Json {
///     fn encode<T: Serialize + ?Sized>(&self, value: &T, out: impl std::io::Write) -> Result<(), CodecError> {
///         Ok(serde_json::to_writer(out, value)?)
///     }
///
///     fn decode<'de, T: Deserialize<'de>>(&self, bytes: &'de [u8]) -> Result<T, CodecError> {
///         Ok(serde_json::from_slice(bytes)?)
///     }
/// }
///
/// let mut bytes = Vec::new();
/// Json.encode("hello", &mut bytes)?;
/// assert_eq!(bytes, b"\"hello\"");
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec: Send + Sync {
    /// Writes the encoding of `value` to `out`.
    ///
    /// # Errors
    /// The codec's, or that of `out`.
    fn encode<T: Serialize + ?Sized>(&self, value: &T, out: impl Write) -> std::result::Result<(), CodecError>;

    /// Reads the value that all of `bytes` are. They come from a peer, who may be hostile: what they claim to be
    /// decides neither how much is allocated nor how long it takes, only how long they are.
    ///
    /// # Errors
    /// If they are no such value, or if something is left.
    fn decode<'de, T: Deserialize<'de>>(&self, bytes: &'de [u8]) -> std::result::Result<T, CodecError>;

    /// Longest encoding that is decoded, in bytes. Longer ones are refused unseen. 64 MiB if it is not overridden.
    fn limit(&self) -> usize {
        LIMIT
    }
}

/// Decodes what a peer has sent.
pub(crate) fn decode<'de, T: Deserialize<'de>>(
    codec: &impl Codec,
    bytes: &'de [u8],
    operation: &'static str,
) -> Result<T> {
    let undecodable = || Error::new(ErrorKind::Decode, operation);
    if bytes.len() > codec.limit() {
        let detail = format!("{} bytes; the codec's limit is {}", bytes.len(), codec.limit());
        return Err(undecodable().with_detail(detail));
    }
    codec.decode(bytes).map_err(|reason| undecodable().with_source(reason))
}
