//! How long something is measured: for a time, or a number of operations.

use std::time::{Duration, Instant};

/// Of one case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) warm_up: Amount,
    pub(crate) measured: Amount,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Amount {
    Operations(u64),
    Time(Duration),
}

/// One run on its way.
#[derive(Debug)]
pub(crate) struct Run {
    amount: Amount,
    begun: Instant,
    done: u64,
}

impl Amount {
    pub(crate) fn begin(self) -> Run {
        Run { amount: self, begun: Instant::now(), done: 0 }
    }

    /// How long it may take: far longer than it should.
    pub(crate) fn bound(self) -> Duration {
        match self {
            // Each may take a second; all of them some time.
            Self::Operations(number) => Duration::from_secs(number.clamp(30, 600)),
            Self::Time(time) => time * 2 + Duration::from_secs(30),
        }
    }
}

impl Run {
    /// Counts an operation that ended at `now`; whether there is to be another.
    pub(crate) fn goes_on_at(&mut self, now: Instant) -> bool {
        self.done += 1;
        match self.amount {
            Amount::Operations(number) => self.done < number,
            Amount::Time(time) => now - self.begun < time,
        }
    }

    /// Counts an operation; whether there is to be another. Looks at the clock now and then only.
    pub(crate) fn goes_on(&mut self) -> bool {
        const LOOK: u64 = 16;
        match self.amount {
            Amount::Time(_) if !self.done.is_multiple_of(LOOK) => {
                self.done += 1;
                true
            }
            _ => self.goes_on_at(Instant::now()),
        }
    }

    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_after_its_number_or_time() {
        let mut run = Amount::Operations(3).begin();
        assert_eq!([run.goes_on(), run.goes_on(), run.goes_on()], [true, true, false]);
        assert_eq!(run.done(), 3);
        let mut run = Amount::Time(Duration::from_millis(5)).begin();
        while run.goes_on() {}
        assert!(run.elapsed() >= Duration::from_millis(5) && run.elapsed() < Duration::from_secs(5));
    }
}
