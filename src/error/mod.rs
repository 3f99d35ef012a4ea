//! The crate's error: what was done, with whom, through which device, what went wrong, and what helps.

mod failed;
mod hint;
mod io;
mod kind;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt;
use std::net::Ipv6Addr;

pub use failed::Failed;
pub use kind::ErrorKind;

/// An error of zcmi. It is one pointer wide and made only when something fails.
///
/// `Display` gives one line: operation, peer, device with the GID of its port, cause and hint, each where it is known.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    detail: Option<String>,
    peer: Option<String>,
    device: Option<String>,
    gid: Option<Ipv6Addr>,
    /// Instead of the kind's.
    hint: Option<&'static str>,
    /// What failed first, if this is only what came of it.
    first: Option<&'static str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of an operation of zcmi.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` in `operation`.
    pub(crate) fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self(Box::new(Inner {
            kind,
            operation,
            detail: None,
            peer: None,
            device: None,
            gid: None,
            hint: None,
            first: None,
            source: None,
        }))
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

    /// The GID of the local port that is in use, if it has one.
    pub(crate) fn with_gid(mut self, gid: Option<Ipv6Addr>) -> Self {
        self.0.gid = self.0.gid.or(gid);
        self
    }

    /// What helps here, instead of what the kind suggests.
    #[cfg_attr(not(feature = "verbs"), allow(dead_code, reason = "devices tell causes apart"))]
    pub(crate) fn with_hint(mut self, hint: Option<&'static str>) -> Self {
        self.0.hint = hint;
        self
    }

    /// As it is told to all but `first`, which failed: they end with the connection.
    pub(crate) fn after(mut self, first: &'static str) -> Self {
        self.0.first.get_or_insert(first);
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
            gid: inner.gid,
            hint: inner.hint,
            first: inner.first,
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

    /// The GID of the local device's port, where one is involved; on RoCE v2 it stands for an IP address.
    pub fn gid(&self) -> Option<Ipv6Addr> {
        self.0.gid
    }

    /// The operation that failed first and ended the connection, if this error is only a consequence of it. The cause that it tells is the
    /// first one's. `send`, `receive`, `grant` and `revoke` never name themselves here: any of that name may have been the first.
    pub fn first_failure(&self) -> Option<&'static str> {
        self.0.first.filter(|first| *first != self.0.operation || !TOLD_BY_THE_END.contains(first))
    }

    /// The error that the peer's handler answered, if it is one; see [`Client`](crate::Client).
    #[cfg(not(loom))]
    pub fn application(&self) -> Option<&crate::ApplicationError> {
        self.0.source.as_deref()?.downcast_ref()
    }
}

/// Operations that fail by the end of their connection alone: also the one whose failure has ended it.
const TOLD_BY_THE_END: [&str; 4] = ["grant", "receive", "revoke", "send"];

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.write_str(inner.operation)?;
        if let Some(peer) = &inner.peer {
            write!(f, " {peer}")?;
        }
        match (&inner.device, inner.gid) {
            (Some(device), Some(gid)) => write!(f, " ({device}, GID {gid})")?,
            (Some(device), None) => write!(f, " ({device})")?,
            (None, Some(gid)) => write!(f, " (GID {gid})")?,
            (None, None) => {}
        }
        if let Some(first) = self.first_failure() {
            write!(f, ": ended by an earlier failure, of {first}")?;
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
