//! The pool: registered memory that is used again and again.

mod allocation;
mod block;
mod budget;
mod class;
mod depot;
mod global;
mod inner;
#[cfg(all(test, loom))]
mod loom_tests;
mod options;
#[cfg(test)]
mod planted;
#[expect(clippy::module_inception, reason = "the public type among its parts")]
mod pool;
mod reservoir;
mod statistics;
mod supply;
#[cfg(all(test, not(loom)))]
mod tests;
mod thread_number;
mod waiters;

pub use allocation::Allocation;
pub(crate) use block::{Block, IdleBlock};
pub(crate) use budget::{Budget, Room};
use class::Class;
pub use options::{HugePages, PoolOptions};
pub use pool::Pool;
pub(crate) use reservoir::Reservoir;
pub use statistics::PoolStatistics;
use thread_number::thread_number;
