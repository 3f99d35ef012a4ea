//! What is counted. Without the feature `metrics` all of it is empty, and nothing of it is left where it is called.
//!
//! Of each message plain numbers are counted, beside what its connection's lock protects anyway (`Tally`). All else happens seldom, and is counted by atomics
//! that the connections of a device share (`Meters`); a tally is moved there when somebody wants to see it, or its connection goes.

mod count;
#[cfg(feature = "metrics")]
mod durations;
#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(feature = "metrics")]
mod on;

pub(crate) use count::{Count, Event, Phase, Refused};
#[cfg(feature = "metrics")]
pub(crate) use durations::Durations;
#[cfg(not(feature = "metrics"))]
pub(crate) use off::{Meters, Tally, Timer};
#[cfg(feature = "metrics")]
pub(crate) use on::{Meters, Tally, Timer};
