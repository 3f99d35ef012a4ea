//! Objects that know the process that made them.

/// The process that created an object. In a child made by `fork` the object must not be destroyed:
/// the descriptor and the kernel's object behind it are the parent's.
#[derive(Debug)]
pub(super) struct Creator(u32);

impl Creator {
    pub(super) fn here() -> Self {
        Self(std::process::id())
    }

    /// Whether this process made the object. Logs once per object that a child leaks.
    pub(super) fn may_destroy(&self, what: &'static str) -> bool {
        let here = std::process::id() == self.0;
        if !here {
            tracing::debug!(what, parent = self.0, "a forked child leaves its parent's object alone");
        }
        here
    }
}

/// Logs a destructor that failed; `Drop` cannot answer.
pub(super) fn destroyed(call: &'static str, answer: i32) {
    if answer != 0 {
        let error = super::Error::returned(call, answer);
        tracing::error!(%error, "a verbs object could not be destroyed and is leaked");
    }
}
