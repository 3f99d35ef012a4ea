//! Why a run failed.

use std::fmt;

use zcmi::verbs::{CompletionError, Refused};

/// The result of a step.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why a run failed, in one line.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    /// A request that the device did not carry out.
    pub(crate) fn of(what: &str, error: CompletionError) -> Self {
        Self(format!("{what}: {error} (vendor's code {:#x})", error.vendor_error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<zcmi::verbs::Error> for Failure {
    fn from(error: zcmi::verbs::Error) -> Self {
        Self(error.to_string())
    }
}

impl<B> From<Refused<B>> for Failure {
    fn from(refused: Refused<B>) -> Self {
        Self(refused.error.map_or_else(|| "the queue is full".to_owned(), |error| error.to_string()))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(format!("output: {error}"))
    }
}
