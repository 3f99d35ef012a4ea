//! How requests end, and what that probably means.

use std::fmt;

use rdma_sys as ffi;

/// How a request ended (`ibv_poll_cq(3)`, IBTA 1.4, 11.6.2). An unknown status is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompletionStatus {
    /// The peer's device answered with something that is no answer.
    BadResponse,
    /// The device is broken.
    FatalError,
    /// Dropped because the queue pair had already failed or was closed. rxe tells a local protection error of a send or a
    /// write by this alone.
    Flushed,
    /// The device gives no better name.
    GeneralError,
    /// A peer's write with immediate was refused by our memory.
    LocalAccess,
    /// The message is longer than the posted receive, or than the path allows.
    LocalLength,
    /// The local region does not cover the buffer, is of another domain, or lacks the right.
    LocalProtection,
    /// The request itself is malformed. rxe also says so of a receive that is too short or may not be written.
    LocalQueuePairOperation,
    /// The device did not take the request; its errno is in `vendor_error`.
    NotPosted,
    /// The peer had no receive posted for too long.
    ReceiverNotReady,
    /// The peer's device gave the request up.
    RemoteAborted,
    /// The peer's key, range or right does not allow the access.
    RemoteAccess,
    /// The peer's device found the request malformed, or the message too long for the receive.
    RemoteInvalidRequest,
    /// The peer's device failed while it served the request; of rxe also: the message was too long for the receive.
    RemoteOperation,
    /// The device's own command timed out.
    ResponseTimeout,
    /// The peer's device did not answer within the retries.
    RetryExceeded,
    /// Done.
    Success,
    /// A window could not be bound: region, range or right do not allow it.
    WindowBind,
    /// A value this version does not name.
    Other(u32),
}

impl CompletionStatus {
    #[inline]
    pub(super) fn from_raw(raw: ffi::ibv_wc_status::Type) -> Self {
        use ffi::ibv_wc_status as s;
        match raw {
            s::IBV_WC_BAD_RESP_ERR => Self::BadResponse,
            s::IBV_WC_FATAL_ERR => Self::FatalError,
            s::IBV_WC_WR_FLUSH_ERR => Self::Flushed,
            s::IBV_WC_GENERAL_ERR => Self::GeneralError,
            s::IBV_WC_LOC_ACCESS_ERR => Self::LocalAccess,
            s::IBV_WC_LOC_LEN_ERR => Self::LocalLength,
            s::IBV_WC_LOC_PROT_ERR => Self::LocalProtection,
            s::IBV_WC_LOC_QP_OP_ERR => Self::LocalQueuePairOperation,
            s::IBV_WC_RNR_RETRY_EXC_ERR => Self::ReceiverNotReady,
            s::IBV_WC_REM_ABORT_ERR => Self::RemoteAborted,
            s::IBV_WC_REM_ACCESS_ERR => Self::RemoteAccess,
            s::IBV_WC_REM_INV_REQ_ERR => Self::RemoteInvalidRequest,
            s::IBV_WC_REM_OP_ERR => Self::RemoteOperation,
            s::IBV_WC_RESP_TIMEOUT_ERR => Self::ResponseTimeout,
            s::IBV_WC_RETRY_EXC_ERR => Self::RetryExceeded,
            s::IBV_WC_SUCCESS => Self::Success,
            s::IBV_WC_MW_BIND_ERR => Self::WindowBind,
            other => Self::Other(other),
        }
    }

