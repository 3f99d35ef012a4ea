//! The caller's terminal, if there is one.

use rustix::process::getpgrp;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};

/// Which of standard input, output and error are a terminal that is ours to use.
pub(crate) fn streams() -> [bool; 3] {
    [isatty(stdin()) && !in_background(), isatty(stdout()), isatty(stderr())]
}

/// A background job must not read from its terminal: it would be stopped.
pub(crate) fn in_background() -> bool {
    isatty(stdin()) && tcgetpgrp(stdin()).is_ok_and(|foreground| foreground != getpgrp())
}

/// Rows and columns.
pub(crate) fn size() -> (u16, u16) {
    let size = tcgetwinsize(stdin()).or_else(|_| tcgetwinsize(stdout())).or_else(|_| tcgetwinsize(stderr()));
    size.map_or((24, 80), |size| (size.ws_row, size.ws_col))
}

/// The terminal in raw mode, until this is dropped.
#[derive(Debug)]
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    /// Does nothing but remember if standard input is not to be touched.
    pub(crate) fn enter(wanted: bool) -> Self {
        let before = wanted.then(|| tcgetattr(stdin()).ok()).flatten();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            let _ = tcsetattr(stdin(), OptionalActions::Now, &raw);
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(stdin(), OptionalActions::Drain, before);
        }
    }
}
