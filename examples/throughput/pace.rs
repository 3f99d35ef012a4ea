//! The clock of a measurement: when it ends, and what happens a few times a second meanwhile.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use zcmi::Connection;

use crate::bar::Bar;
use crate::case::Case;
use crate::common::{Result, tell};

/// Time between two looks at the progress bar.
const TICK: Duration = Duration::from_millis(200);

/// What the client of one-sided operations tells the server, which otherwise would notice nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// It is at work; the server need not give up.
    AtWork,
    /// It has done so many operations and will do no more.
    Done(u64),
}

/// What a measurement comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    /// Operations in the measured time.
    pub(crate) operations: u64,
    /// The measured time.
    pub(crate) time: Duration,
}

/// The clock of one measurement.
pub(crate) struct Pace<'a> {
    case: &'a Case,
    begun: Instant,
    bar: Bar,
    shown: Duration,
}

impl<'a> Pace<'a> {
    /// Starts the clock.
    pub(crate) fn start(case: &'a Case) -> Self {
        Self { case, bar: Bar::new(case), shown: Duration::ZERO, begun: Instant::now() }
    }

    /// Of `wanted` operations, how many may start after `started`. Looks at the clock.
    pub(crate) async fn allows(&mut self, started: u64, wanted: u64, connection: &Connection) -> Result<u64> {
        let elapsed = self.begun.elapsed();
        if elapsed - self.shown > TICK {
            self.shown = elapsed;
            self.bar.show(self.case, started, elapsed);
            if self.case.is_one_sided() {
                tell(connection, &Note::AtWork).await?;
            }
        }
        Ok(self.case.limit.allows(started, wanted, elapsed))
    }

    /// Stops the clock.
    pub(crate) fn stop(self, operations: u64) -> Moved {
        Moved { operations, time: self.begun.elapsed() }
    }
}
