//! The verbs layer on a real device: every object and operation, in good and in bad flow.

#![allow(unsafe_code, reason = "the unsafe tier; each block carries its proof")]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "each topic uses its part")]
mod pair;
#[allow(dead_code, reason = "each topic uses its part")]
mod support;

mod async_event;
mod atomics;
mod completion_errors;
mod completions;
mod connection_address;
mod connection_channel;
mod connection_datagram;
mod connection_id;
mod connection_support;
mod device;
mod drop_order;
mod fork;
mod gid;
mod in_flight;
mod limits;
mod memory_access;
mod memory_region;
mod memory_window;
mod memory_window_drops;
mod memory_window_refused;
mod posting_errors;
mod rc;
mod shared_receives;
mod spare_device;
mod states;
mod uc;
mod ud;
