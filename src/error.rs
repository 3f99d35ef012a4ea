//! The crate's error: what was done, with whom, through which device, what went wrong, and what helps.

use std::error::Error as StdError;
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
    /// The peer's handler answered an error: [`Error::application`] has it.
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
    /// The peer's process does not answer, its device does: it is stopped or overloaded.
    Unresponsive,
    /// Not possible on this transport or device.
    Unsupported,
    /// It cannot be done without waiting.
    WouldBlock,
    /// Anything else; the source tells.
    Other,
}

/// An error of zcmi. It is one pointer wide and made only when something fails.
///
/// `Display` gives one line: operation, peer, device, cause and hint, each where it is known.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    detail: Option<String>,
    peer: Option<String>,
    device: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of an operation of zcmi.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` in `operation`.
    pub(crate) fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self(Box::new(Inner { kind, operation, detail: None, peer: None, device: None, source: None }))
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    pub(crate) fn with_peer(mut self, peer: impl fmt::Display) -> Self {
        self.0.peer.get_or_insert_with(|| peer.to_string());
        self
    }

    pub(crate) fn with_device(mut self, device: impl Into<String>) -> Self {
        self.0.device.get_or_insert_with(|| device.into());
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, of the operation that a caller knows.
    pub(crate) fn within(mut self, operation: &'static str) -> Self {
        self.0.operation = operation;
        self
    }

    /// Puts `cause` before the detail.
    pub(crate) fn with_cause(mut self, cause: &str) -> Self {
        let detail = self.0.detail.take().map(|detail| format!("{cause}: {detail}"));
        self.0.detail = Some(detail.unwrap_or_else(|| cause.to_owned()));
        self
    }

    pub(crate) fn into_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same failure seen from another operation: what broke a connection is told to everyone who waits on it.
    pub(crate) fn again(&self, operation: &'static str) -> Self {
        let inner = &self.0;
        let source = inner.source.as_ref().map(|source| source.to_string().into());
        Self(Box::new(Inner {
            kind: inner.kind,
            operation,
            detail: inner.detail.clone(),
            peer: inner.peer.clone(),
            device: inner.device.clone(),
            source,
        }))
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed, for instance `connect`.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The peer's address, where one is involved.
    pub fn peer(&self) -> Option<&str> {
        self.0.peer.as_deref()
    }

    /// The local RDMA device, where one is involved.
    pub fn device(&self) -> Option<&str> {
        self.0.device.as_deref()
    }

    /// The error that the peer's handler answered, if it is one; see [`Client`](crate::Client).
    #[cfg(not(loom))]
    pub fn application(&self) -> Option<&crate::ApplicationError> {
        self.0.source.as_deref()?.downcast_ref()
    }

    /// What probably helps; `None` where the error says it all.
    pub fn hint(&self) -> Option<&'static str> {
        let without_device = match self.0.device.as_deref() {
            Some("shm") => self.hint_in_shared_memory(),
            Some("tcp") => self.hint_over_tcp(),
            _ => None,
        };
        if without_device.is_some() {
            return without_device;
        }
        Some(match self.0.kind {
            ErrorKind::AddressInUse => "another process listens there; choose another port, or port 0",
            ErrorKind::AddressInvalid => {
                "write auto://HOST:PORT, rdma://HOST:PORT, tcp://HOST:PORT, shm://NAME or shm:///PATH; to listen, HOST is an address of this host (see \
                 `ip address`), with rdma:// of an RDMA device (see `rdma link`)"
            }
            ErrorKind::ConnectionRefused => "start the peer first, and check the port",
            ErrorKind::Decode => "both ends must use the same types, and the same codec",
            ErrorKind::Foreign => {
                "a handle is good on the connection it was granted for, or, if granted to a domain, on those to that domain"
            }
            ErrorKind::MemoryLimit => {
                "raise the limit on locked memory: `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the service's unit"
            }
            ErrorKind::NoDevice => {
                "tcp://HOST:PORT needs no device; `rdma link` lists devices; without one, `soft-roce-setup/up` makes a Soft-RoCE device, \
                 `soft-roce-setup/run -- COMMAND` runs a command with one"
            }
            ErrorKind::NoRoute => {
                "check `ip route get ADDRESS`; RDMA needs a route over the device's own network interface"
            }
            ErrorKind::NotInstalled => "install the libraries: `apt-get install ibverbs-providers librdmacm1`",
            ErrorKind::PermissionDenied => {
                "let this user open /dev/infiniband/* (udev rules of rdma-core, or `--device` for a container)"
            }
            ErrorKind::PoolExhausted => {
                "drop buffers that are done with, wait with Pool::allocate_async, or raise PoolOptions::limit"
            }
            ErrorKind::RemoteAccess => {
                "the key was wrong or revoked; the connection is lost, as reliable connections are after a refused access"
            }
            ErrorKind::ResourceExhausted => {
                "close connections or use smaller queues; `rdma resource show` tells who holds what"
            }
            ErrorKind::Revoked => "ask the owner for another handle",
            ErrorKind::TimedOut => {
                "the peer is overloaded or stopped, or a firewall drops UDP port 4791; raise the timeout if the network is slow"
            }
            ErrorKind::TooLong => {
                "send it in parts, raise Config::max_message_size at the receiver, or write through a handle"
            }
            ErrorKind::Unreachable => "check the peer's host and link; a firewall must let UDP port 4791 through",
            ErrorKind::Unresponsive => {
                "look at the peer's process: continue it, or give it a processor; raise Config::peer_timeout if it may pause so long"
            }
            _ => return None,
        })
    }
}

