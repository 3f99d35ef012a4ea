//! What a handler answers instead of a response.

use std::fmt;

use crate::Error;

/// Bytes of a text that travel; what is longer is cut.
const LONGEST: usize = 4096;

/// The error of a handler, as it travels: a number, which is the application's own, and a text.
///
/// ```
/// use zcmi::ApplicationError;
///
/// async fn handler(number: i64) -> Result<i64, ApplicationError> {
///     if number < 0 {
///         return Err(ApplicationError::new(22, "no negative numbers"));
///     }
///     number.checked_mul(2).ok_or("too large".into()) // code 0
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ApplicationError {
    code: u32,
    text: String,
}

impl ApplicationError {
    /// An error with a code and a text. Of the text 4 KiB travel.
    pub fn new(code: u32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The application's number; 0 if it gave none.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// As it was sent.
    pub(super) fn of_bytes(code: u32, text: &[u8]) -> Self {
        Self { code, text: text_of(text) }
    }
}

/// The part of a text that travels.
pub(super) fn travelling(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(LONGEST)]
}

/// A text that a peer has sent, who may be hostile.
pub(super) fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]).into_owned()
}

impl fmt::Display for ApplicationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            0 => f.write_str(&self.text),
            code => write!(f, "{} (code {code})", self.text),
        }
    }
}

impl From<String> for ApplicationError {
    fn from(text: String) -> Self {
        Self::new(0, text)
    }
}

impl From<&str> for ApplicationError {
    fn from(text: &str) -> Self {
        Self::new(0, text)
    }
}

impl From<Error> for ApplicationError {
    /// What a handler's own operation failed with.
    fn from(error: Error) -> Self {
        Self::new(0, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_broken_texts_are_cut() {
        let text = "ä".repeat(4000);
        assert_eq!(travelling(&text).len(), 4096);
        assert_eq!(travelling(&format!("x{text}")).len(), 4095);
        assert_eq!(text_of(b"fine\xff"), "fine\u{fffd}");
        assert!(text_of(&[b'x'; 10_000]).len() == 4096);
        assert_eq!(ApplicationError::new(7, "no").to_string(), "no (code 7)");
        assert_eq!(ApplicationError::from("no").to_string(), "no");
    }
}
