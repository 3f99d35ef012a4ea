//! Named points on the way of an operation, at which a test can stop this process. In ordinary builds they are nothing.

#[cfg(feature = "internals")]
static HOOK: std::sync::OnceLock<Box<dyn Fn(&'static str) + Send + Sync>> = std::sync::OnceLock::new();

/// Has `hook` called at each point that is reached, with its name. It may block for ever, and may find locks held.
#[cfg(feature = "internals")]
pub(crate) fn hook(hook: impl Fn(&'static str) + Send + Sync + 'static) {
    assert!(HOOK.set(Box::new(hook)).is_ok(), "there is one hook a process");
}

/// The point `name` is reached.
#[cfg(feature = "internals")]
pub(crate) fn reach(name: &'static str) {
    if let Some(hook) = HOOK.get() {
        hook(name);
    }
}

/// The point `name` is reached.
#[cfg(not(feature = "internals"))]
#[inline(always)]
pub(crate) fn reach(_name: &'static str) {}
