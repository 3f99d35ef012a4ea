//! Handles, and encoded values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Input;
use crate::{ErrorKind, RemoteBuffer};

/// Longest encoding that is tried again with a limit.
const LIMITS: usize = 64;

/// Reads any bytes as a handle, and as encoded values.
pub fn handle(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte() & 1 == 0 {
        handles(&mut input);
    } else {
        #[cfg(feature = "bincode")]
        values(&mut input);
    }
}

/// The first and the length of the bytes that a handle names.
fn range(handle: &RemoteBuffer) -> (u128, u128) {
    let sessions = (handle.session(), handle.session());
    let length = usize::try_from(handle.len()).expect("64 bits");
    let (address, _) = handle.check("fuzz", handle.access(), sessions, length).expect("all of itself");
    assert!(length == usize::MAX || handle.check("fuzz", handle.access(), sessions, length + 1).is_err());
    assert!(handle.check("fuzz", handle.access(), (!sessions.0, !sessions.1), 0).is_err(), "of any session");
    (address.into(), handle.len().into())
}

fn handles(input: &mut Input<'_>) {
    let bytes = input.take(RemoteBuffer::WIRE_LENGTH);
    let Ok(mut handle) = RemoteBuffer::from_bytes(bytes) else { return };
    while !input.is_empty() {
        assert_eq!(RemoteBuffer::from_bytes(&handle.to_bytes()).expect("of our own making"), handle);
        let (address, length) = range(&handle);
        assert!(address + length <= u64::MAX.into(), "it wraps around");
        let (operation, from, to) = (input.below(4), input.long(), input.long());
        let (start, end) = (u128::from(from), u128::from(to));
        match operation {
            0 => match handle.slice(from..to) {
                Ok(part) => {
                    assert!(start <= end && end <= length, "{start}..{end} of {length}");
                    assert_eq!(range(&part), (address + start, end - start));
                    handle = part;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::OutOfBounds);
                    assert!(start > end || end > length, "{start}..{end} of {length}");
                }
            },
            1 => match handle.slice(from..=to) {
                Ok(part) => {
                    assert!(start <= end + 1 && end < length, "{start}..={end} of {length}");
                    assert_eq!(range(&part), (address + start, end + 1 - start));
                    handle = part;
                }
                Err(_) => assert!(start > end + 1 || end >= length, "{start}..={end} of {length}"),
            },
            2 => match handle.split_at(from) {
                Ok((first, second)) => {
                    assert!(start <= length);
                    assert_eq!((range(&first), range(&second)), ((address, start), (address + start, length - start)));
                    handle = if to & 1 == 0 { first } else { second };
                }
                Err(_) => assert!(start > length, "split at {start} of {length}"),
            },
            _ => {
                value::<u64>(&handle, from);
                value::<u16>(&handle, from);
                value::<[u8; 3]>(&handle, from);
            }
        }
        encoded(&handle);
    }
}

/// A value lies within the handle and is aligned, or there is an error.
fn value<T: zerocopy::FromBytes + zerocopy::IntoBytes>(handle: &RemoteBuffer, offset: u64) {
    let (address, length) = range(handle);
    let (start, size) = (u128::from(offset), size_of::<T>() as u128);
    let is_inside = start + size <= length;
    let is_aligned = (address + start) % align_of::<T>() as u128 == 0;
    match handle.at::<T>(offset).map_err(|error| error.kind()) {
        Ok(value) => {
            assert!(is_inside && is_aligned, "a value at {start} of {length}");
            assert_eq!(range(value.remote_buffer()), (address + start, size));
        }
        Err(ErrorKind::OutOfBounds) => assert!(!is_inside),
        Err(kind) => assert!(kind == ErrorKind::Misaligned && is_inside && !is_aligned, "{kind:?}"),
    }
}

/// Anything that an application may send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Anything {
    Bytes(Vec<u8>),
    Handle(RemoteBuffer),
    List(Vec<Anything>),
    Nothing(Vec<()>),
    Number(i64),
    Optional(Option<Box<Anything>>),
    Record { name: String, letter: char, wide: u128, flag: bool },
    Table(BTreeMap<u16, (String, u64)>),
}

#[cfg(not(feature = "bincode"))]
fn encoded(_: &RemoteBuffer) {}

/// A handle inside a value comes back.
#[cfg(feature = "bincode")]
fn encoded(handle: &RemoteBuffer) {
    comes_back(&Anything::List(vec![Anything::Handle(*handle), Anything::Optional(None)]));
}

#[cfg(feature = "bincode")]
fn values(input: &mut Input<'_>) {
    use crate::message::decode;

    let limit = usize::from(input.short());
    let codec = crate::Bincode::default().with_limit(limit);
    let bytes = input.take(usize::MAX);
    let decoded = decode::<Anything>(&codec, bytes, "fuzz");
    match decoded {
        Ok(value) => {
            assert!(bytes.len() <= limit, "{} bytes where there may be {limit}", bytes.len());
            // What takes no bytes, and what each byte can at most become.
            let most = (bytes.len() + 1024 + 128) * size_of::<Anything>() * 4;
            assert!(memory(&value) <= most, "{} bytes of {}", memory(&value), bytes.len());
            comes_back(&value);
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Decode),
    }
    let _ = decode::<Vec<Anything>>(&codec, bytes, "fuzz");
    let _ = decode::<(u8, &str, &[u8])>(&codec, bytes, "fuzz");
    let _ = decode::<BTreeMap<(), ()>>(&codec, bytes, "fuzz");
    let _ = decode::<Option<RemoteBuffer>>(&codec, bytes, "fuzz");
}

/// Bytes of memory that a value takes.
#[cfg(feature = "bincode")]
fn memory(value: &Anything) -> usize {
    size_of::<Anything>()
        + match value {
            Anything::Bytes(bytes) => bytes.capacity(),
            Anything::List(list) => {
                (list.capacity() - list.len()) * size_of::<Anything>() + list.iter().map(memory).sum::<usize>()
            }
            Anything::Optional(Some(inner)) => memory(inner),
            Anything::Record { name, .. } => name.capacity(),
            Anything::Table(table) => table.values().map(|(name, _)| name.capacity() + 64).sum(),
            Anything::Handle(_) | Anything::Nothing(_) | Anything::Number(_) | Anything::Optional(None) => 0,
        }
}

/// A value comes back whole where its encoding may have its length, and is refused where it may not.
#[cfg(feature = "bincode")]
fn comes_back(value: &Anything) {
    use crate::message::decode;
    use crate::{Bincode, Codec};

    let mut bytes = Vec::new();
    Bincode::default().encode(value, &mut bytes).expect("a vector takes it");
    // One byte more is not part of the value, so it is refused.
    let exact = Bincode::default().with_limit(bytes.len());
    assert_eq!(&decode::<Anything>(&exact, &bytes, "fuzz").expect("of our own making"), value);
    if bytes.len() <= LIMITS {
        let short = Bincode::default().with_limit(bytes.len() - 1);
        assert!(decode::<Anything>(&short, &bytes, "fuzz").is_err(), "beyond the limit");
        assert!(decode::<Anything>(&exact, &bytes[..bytes.len() - 1], "fuzz").is_err(), "cut off");
        bytes.push(0);
        assert!(decode::<Anything>(&Bincode::default(), &bytes, "fuzz").is_err(), "something is left");
    }
}