impl Error {
    /// What helps where both processes are on this host, if it is something else.
    fn hint_in_shared_memory(&self) -> Option<&'static str> {
        Some(match self.0.kind {
            ErrorKind::AddressInUse => {
                "another process listens there, or the path is no socket; choose another name or path"
            }
            ErrorKind::AddressInvalid => "write shm://NAME, or shm:///PATH with a path whose folder is there",
            ErrorKind::ConnectionRefused => {
                "start the peer first, and check the name; in another container, or network namespace, it is reached by shm:///PATH only"
            }
            ErrorKind::PermissionDenied => "both processes must be of the same user, and may use the path",
            ErrorKind::ResourceExhausted => {
                "close connections, raise the limit on open files (`ulimit -n`), or give the control group more memory"
            }
            ErrorKind::TimedOut => "the peer is overloaded or stopped; raise the timeout if that is as it should be",
            _ => return None,
        })
    }

    /// What helps where there is no RDMA device, if it is something else.
    fn hint_over_tcp(&self) -> Option<&'static str> {
        Some(match self.0.kind {
            ErrorKind::NoRoute => "check `ip route get ADDRESS`",
            ErrorKind::PermissionDenied => {
                "ports below 1024 are for privileged programs; choose another port, or port 0"
            }
            ErrorKind::ResourceExhausted => "close connections, or raise the limit on open files: `ulimit -n`",
            ErrorKind::TimedOut => {
                "the peer is overloaded or stopped, or a firewall drops the packets; raise the timeout if the network is slow"
            }
            ErrorKind::Unreachable => "check the peer's host and link, and the firewalls in between",
            _ => return None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.write_str(inner.operation)?;
        if let Some(peer) = &inner.peer {
            write!(f, " {peer}")?;
        }
        if let Some(device) = &inner.device {
            write!(f, " ({device})")?;
        }
        write!(f, ": {}", inner.kind)?;
        if let Some(detail) = &inner.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(source) = &inner.source {
            write!(f, ": {source}")?;
        }
        if let Some(hint) = self.hint() {
            write!(f, ". Hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {self})", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
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
            Self::Unresponsive => "the peer's process does not answer, its device does: it is stopped or overloaded",
            Self::Unsupported => "not supported",
            Self::WouldBlock => "it would have to wait",
        })
    }
}

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

/// An operation that failed and gives its buffer back.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed<B: fmt::Debug> {
    /// Why.
    #[source]
    pub error: Error,
    /// The buffer, its contents undefined if it was the destination. `None` if the device has not let go of it: then it is
    /// never freed.
    pub buffer: Option<B>,
}

impl<B: fmt::Debug> From<Failed<B>> for Error {
    /// Keeps the error and drops the buffer.
    fn from(failed: Failed<B>) -> Self {
        failed.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_tells_all_there_is_to_know() {
        let error = Error::new(ErrorKind::ConnectionRefused, "connect")
            .with_peer("192.0.2.1:7")
            .with_device("rxe0")
            .with_source("reject reason 8");
        assert_eq!(
            error.to_string(),
            "connect 192.0.2.1:7 (rxe0): nobody listens there: reject reason 8. Hint: start the peer first, and check the port"
        );
        assert_eq!(error.again("send").operation(), "send");
        assert_eq!(error.again("send").peer(), Some("192.0.2.1:7"));
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
