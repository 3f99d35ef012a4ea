//! Bounding every wait: a run that makes no progress ends.

use std::cell::Cell;
use std::time::Duration;

use super::{Failure, Result};

/// Looks at the count in the time that nothing may move.
const LOOKS: u32 = 10;

/// Counts what has been done. Counting costs no system call, so it is done for every operation.
#[derive(Default)]
pub(crate) struct Progress(Cell<u64>);

impl Progress {
    /// Something was done.
    pub(crate) fn step(&self) {
        self.0.set(self.0.get() + 1);
    }

    /// Carries `work` out, unless it does nothing for `limit`; then it is dropped.
    pub(crate) async fn watch<T>(&self, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            result = work => result,
            failure = self.stalled(limit) => Err(failure),
        }
    }

    async fn stalled(&self, limit: Duration) -> Failure {
        let (mut seen, mut idle) = (self.0.get(), 0);
        loop {
            tokio::time::sleep(limit / LOOKS).await;
            idle = if self.0.get() == seen { idle + 1 } else { 0 };
            seen = self.0.get();
            if idle == LOOKS {
                return Failure::Other(format!(
                    "no progress for {} s: the other end is stopped or very slow; --timeout sets how long to wait",
                    limit.as_secs()
                ));
            }
        }
    }
}
