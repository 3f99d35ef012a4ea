//! Typed messages between the two ends, by serde.

use bincode::config::standard;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zcmi::Connection;

use super::{Failure, Result};

/// Sends `value` as one message.
pub(crate) async fn tell<T: Serialize>(connection: &Connection, value: &T) -> Result<()> {
    Ok(connection.send(&encode(value)?).await?)
}

/// Receives a message that `tell` sent.
pub(crate) async fn hear<T: DeserializeOwned>(connection: &Connection) -> Result<T> {
    decode(&connection.recv().await?)
}

/// The bytes of `value`.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    bincode::serde::encode_to_vec(value, standard())
        .map_err(|error| Failure::Other(format!("a message cannot be encoded: {error}")))
}

/// The value whose bytes `encode` made.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match bincode::serde::decode_from_slice(bytes, standard()) {
        Ok((value, length)) if length == bytes.len() => Ok(value),
        _ => Err(Failure::Other("the other end sent something that this example does not expect".to_owned())),
    }
}
