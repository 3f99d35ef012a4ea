//! What kind of thing went wrong.

use std::fmt;

/// What kind of thing went wrong; decides what a caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The handle does not carry the right that the operation needs. Nothing was sent.
    AccessDenied,
    /// An address that cannot be parsed, or is not one of this host's.
    AddressInvalid,
    /// The address is in use.
    AddressInUse,
    /// The peer's handler answered an error: [`Error::application`](crate::Error::application) has it.
    Application,
    /// This side has closed the connection.
    Closed,
    /// The connection failed; the source tells how.
    ConnectionBroken,
    /// Nobody listens at the address.
    ConnectionRefused,
    /// A message is not the value that it should be; the source tells why. The connection lives on.
    Decode,
    /// A value cannot be encoded; the source tells why. Nothing was sent.
    Encode,
    /// The handle is of another connection. Nothing was sent.
    Foreign,
    /// A limit on locked memory (RLIMIT_MEMLOCK) or the device's memory is reached.
    MemoryLimit,
    /// The place is not aligned as the operation needs. Nothing was sent.
    Misaligned,
    /// No RDMA device, or none for the address.
    NoDevice,
    /// There is no route to the address.
    NoRoute,
    /// libibverbs or librdmacm is not installed.
    NotInstalled,
    /// The range lies outside the handle or the buffer. Nothing was sent.
    OutOfBounds,
    /// The peer's handler panicked. The server goes on.
    Panicked,
    /// The peer closed the connection.
    PeerClosed,
    /// A device file may not be opened.
    PermissionDenied,
    /// The pool is at its limit, or the length never fits it.
    PoolExhausted,
    /// The peer sent something that the protocol does not allow.
    Protocol,
    /// The peer's listener refused the connection.
    Rejected,
    /// The peer's device refused the access: wrong or revoked key, range or right.
    RemoteAccess,
    /// A limit of the device or the process is reached.
    ResourceExhausted,
    /// The owner has revoked the grant, or its lease has ended. Nothing was sent, and the connection lives on.
    Revoked,
    /// The peer did not answer in time.
    TimedOut,
    /// The message or buffer is too long.
    TooLong,
    /// The peer's host or device does not answer.
    Unreachable,
    /// The peer's process does not answer, its device or host does: it is stopped or overloaded.
    Unresponsive,
    /// Not possible on this transport or device.
    Unsupported,
    /// It cannot be done without waiting.
    WouldBlock,
    /// Anything else; the source tells.
    Other,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AccessDenied => "the handle does not allow this",
            Self::AddressInUse => "the address is in use",
            Self::AddressInvalid => "not a usable address",
            Self::Application => "the peer's handler answered an error",
            Self::Closed => "this side has closed the connection",
            Self::ConnectionBroken => "the connection broke",
            Self::ConnectionRefused => "nobody listens there",
            Self::Decode => "not the value that was expected",
            Self::Encode => "the value cannot be encoded",
            Self::Foreign => "the handle belongs to another connection",
            Self::MemoryLimit => "out of lockable memory",
            Self::Misaligned => "not aligned",
            Self::NoDevice => "no RDMA device",
            Self::NoRoute => "no route to the address",
            Self::NotInstalled => "libibverbs or librdmacm is not installed",
            Self::Other => "failed",
            Self::OutOfBounds => "out of bounds",
            Self::Panicked => "the peer's handler panicked",
            Self::PeerClosed => "the peer closed the connection",
            Self::PermissionDenied => "permission denied",
            Self::PoolExhausted => "the pool has no room",
            Self::Protocol => "the peer violated the protocol",
            Self::Rejected => "the peer refused the connection",
            Self::RemoteAccess => "the peer's device refused the access",
            Self::ResourceExhausted => "a resource limit is reached",
            Self::Revoked => "the owner has revoked the grant",
            Self::TimedOut => "timed out",
            Self::TooLong => "too long",
            Self::Unreachable => "the peer cannot be reached",
            Self::Unresponsive => "the peer's process does not answer, its host does: it is stopped or overloaded",
            Self::Unsupported => "not supported",
            Self::WouldBlock => "it would have to wait",
        })
    }
}

#[cfg(test)]
impl ErrorKind {
    /// Each there is, in their order.
    pub(crate) const ALL: [Self; Self::Other as usize + 1] = {
        use ErrorKind::*;
        [
            AccessDenied,
            AddressInvalid,
            AddressInUse,
            Application,
            Closed,
            ConnectionBroken,
            ConnectionRefused,
            Decode,
            Encode,
            Foreign,
            MemoryLimit,
            Misaligned,
            NoDevice,
            NoRoute,
            NotInstalled,
            OutOfBounds,
            Panicked,
            PeerClosed,
            PermissionDenied,
            PoolExhausted,
            Protocol,
            Rejected,
            RemoteAccess,
            ResourceExhausted,
            Revoked,
            TimedOut,
            TooLong,
            Unreachable,
            Unresponsive,
            Unsupported,
            WouldBlock,
            Other,
        ]
    };
}
