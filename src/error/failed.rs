//! What gives memory back with its error.

use std::fmt;

use super::Error;

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
