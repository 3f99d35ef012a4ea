//! How far it is, on standard error, where a person looks at it.

use indicatif::{ProgressBar, ProgressStyle};

use super::test::Case;

/// A bar, or nothing.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of so many steps. indicatif draws on a terminal only.
    pub(crate) fn new(steps: u64) -> Self {
        let bar = ProgressBar::new(steps);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// What begins.
    pub(crate) fn at(&self, who: &str, case: &Case, round: u32) {
        self.bar.set_message(format!("{who} {} of {} bytes, round {round}", case.test.name(), case.size));
    }

    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
