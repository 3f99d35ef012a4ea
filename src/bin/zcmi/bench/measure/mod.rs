//! The measuring itself. Bytes are compared before and after, never while the clock runs.

mod atomics;
mod messages;
mod one_sided;
mod registration;

use super::failure::{Failure, Result};
use super::pace::Pace;
use super::samples::{Latency, Samples};
use super::session::Session;
use super::test::{Case, Test};

/// What one round found.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Operations that were measured.
    pub(crate) operations: u64,
    /// Of operations one after the other.
    pub(crate) latency: Option<Latency>,
    /// Of many in flight.
    pub(crate) per_second: Option<f64>,
}

/// Measures `case` once.
pub(crate) async fn run(session: &Session, case: &Case, pace: Pace) -> Result<Figures> {
    let bound = pace.warm_up.bound() + pace.measured.bound();
    let measured = async {
        match case.test {
            Test::CacheHit => registration::hit(session, case, pace),
            Test::CompareSwap | Test::FetchAdd => atomics::run(session, case, pace).await,
            Test::HandOver | Test::Send => messages::run(session, case, pace).await,
            Test::Read | Test::Write => one_sided::run(session, case, pace).await,
            Test::Register => registration::miss(session, case, pace),
        }
    };
    let late = || Failure::new(format!("it was not done within {} s", bound.as_secs()));
    let figures = tokio::time::timeout(bound, measured).await.unwrap_or_else(|_| Err(late()));
    figures.map_err(|failure| failure.within(format_args!("{} of {} bytes", case.test.name(), case.size)))
}

impl Figures {
    fn of_latency(samples: &Samples, operations: u64) -> Self {
        Self { operations, latency: Some(samples.latency()), per_second: None }
    }

    fn of_rate(operations: u64, time: std::time::Duration) -> Self {
        Self { operations, latency: None, per_second: Some(operations as f64 / time.as_secs_f64().max(1e-9)) }
    }
}
