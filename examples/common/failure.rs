//! Why a run failed.

use std::fmt;

use zcmi::{Buffer, ErrorKind, Failed};

/// The result of a step of an example.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why a run failed; `Display` gives one line.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something the example itself found.
    Other(String),
    /// Whoever read standard output has closed it, which ends the run and is no error.
    OutputClosed,
    /// The other end has been told, and prints it.
    Told,
    /// zcmi reported an error.
    Zcmi(zcmi::Error),
}

impl Failure {
    /// Whether the connection was lost, so that the peer may know more.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Zcmi(error) if matches!(
            error.kind(),
            ErrorKind::ConnectionBroken | ErrorKind::PeerClosed | ErrorKind::Unreachable
        ))
    }

    /// Whether the peer has closed the connection in an orderly way.
    pub(crate) fn is_peer_closed(&self) -> bool {
        matches!(self, Self::Zcmi(error) if error.kind() == ErrorKind::PeerClosed)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(text) => f.write_str(text),
            Self::OutputClosed => f.write_str("standard output was closed"),
            Self::Told => f.write_str("the run failed; the client says why"),
            Self::Zcmi(error) => error.fmt(f),
        }
    }
}

impl From<zcmi::Error> for Failure {
    fn from(error: zcmi::Error) -> Self {
        Self::Zcmi(error)
    }
}

impl From<Failed<Buffer>> for Failure {
    fn from(failed: Failed<Buffer>) -> Self {
        Self::Zcmi(failed.error)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Other(text)
    }
}
