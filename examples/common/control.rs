//! Typed messages between the two ends, by serde.

use bincode::config::standard;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zcmi::Connection;

use super::{Failure, Result};

/// Sends `value` as one message.
pub(crate) async fn tell<T: Serialize>(connection: &Connection, value: &T) -> Result<()> {
    let bytes = bincode::serde::encode_to_vec(value, standard())
        .map_err(|error| Failure::Other(format!("a message cannot be encoded: {error}")))?;
    Ok(connection.send(&bytes).await?)
}

/// Receives a message that `tell` sent.
pub(crate) async fn hear<T: DeserializeOwned>(connection: &Connection) -> Result<T> {
    let message = connection.recv().await?;
    match bincode::serde::decode_from_slice(&message, standard()) {
        Ok((value, length)) if length == message.len() => Ok(value),
        _ => Err(Failure::Other(format!("{} sent something else than this example expects", connection.peer()))),
    }
}
