//! As an error of I/O.

use super::{Error, ErrorKind};

impl From<Error> for std::io::Error {
    /// For what speaks of I/O: the kind as far as there is one, and the error inside.
    fn from(error: Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            ErrorKind::AddressInUse => Io::AddrInUse,
            ErrorKind::AddressInvalid => Io::InvalidInput,
            ErrorKind::ConnectionBroken | ErrorKind::RemoteAccess => Io::ConnectionReset,
            ErrorKind::ConnectionRefused | ErrorKind::Rejected => Io::ConnectionRefused,
            ErrorKind::Decode | ErrorKind::Protocol => Io::InvalidData,
            ErrorKind::MemoryLimit | ErrorKind::PoolExhausted => Io::OutOfMemory,
            ErrorKind::NoRoute | ErrorKind::Unreachable => Io::HostUnreachable,
            ErrorKind::Closed | ErrorKind::PeerClosed => Io::BrokenPipe,
            ErrorKind::PermissionDenied => Io::PermissionDenied,
            ErrorKind::TimedOut | ErrorKind::Unresponsive => Io::TimedOut,
            ErrorKind::Unsupported => Io::Unsupported,
            ErrorKind::WouldBlock => Io::WouldBlock,
            _ => Io::Other,
        };
        Self::new(kind, error)
    }
}
