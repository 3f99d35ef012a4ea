//! The progress bar.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::case::Case;
use crate::limit::Limit;

/// Shows how far a measurement is, on standard error if that is a terminal; otherwise it does nothing.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar for `case`.
    pub(crate) fn new(case: &Case) -> Self {
        let all = match case.limit {
            Limit::Operations(all) => all,
            Limit::Time(time) => millis(time),
        };
        let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:40}] {percent:>3} % {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(format!("{:?} {} bytes", case.test, case.size).to_lowercase());
        Self(bar)
    }

    /// Shows the state; called a few times a second.
    pub(crate) fn show(&self, case: &Case, operations: u64, elapsed: Duration) {
        if self.0.is_hidden() {
            return;
        }
        let rate = operations as f64 * case.size as f64 / elapsed.as_secs_f64() / 1e6;
        self.0.set_message(format!("{rate:.1} MB/s"));
        self.0.set_position(match case.limit {
            Limit::Operations(_) => operations,
            Limit::Time(_) => millis(elapsed),
        });
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
