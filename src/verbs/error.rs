//! What a verbs call answers when it fails.

use std::borrow::Cow;
use std::io;

/// A failed call of libibverbs, librdmacm or the kernel below them.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}{}{}", if detail.is_some() { ": " } else { "" }, detail.as_deref().unwrap_or_default())]
pub struct Error {
    call: &'static str,
    source: io::Error,
    detail: Option<Cow<'static, str>>,
}

impl Error {
    /// The error that `call` left in `errno`.
    pub(crate) fn last(call: &'static str) -> Self {
        Self { call, source: io::Error::last_os_error(), detail: None }
    }

    /// The error whose number `call` returned, as `ibv_post_send(3)` and the destructors do.
    pub(crate) fn returned(call: &'static str, errno: i32) -> Self {
        // Older librdmacm answers -1 and leaves the number in errno.
        match errno {
            -1 => Self::last(call),
            errno => Self { call, source: io::Error::from_raw_os_error(errno.abs()), detail: None },
        }
    }

    pub(crate) fn check(call: &'static str, answer: i32) -> super::Result<()> {
        if answer == 0 { Ok(()) } else { Err(Self::returned(call, answer)) }
    }

    /// `EINVAL` that this crate answers instead of calling C, and what is wrong.
    #[allow(dead_code, reason = "the next commits use it")]
    pub(crate) fn invalid(call: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::returned(call, libc::EINVAL).with_detail(detail)
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// What is known beyond the errno: the number that is too high, the limit and how to raise it.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The C function that failed.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// The operating system's error.
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// The errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Whether the cause is that libibverbs or librdmacm could not be opened.
    pub fn is_not_installed(&self) -> bool {
        // The run-time stubs of librdmacm answer EOPNOTSUPP, those of libibverbs ENOSYS.
        let is_first_call = matches!(self.call, "ibv_get_device_list" | "rdma_create_event_channel");
        self.errno() == Some(libc::ENOSYS) || (is_first_call && self.errno() == Some(libc::EOPNOTSUPP))
    }
}
