//! Why a bench failed.

use std::fmt;

use zcmi::{ErrorKind, Failed};

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// An error in words, and the library's kind if it is its.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    kind: Option<ErrorKind>,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: None }
    }

    pub(crate) fn kind(&self) -> Option<ErrorKind> {
        self.kind
    }

    /// The same, with what was done in front.
    pub(crate) fn within(self, what: impl fmt::Display) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl From<zcmi::Error> for Failure {
    fn from(error: zcmi::Error) -> Self {
        Self { text: error.to_string(), kind: Some(error.kind()) }
    }
}

impl<M: fmt::Debug> From<Failed<M>> for Failure {
    fn from(failed: Failed<M>) -> Self {
        failed.error.into()
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}
