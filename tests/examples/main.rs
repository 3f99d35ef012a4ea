//! The examples, as a user runs them: processes that meet, what they print, exit status, errors, and nothing left behind.

mod file_server;
mod key_value;
mod measuring;
#[cfg(feature = "metrics")]
mod metrics;
mod programs;

// Parts of key_value that are tested by themselves; they call each other by these names.
#[allow(dead_code, reason = "the programs use the rest")]
#[path = "../../examples/key_value/slot.rs"]
mod slot;
#[allow(dead_code, reason = "the programs use the rest")]
#[path = "../../examples/key_value/table.rs"]
mod table;
