//! Values instead of bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "bincode")]
use super::Bincode;
use super::Codec;
use super::codec::decode;
use super::growing::Growing;
use crate::{Buffer, Channel, Connection, Result};

impl Channel {
    /// Sends a value as a message, encoded by [`Bincode`]. It is written to registered memory at once, so that a long
    /// one is not copied again. A [`RemoteBuffer`](crate::RemoteBuffer) can be anywhere in it.
    ///
    /// ```no_run
    /// use serde::{Deserialize, Serialize};
    /// use zcmi::{Channel, RemoteBuffer};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Shard {
    ///     name: String,
    ///     rows: Vec<RemoteBuffer>,
    /// }
    ///
    /// # async fn example(near: Channel, far: Channel, rows: Vec<RemoteBuffer>) -> zcmi::Result<()> {
    /// near.send_value(&Shard { name: "users".to_owned(), rows }).await?;
    /// let shard: Shard = far.recv_value().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Encode`](crate::ErrorKind::Encode): nothing was sent.
    #[cfg(feature = "bincode")]
    pub async fn send_value<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        self.send_value_with(&Bincode::default(), value).await
    }

    /// As [`send_value`](Self::send_value), with a codec of one's own.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Encode`](crate::ErrorKind::Encode): nothing was sent.
    pub async fn send_value_with<T: Serialize + ?Sized>(&self, codec: &impl Codec, value: &T) -> Result<()> {
        let encoded = encode(codec, value).map_err(|error| self.connection().refine(error))?;
        self.send_owned(encoded).await?;
        Ok(())
    }

    /// The value in the next message, decoded by [`Bincode`]. Dropping the future loses none.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Decode`](crate::ErrorKind::Decode) if the message is no such value: then it is
    /// gone, and the connection lives on.
    #[cfg(feature = "bincode")]
    pub async fn recv_value<T: DeserializeOwned>(&self) -> Result<T> {
        self.recv_value_with(&Bincode::default()).await
    }

    /// As [`recv_value`](Self::recv_value), with a codec of one's own.
    ///
    /// # Errors
    /// As [`recv_value`](Self::recv_value).
    pub async fn recv_value_with<T: DeserializeOwned>(&self, codec: &impl Codec) -> Result<T> {
        let message = self.recv().await?;
        decode(codec, &message, "receive").map_err(|error| self.connection().refine(error))
    }
}

impl Connection {
    /// Sends a value as a message; see [`Channel::send_value`].
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Encode`](crate::ErrorKind::Encode): nothing was sent.
    #[cfg(feature = "bincode")]
    pub async fn send_value<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        self.send_value_with(&Bincode::default(), value).await
    }

    /// As [`send_value`](Self::send_value), with a codec of one's own.
    ///
    /// # Errors
    /// As [`send_value`](Self::send_value).
    pub async fn send_value_with<T: Serialize + ?Sized>(&self, codec: &impl Codec, value: &T) -> Result<()> {
        let encoded = encode(codec, value).map_err(|error| self.refine(error))?;
        self.send(&encoded).await
    }

    /// The value in the next message; see [`Channel::recv_value`].
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Decode`](crate::ErrorKind::Decode) if the message is no such value: then it is
    /// gone, and the connection lives on.
    #[cfg(feature = "bincode")]
    pub async fn recv_value<T: DeserializeOwned>(&self) -> Result<T> {
        self.recv_value_with(&Bincode::default()).await
    }

    /// As [`recv_value`](Self::recv_value), with a codec of one's own.
    ///
    /// # Errors
    /// As [`recv_value`](Self::recv_value).
    pub async fn recv_value_with<T: DeserializeOwned>(&self, codec: &impl Codec) -> Result<T> {
        let message = self.recv().await?;
        decode(codec, &message, "receive").map_err(|error| self.refine(error))
    }
}

fn encode<T: Serialize + ?Sized>(codec: &impl Codec, value: &T) -> Result<Buffer> {
    let mut growing = Growing::default();
    growing.append_value(codec, value, "send")?;
    Ok(growing.into_buffer())
}