    /// The status, its name in the specification, and what probably happened.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::BadResponse => "bad response: the peer's device answered with an opcode that does not fit",
            Self::FatalError => "fatal error: the device or its driver is broken",
            Self::Flushed => {
                "flushed: a consequence, not a cause: the queue pair had already failed or was closed, and the first failure tells why (if this is \
                 the first: look at the request's own memory)"
            }
            Self::GeneralError => "general error: the device gives no better name; the vendor error may tell more",
            Self::LocalAccess => "local access error: a peer's write was refused by the memory here",
            Self::LocalLength => {
                "local length error: the message is longer than the buffer posted for it, or than the path or port allows"
            }
            Self::LocalProtection => {
                "local protection error: the local region does not cover the buffer, is of another protection domain, or lacks the right"
            }
            Self::LocalQueuePairOperation => {
                "local queue pair operation error: the request is malformed, or a receive is too short or may not be written"
            }
            Self::NotPosted => "not posted: the device did not take the request",
            Self::ReceiverNotReady => {
                "receiver not ready (RNR retry exceeded): the peer's device answers, its program posted no receive in time"
            }
            Self::RemoteAborted => "remote aborted: the peer's device gave the request up",
            Self::RemoteAccess => {
                "remote access error: the peer's key is wrong or revoked, the range is outside, or the right is missing"
            }
            Self::RemoteInvalidRequest => {
                "remote invalid request: the peer's device found the request malformed, misaligned or too long for its receive"
            }
            Self::RemoteOperation => {
                "remote operation error: the peer's device failed while serving the request, or its receive was too short"
            }
            Self::ResponseTimeout => "response timeout: the device did not answer its driver",
            Self::RetryExceeded => {
                "transport retry exceeded: no acknowledgement came from the peer's device: its queue pair or its host is gone, or packets are lost"
            }
            Self::Success => "success",
            Self::WindowBind => "memory window bind error: the region, the range or the rights do not allow the window",
            Self::Other(_) => "a completion status that this version does not name",
        }
    }

    /// What to look at; `None` for success.
    pub fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::BadResponse | Self::GeneralError | Self::RemoteAborted => {
                "look at the kernel's log (`dmesg`) and the device's firmware, at both ends"
            }
            Self::FatalError | Self::ResponseTimeout => {
                "look at the kernel's log (`dmesg`); the device may have to be reset, and must be opened again"
            }
            Self::Flushed => "look for the first failure of the queue pair, at the other end too",
            Self::LocalAccess | Self::LocalProtection | Self::LocalQueuePairOperation => {
                "the memory here must be registered, still mapped, and writable for what is received or read"
            }
            Self::LocalLength | Self::RemoteInvalidRequest | Self::RemoteOperation => {
                "receives must be as long as the longest message, and the same settings and versions hold at both ends"
            }
            Self::NotPosted => "the queue is full, or the queue pair is not in a state that takes requests",
            Self::ReceiverNotReady => {
                "the peer must post receives sooner, or more: its process is stopped, overloaded, or of another version"
            }
            Self::RemoteAccess => {
                "the key was wrong or revoked; the connection is lost, as reliable connections are after a refused access"
            }
            Self::RetryExceeded => {
                "look whether the peer's process and host are up; a firewall must let UDP port 4791 through, and all interfaces on the way packets \
                 of the path's MTU: `zcmi doctor HOST` tries the way"
            }
            Self::Success => return None,
            Self::WindowBind => {
                "the region must allow windows (MW_BIND), and local writes if the window allows remote ones"
            }
            Self::Other(_) => "look the number up in ibv_poll_cq(3) of the rdma-core that is installed",
        })
    }

    /// Each that this version names.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..u32::from(u8::MAX))
            .map(Self::from_raw)
            .filter(|status| !matches!(status, Self::Other(_)))
            .chain([Self::NotPosted])
    }
}

impl fmt::Display for CompletionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.explanation())?;
        if let Self::Other(raw) = self { write!(f, " ({raw})") } else { Ok(()) }
    }
}

/// A completion that is no success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompletionError {
    /// How it ended; never `Success`.
    pub status: CompletionStatus,
    /// The device's own code, for its vendor.
    pub vendor_error: u32,
}

impl fmt::Display for CompletionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)?;
        match (self.status, self.vendor_error) {
            (_, 0) => Ok(()),
            (CompletionStatus::NotPosted, errno) => {
                write!(f, " ({})", std::io::Error::from_raw_os_error(errno.cast_signed()))
            }
            (_, code) => write!(f, " (vendor error {code:#x})"),
        }
    }
}

impl std::error::Error for CompletionError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_status_is_a_value() {
        assert_eq!(CompletionStatus::from_raw(4711), CompletionStatus::Other(4711));
        assert!(CompletionStatus::Other(4711).to_string().ends_with("(4711)"));
    }

    #[test]
    fn every_status_explains_itself_differently_and_has_a_hint() {
        let mut explained: Vec<_> = (0..24).map(|raw| CompletionStatus::from_raw(raw).to_string()).collect();
        explained.sort();
        explained.dedup();
        assert_eq!(explained.len(), 24);
        for status in CompletionStatus::all().chain([CompletionStatus::Other(99)]) {
            assert_eq!(status.hint().is_none(), status == CompletionStatus::Success, "{status:?}");
            let text = status.to_string() + status.hint().unwrap_or_default();
            assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        }
        assert_eq!(CompletionStatus::all().count(), 18);
    }

    #[test]
    fn the_document_has_every_status_with_the_text_that_is_shown() {
        let document = include_str!("../../docs/troubleshooting.md");
        for status in CompletionStatus::all() {
            let text = status.to_string();
            let begins = text.split(':').next().expect("a text");
            assert!(document.contains(&format!("\n| `{status:?}` | `{begins}` | ")), "{status:?}, {begins}");
        }
        assert!(document.contains(CompletionStatus::Other(0).explanation()));
    }

    #[test]
    fn the_devices_own_code_is_told_and_an_errno_in_words() {
        let error = CompletionError { status: CompletionStatus::RemoteOperation, vendor_error: 0x88 };
        assert!(error.to_string().ends_with("(vendor error 0x88)"), "{error}");
        let error = CompletionError { status: CompletionStatus::NotPosted, vendor_error: libc::ENOMEM as u32 };
        assert!(error.to_string().contains("Cannot allocate memory"), "{error}");
        let error = CompletionError { status: CompletionStatus::Flushed, vendor_error: 0 };
        assert!(error.to_string().contains("a consequence, not a cause"), "{error}");
    }
}
