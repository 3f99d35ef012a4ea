//! A buffer of the pool that grows while it is written.

use std::io;

use serde::Serialize;

use super::codec::Codec;
use crate::{Buffer, Error, ErrorKind, Pool, Result};

/// Bytes that it begins with.
const SMALLEST: usize = 256;

/// What is to be sent, as it is being written: registered memory, so that it goes as it is.
#[derive(Default)]
pub(crate) struct Growing {
    buffer: Buffer,
    length: usize,
    /// What the pool answered, if it had no room.
    failure: Option<Error>,
}

impl Growing {
    /// Bytes that were written.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Bytes that it has room for without moving.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// What was written.
    pub(crate) fn written(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.length]
    }

    /// Forgets what was written and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }

    /// Makes room for `capacity` bytes in all.
    ///
    /// # Errors
    /// The pool's.
    pub(crate) fn reserve(&mut self, capacity: usize) -> Result<()> {
        if capacity > self.capacity() {
            let rounded = capacity.checked_next_power_of_two().unwrap_or(capacity).max(SMALLEST);
            let mut larger = Pool::global().allocate(rounded)?;
            larger[..self.length].copy_from_slice(&self.buffer[..self.length]);
            self.buffer = larger;
        }
        Ok(())
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// The pool's.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let needed = self.length.saturating_add(bytes.len());
        self.reserve(needed)?;
        self.buffer[self.length..needed].copy_from_slice(bytes);
        self.length = needed;
        Ok(())
    }

    /// Appends the encoding of `value`.
    ///
    /// # Errors
    /// [`Encode`](ErrorKind::Encode), and the pool's.
    pub(crate) fn append_value<T: Serialize + ?Sized>(
        &mut self,
        codec: &impl Codec,
        value: &T,
        operation: &'static str,
    ) -> Result<()> {
        let encoded = codec.encode(value, &mut *self);
        match (self.failure.take(), encoded) {
            (Some(failure), _) => Err(failure.within(operation)),
            (None, encoded) => encoded.map_err(|reason| Error::new(ErrorKind::Encode, operation).with_source(reason)),
        }
    }

    /// What was written, to be sent.
    pub(crate) fn into_buffer(self) -> Buffer {
        let mut buffer = self.buffer;
        buffer.truncate(self.length);
        buffer
    }
}

impl io::Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failure = Some(error);
                Err(io::ErrorKind::OutOfMemory.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn it_keeps_what_was_written_while_it_grows() {
        let mut growing = Growing::default();
        let bytes: Vec<u8> = (0..100_000u32).map(|index| (index * 7) as u8).collect();
        for part in bytes.chunks(123) {
            growing.write_all(part).expect("memory");
        }
        assert_eq!((growing.length(), growing.capacity()), (100_000, 1 << 17));
        assert!(*growing.into_buffer() == bytes[..]);
    }

    #[cfg(feature = "bincode")]
    #[test]
    fn what_cannot_be_encoded_says_why() {
        struct Stubborn;
        impl Serialize for Stubborn {
            fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("it does not want to"))
            }
        }
        let error =
            Growing::default().append_value(&crate::Bincode::default(), &Stubborn, "send").expect_err("no bytes");
        assert_eq!(error.kind(), ErrorKind::Encode);
        assert!(error.to_string().contains("it does not want to"), "{error}");
    }
}
