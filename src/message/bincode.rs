//! The default codec.

use std::io::Write;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::serde::BorrowedSerdeDecoder;
use serde::{Deserialize, Serialize};

use super::codec::{Codec, CodecError};
use super::guarded::{Guard, Guarded};

/// Most that any limit allows: the longest message there is. It bounds what is read; memory is bounded by the guard.
const MOST: usize = 1 << 30;

/// bincode 2 in its standard configuration: compact, integers of variable length, nothing that describes itself. Both
/// ends need the same types.
///
/// What a hostile peer sends costs no more memory or time than something honest of its length: a sequence of more
/// elements than the message has bytes (and 1024) is refused before it is begun, and so is a value that is nested more
/// than 128 deep.
///
/// ```
/// use zcmi::{Bincode, Codec};
///
/// let codec = Bincode::default().with_limit(1 << 20);
/// let mut bytes = Vec::new();
/// codec.encode(&("pi", 3.14_f32), &mut bytes)?;
/// assert_eq!(codec.decode::<(String, f32)>(&bytes)?, ("pi".to_owned(), 3.14));
/// assert!(codec.decode::<Vec<u64>>(&bytes).is_err());
/// # Ok::<(), zcmi::CodecError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bincode {
    limit: usize,
}

impl Bincode {
    /// The same with another limit on the length of what is decoded, in bytes: up to 1 GiB.
    #[must_use]
    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit: limit.min(MOST) }
    }
}

impl Default for Bincode {
    /// With a limit of 64 MiB.
    fn default() -> Self {
        Self { limit: 64 << 20 }
    }
}

fn configuration() -> Configuration<LittleEndian, Varint, Limit<MOST>> {
    bincode::config::standard().with_limit::<MOST>()
}

impl Codec for Bincode {
    fn encode<T: Serialize + ?Sized>(&self, value: &T, mut out: impl Write) -> Result<(), CodecError> {
        bincode::serde::encode_into_std_write(value, &mut out, configuration())?;
        Ok(())
    }

    fn decode<'de, T: Deserialize<'de>>(&self, bytes: &'de [u8]) -> Result<T, CodecError> {
        let mut decoder = BorrowedSerdeDecoder::from_slice(bytes, configuration(), ());
        let guard = Guard::new(bytes.len());
        let value = T::deserialize(Guarded::new(decoder.as_deserializer(), &guard))?;
        // Nothing but a byte that is not there is an error now.
        match u8::deserialize(decoder.as_deserializer()) {
            Ok(_) => Err("something is left behind the value".into()),
            Err(_) => Ok(value),
        }
    }

    fn limit(&self) -> usize {
        self.limit
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::HashMap;
    use std::fmt::Debug;

    use super::*;
    use crate::protocol::{GrantId, Scope};
    use crate::{Access, RemoteBuffer};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Nothing,
        Pair(u8, Option<String>),
        Record { name: String, parts: Vec<Shape> },
        Table(HashMap<u16, (char, i64)>),
        Handle(RemoteBuffer),
    }

    fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        Bincode::default().encode(value, &mut bytes).expect("it can be encoded");
        bytes
    }

    fn decoded<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, String> {
        Bincode::default().decode(bytes).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused<T: for<'de> Deserialize<'de> + Debug>(bytes: &[u8], reason: &str) {
        let error = decoded::<T>(bytes).expect_err("hostile");
        assert!(error.contains(reason), "{error}");
    }

    fn handle() -> RemoteBuffer {
        let grant = GrantId { scope: Scope::Connection, slot: 1, generation: 2 };
        RemoteBuffer::new(1 << 40, 4096, 7, Access::READ, 5, grant)
    }

    #[test]
    fn every_kind_of_value_comes_back() {
        let shapes = vec![
            Shape::Nothing,
            Shape::Pair(255, Some("ä".to_owned())),
            Shape::Record { name: String::new(), parts: vec![Shape::Pair(0, None); 3] },
            Shape::Table((0..300).map(|key| (key, ('x', -i64::from(key)))).collect()),
            Shape::Handle(handle()),
        ];
        assert_eq!(decoded::<Vec<Shape>>(&encoded(&shapes)), Ok(shapes));
        // Borrowed from the message.
        assert_eq!(decoded::<(&str, &[u8])>(&encoded(&("text", &b"bytes"[..]))), Ok(("text", &b"bytes"[..])));
        // What takes no bytes is fine in sane numbers.
        assert_eq!(decoded::<Vec<()>>(&encoded(&vec![(); 1000])), Ok(vec![(); 1000]));
        assert_eq!(decoded::<[[(); 30]; 30]>(&encoded(&[[(); 30]; 30])), Ok([[(); 30]; 30]));
    }

    #[test]
    fn a_handle_can_be_a_field_anywhere() {
        type Deep = HashMap<String, Vec<Option<(RemoteBuffer, Shape)>>>;
        let deep: Deep = [("rows".to_owned(), vec![None, Some((handle(), Shape::Handle(handle())))])].into();
        assert_eq!(decoded::<Deep>(&encoded(&deep)), Ok(deep));
        let mut bytes = encoded(&Some(handle()));
        // Its length, and then its version.
        bytes[2] = 99;
        refused::<Option<RemoteBuffer>>(&bytes, "version");
    }

    #[test]
    fn what_claims_more_than_is_there_is_refused_at_once() {
        // A length of 2^40, as bincode writes it.
        let huge = [&[253u8][..], &(1u64 << 40).to_le_bytes()].concat();
        refused::<Vec<u64>>(&huge, "claims 1099511627776 elements");
        refused::<Vec<()>>(&huge, "claims 1099511627776 elements");
        refused::<Vec<Vec<Vec<u8>>>>(&[&[1, 1], &huge[..]].concat(), "claims");
        refused::<HashMap<(), ()>>(&huge, "claims");
        refused::<String>(&huge, "LimitExceeded");
        refused::<String>(&[252, 0, 0, 0, 16], "UnexpectedEnd");
        // Each for itself is small enough.
        let many = encoded(&vec![vec![(); 800]; 100]);
        refused::<Vec<Vec<()>>>(&many, "claims 800 elements");
    }

    #[test]
    fn what_is_nested_too_deep_is_refused() {
        #[derive(Debug, Serialize, Deserialize)]
        struct Link(Option<Box<Link>>);
        // On a small stack, as tasks of a runtime may have.
        let small = std::thread::Builder::new().stack_size(1 << 19);
        let thread = small.spawn(|| {
            refused::<Link>(&[1; 1 << 20], "nested");
            let mut short = [1; 40];
            short[39] = 0;
            assert!(decoded::<Link>(&short).is_ok());
        });
        thread.expect("a thread").join().expect("no overflow");
    }

    #[test]
    fn what_is_too_short_too_long_or_another_type_is_refused() {
        refused::<(u8, u8)>(&[1], "UnexpectedEnd");
        refused::<u8>(&[1, 2], "left behind");
        refused::<String>(&[2, 0xff, 0xff], "Utf8");
        refused::<bool>(&[7], "InvalidBoolean");
        refused::<Shape>(&[9], "variant");
        let small = Bincode::default().with_limit(10);
        let error =
            super::super::codec::decode::<Vec<u8>>(&small, &encoded(&vec![0u8; 10]), "receive").expect_err("11 bytes");
        assert_eq!(error.kind(), crate::ErrorKind::Decode);
        assert!(error.to_string().contains("11 bytes; the codec's limit is 10"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn noise_never_panics(bytes: Vec<u8>) {
            let _ = decoded::<Vec<Shape>>(&bytes);
            let _ = decoded::<Shape>(&bytes);
        }
    }
}
